// The three passes of a 2-D convolution (shared/conv2d.h). Forward and the gradient in x are one kernel, the
// product of filters and patches; the gradient in w is in conv2d_weight.cu.
#include <numeric>

#include "cuda/conv2d_loaders.cuh"
#include "cuda/conv2d_winograd.cuh"
#include "cuda/kernels.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// The filters, from (groups, O/groups, C/groups, KH, KW) to packed (groups, phases, taps_most, pitch): rows m
// innermost, zero beyond them, and the taps of a phase in the order of PatchLoader. And where those taps lie,
// taps (phases, runs_most), one for each run; behind the last of a phase, taps that lie outside of any image.
template <class T, class Index>
struct PackFilters {
    T* packed;
    Tap<Index>* taps;
    Correlation<T> c;
    int64_t run, taps_most, pitch, runs_most;
    int64_t blocks;
};

// A block of 256 threads carries 32 taps of 32 rows, in the order of the one and then of the other.
template <class T, class Index>
__global__ void __launch_bounds__(256) conv2d_pack_filters(const PackFilters<T, Index> g) {
    SHARED(T, tile, [32][33]);
    SHARED(Index, row_of, [32]);  // of packed
    const Correlation<T>& c = g.c;
    const Index kernel = Index(c.h.kernel) * Index(c.w.kernel), taps = Index(c.channels) * kernel;
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = 8;
    for (Index block = blockIdx.x; block < Index(g.blocks); block += gridDim.x) {
        Index group = block;
        const Index m0 = take(group, Index(tiles_of(g.pitch, 32))) * 32,
                    tap0 = take(group, Index(tiles_of(taps, 32))) * 32;
        Index channel = tap0 + lane;
        const Index in_filter = take(channel, kernel);
        for (int i = warp; i < 32; i += warps) {
            const bool inside = m0 + i < c.rows && channel < c.channels;
            const int64_t at = group * c.rows * c.channels + (m0 + i) * c.row_step + channel * c.channel_step;
            tile[i][lane] = inside ? c.filters[at * kernel + in_filter] : T(0);
        }
        if (warp == 0) {
            Index i = in_filter, in_block = channel;
            Index j = take(i, Index(c.w.kernel));
            const Index phase_h = take(i, Index(c.h.tap_jump)), phase_w = take(j, Index(c.w.tap_jump));
            const Index taps_h = c.h.phase(phase_h).taps, taps_w = c.w.phase(phase_w).taps;
            const Index in_run = take(in_block, Index(g.run));
            const Index phase = (group * Index(c.h.phases) + phase_h) * Index(c.w.phases) + phase_w;
            row_of[lane] =
                phase * Index(g.taps_most) + ((in_block * taps_h + i) * taps_w + j) * Index(g.run) + in_run;
        }
        __syncthreads();
        for (int i = warp; i < 32; i += warps)
            if (tap0 + i < taps && m0 + lane < g.pitch)
                g.packed[row_of[i] * g.pitch + m0 + lane] = tile[lane][i];
        __syncthreads();
    }
    const Index first = Index(blockIdx.x) * 256 + Index(threadIdx.x), threads = Index(gridDim.x) * 256;
    for (Index e = first; e < Index(c.h.phases * c.w.phases * g.runs_most); e += threads) {
        Index phase_h = e, block = take(phase_h, Index(g.runs_most));
        const Index phase_w = take(phase_h, Index(c.w.phases));
        const Index j = take(block, c.w.phase(phase_w).taps), i = take(block, c.h.phase(phase_h).taps);
        const Index y = i * Index(c.h.tap_step), x = j * Index(c.w.tap_step), channel = block * Index(g.run);
        const Index width = Index(c.w.image), outside = -(Index(1) << (8 * sizeof(Index) - 2));
        const bool inside = channel < Index(c.channels);
        g.taps[e] = {(channel * Index(c.h.image) + y) * width + x, inside ? y : outside, x};
    }
}

// Filters times patches; of a split sum the parts, without the epilogue.
template <class T, class Index>
struct PatchProduct {
    Correlation<T> c;
    const T* packed;
    const Tap<Index>* taps;
    int64_t taps_most, pitch, runs_most;
    T* to;  // (parts, as out)
    Split split;
    int64_t row_tiles, column_tiles, blocks;
};

// Element (row(i), position of column k) of a tile to to[row(i) row_size + at[column k]]; at -1: no such
// position.
template <class Tile, class T, class Row>
__device__ __forceinline__ void store_tile(const T (&acc)[Tile::thread_rows][Tile::thread_columns], T* to,
                                           const int64_t* at, int64_t row_size, int64_t rows,
                                           const Row& row) {
#pragma unroll
    for (int k = 0; k < Tile::thread_columns; k += 4) {
        const int64_t* const four = at + Tile::column(k);
        const bool together = four[3] == four[0] + 3 && row_size % 4 == 0 && is_aligned<16>(to + four[0]);
#pragma unroll
        for (int i = 0; i < Tile::thread_rows; ++i) {
            if (row(i) >= rows) continue;
            T* const to_row = to + row(i) * row_size;
            if (together)
                *reinterpret_cast<Together<T, 4>*>(to_row + four[0]) =
                    *reinterpret_cast<const Together<T, 4>*>(&acc[i][k]);
            else
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    if (four[j] >= 0) to_row[four[j]] = acc[i][k + j];
        }
    }
}

// to[part, n, g*rows + m, a, b] = epilogue(sum over taps p of packed[g, phase, p, m] * patch[n, g, a, b, p])
// A block's tile is rows m by positions (n, a, b) of one phase of one group.
template <class T, class Tile, class Index, int run>
__global__ void __launch_bounds__(Tile::threads, least_blocks<Tile>)
    conv2d_patches(const PatchProduct<T, Index> g) {
    SHARED(int64_t, out_at, [Tile::columns]);  // of the tile's positions, for store_tile
    SHARED(Index, place, [3]);                 // m0, group, part, for the end: registers are short until then
    const Correlation<T>& c = g.c;
    Index part = block_index<Index>();
    if (part >= Index(g.blocks)) return;
    const Index m0 = take(part, Index(g.row_tiles)) * Tile::rows;
    const Index j0 = take(part, Index(g.column_tiles)) * Tile::columns;
    const Index phase_w = take(part, Index(c.w.phases)), phase_h = take(part, Index(c.h.phases));
    const Index group = take(part, Index(c.groups)), p_begin = part * Index(g.split.length);
    const Phase<Index> h = c.h.phase(phase_h), w = c.w.phase(phase_w);
    const Index positions = Index(c.batch) * h.results * w.results,
                phase = phase_h * Index(c.w.phases) + phase_w;
    if (j0 >= positions) return;

    const Index j = j0 + Index(threadIdx.x) % Tile::columns;
    Index n = j < positions ? j : positions - 1;
    const Index b = take(n, w.results), a = take(n, h.results);
    const int64_t example = n * c.groups + group, plane = c.h.image * c.w.image;
    if (threadIdx.x == 0) place[0] = m0, place[1] = group, place[2] = part;
    if (int(threadIdx.x) < Tile::columns) {
        const int64_t row = example * c.rows * c.h.out + h.first + a * c.h.apart;
        out_at[threadIdx.x] = j < positions ? row * c.w.out + w.first + b * c.w.apart : -1;
    }
    const Index left = Index(c.channels) * h.taps * w.taps - p_begin;
    const int64_t packed_row = (group * c.h.phases * c.w.phases + phase) * g.taps_most + p_begin;
    PackedLoader<T, Tile, Index> filters(g.packed + packed_row * g.pitch + m0, g.pitch, left);
    const Index y = h.start + a * Index(c.h.step), x = w.start + b * Index(c.w.step);
    PatchLoader<T, Tile, Index, run> patches(c.image + example * c.channels * plane + (y * c.w.image + x), y,
                                             x, g.taps + phase * g.runs_most + p_begin / run, c.h.image,
                                             c.w.image);
    const Index length = left < Index(g.split.length) ? left : Index(g.split.length);
    T acc[Tile::thread_rows][Tile::thread_columns] = {};
    multiply_tile<T, Tile>(acc, filters, patches, p_begin,
                           p_begin + (length + Tile::depth - 1) / Tile::depth * Tile::depth);

    __syncthreads();  // out_at is there, also where there was nothing to multiply
    const auto row = [&](int i) { return place[0] + Tile::row(i); };
    if (g.split.parts == 1) finish(acc, c, place[1], row);
    const int64_t row_size = c.h.out * c.w.out;
    T* const to = g.to + place[2] * (c.batch * c.groups * c.rows * row_size);
    store_tile<Tile>(acc, to, out_at, row_size, c.rows, row);
}

template <class T, class Tile, class Index, int run>
void multiply_patches(const Correlation<T>& c) {
    PatchProduct<T, Index> g{};
    g.c = c;
    g.row_tiles = tiles_of(c.rows, Tile::rows), g.column_tiles = tiles_of(c.results(), Tile::columns);
    g.pitch = g.row_tiles * Tile::rows, g.taps_most = c.channels * c.taps();
    g.runs_most = tiles_of(g.taps_most, Tile::depth) * Tile::depth / run;
    const int64_t pack_blocks =
        tiles_of(g.pitch, 32) * tiles_of(c.channels * c.h.kernel * c.w.kernel, 32) * c.groups;
    const Scratch<T> packed(c.groups * c.phases() * g.taps_most * g.pitch);
    const Scratch<Tap<Index>> taps(c.phases() * g.runs_most);
    g.packed = packed.data(), g.taps = taps.data();
    LAUNCH((conv2d_pack_filters<T, Index>), blocks_for(pack_blocks, 1), 256, 0,
           PackFilters<T, Index>{packed.data(), taps.data(), c, run, g.taps_most, g.pitch, g.runs_most,
                                 pack_blocks});

    const int64_t tiles = g.row_tiles * g.column_tiles * c.phases() * c.groups;
    const bool all = c.h.every_result_has_a_phase() && c.w.every_result_has_a_phase();
    // Parts are whole results: no other kernel may have written some of them.
    g.split = split_sum(g.taps_most, Tile::depth, all ? tiles : INT32_MAX, Tile::threads);
    const Scratch<T> partial(g.split.parts > 1 ? g.split.parts * c.out_size() : 0);
    g.to = g.split.parts > 1 ? partial.data() : c.out;
    g.blocks = tiles * g.split.parts;
    LAUNCH((conv2d_patches<T, Tile, Index, run>), grid_of(g.blocks), Tile::threads, 0, g);
    if (g.split.parts > 1)
        add_parts<T>({c.out, partial.data(), g.split.parts, c.out_size(), c.h.out * c.w.out,
                      c.groups * c.rows, c.epilogue});
}

template <class T, class Tile>
void run_tile(const Correlation<T>& c) {
    if (c.channels % Tile::depth == 0)
        multiply_patches<T, Tile, int32_t, Tile::depth>(c);
    else
        multiply_patches<T, Tile, int32_t, 1>(c);
}

template <class T, class Tile>
constexpr TileRow<Correlation<T>> tile_row(double cost) {
    return {Tile::rows, Tile::columns, cost, run_tile<T, Tile>};
}
template <class T>
struct Tiles;
template <>
struct Tiles<float> {
    using Smallest = ProductTile<16, 128, 8, 4, 4>;
    static constexpr TileRow<Correlation<float>> rows[] = {
        tile_row<float, ProductTile<128, 128, 8, 8, 8>>(1.0),
        tile_row<float, ProductTile<64, 64, 8, 8, 8>>(1.1),
        tile_row<float, ProductTile<32, 128, 8, 4, 8>>(1.25),
        tile_row<float, Smallest>(1.8),
    };
};
template <>
struct Tiles<double> {
    using Smallest = ProductTile<16, 64, 8, 4, 4>;
    static constexpr TileRow<Correlation<double>> rows[] = {
        tile_row<double, ProductTile<64, 64, 8, 4, 4>>(1.0),
        tile_row<double, Smallest>(1.2),
    };
};

template <class T>
void correlate(const Correlation<T>& c, bool positions_fit_32_bits) {
    if (c.out_size() == 0) return;
    if (!c.h.every_result_has_a_phase() || !c.w.every_result_has_a_phase())
        add_parts<T>({c.out, nullptr, 0, c.out_size()});
    if (!positions_fit_32_bits) return multiply_patches<T, typename Tiles<T>::Smallest, int64_t, 1>(c);
    if (!conv2d_direct(c)) best_tile(Tiles<T>::rows, c.rows, c.results()).run(c);
}

CorrelationAxis forward_axis(int64_t out, int64_t image, int64_t kernel, int64_t stride, int64_t pad,
                             int64_t dilation) {
    return {.out = out,
            .image = image,
            .kernel = kernel,
            .pad = pad,
            .stride = stride,
            .dilation = dilation,
            .adjoint = false,
            .phases = 1,
            .tap_jump = 1,
            .apart = 1,
            .step = stride,
            .tap_step = dilation};
}
CorrelationAxis adjoint_axis(int64_t out, int64_t image, int64_t kernel, int64_t stride, int64_t pad,
                             int64_t dilation) {
    const int64_t common = std::gcd(stride, dilation), jump = stride / common;
    return {.out = out,
            .image = image,
            .kernel = kernel,
            .pad = pad,
            .stride = stride,
            .dilation = dilation,
            .adjoint = true,
            .phases = std::min(kernel, jump),
            .tap_jump = jump,
            .apart = stride,
            .step = 1,
            .tap_step = -(dilation / common)};
}

// A block sums 32 results by 32 columns of threads: a thread adds every blockDim.y-th part, and the first row
// of threads the sums of its column in their order.
constexpr int partial_lanes = 32;

template <class T>
__global__ void __launch_bounds__(512) conv2d_add_parts(const PartialSums<T> g) {
    SHARED(T, sums, [16][partial_lanes]);
    for (int64_t first = int64_t(blockIdx.x) * partial_lanes; first < g.size;
         first += int64_t(gridDim.x) * partial_lanes) {
        const int64_t e = first + threadIdx.x;
        T sum = 0;
        if (e < g.size)
#pragma unroll 4
            for (int64_t p = threadIdx.y; p < g.parts; p += blockDim.y) sum += g.partial[p * g.size + e];
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y == 0 && e < g.size) {
            T total[1] = {sum};
            for (unsigned y = 1; y < blockDim.y; ++y) total[0] += sums[y][threadIdx.x];
            if (g.epilogue.bias) total[0] += g.epilogue.bias[e / g.plane % g.channels];
            activate(total, g.epilogue.activation, g.epilogue.parameter);
            g.out[e] = total[0];
        }
        __syncthreads();
    }
}

}  // namespace

template <class T>
void add_parts(const PartialSums<T>& g) {
    const unsigned rows = g.parts <= 1 ? 1 : g.parts < 64 ? 4 : 16;
    LAUNCH((conv2d_add_parts<T>), blocks_for(g.size, partial_lanes), dim3(partial_lanes, rows), 0, g);
}
template void add_parts<float>(const PartialSums<float>&);
template void add_parts<double>(const PartialSums<double>&);

template <class T>
void conv2d_forward(const Conv2dForward<T>& a) {
    if (winograd_applies(a.shape, a.winograd)) return conv2d_winograd_forward(a);
    const Conv2dShape& s = a.shape;
    const Correlation<T> c{
        .out = a.out,
        .image = a.x,
        .filters = a.w,
        .batch = s.batch,
        .groups = s.groups,
        .rows = s.group_filters,
        .channels = s.group_channels,
        .row_step = s.group_channels,
        .channel_step = 1,
        .h = forward_axis(s.out_h, s.height, s.kernel_h, s.stride_h, s.pad_top, s.dilation_h),
        .w = forward_axis(s.out_w, s.width, s.kernel_w, s.stride_w, s.pad_left, s.dilation_w),
        .epilogue = {a.bias, BiasAxis::rows, a.activation, a.parameter},
    };
    correlate(c, fits_32_bits(s));
}
template void conv2d_forward<float>(const Conv2dForward<float>&);
template void conv2d_forward<double>(const Conv2dForward<double>&);

template <class T>
void conv2d_backward_input(const Conv2dBackwardInput<T>& a) {
    if (winograd_applies(a.shape, a.winograd)) return conv2d_winograd_backward_input(a);
    const Conv2dShape& s = a.shape;
    const Correlation<T> c{
        .out = a.out,
        .image = a.dy,
        .filters = a.w,
        .batch = s.batch,
        .groups = s.groups,
        .rows = s.group_channels,
        .channels = s.group_filters,
        .row_step = 1,
        .channel_step = s.group_channels,
        .h = adjoint_axis(s.height, s.out_h, s.kernel_h, s.stride_h, s.pad_top, s.dilation_h),
        .w = adjoint_axis(s.width, s.out_w, s.kernel_w, s.stride_w, s.pad_left, s.dilation_w),
        .epilogue = {},
    };
    correlate(c, fits_32_bits(s));
}
template void conv2d_backward_input<float>(const Conv2dBackwardInput<float>&);
template void conv2d_backward_input<double>(const Conv2dBackwardInput<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
