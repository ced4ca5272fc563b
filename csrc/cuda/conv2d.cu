// The three passes of a 2-D convolution (shared/conv2d.h). Forward and the gradient in x are one kernel, the
// product of filters and patches; the gradient in w is in conv2d_weight.cu.
#include <numeric>

#include "cuda/activate.cuh"
#include "cuda/conv2d_loaders.cuh"
#include "cuda/conv2d_winograd.cuh"
#include "cuda/kernels.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// The filters, from (groups, O/groups, C/groups, KH, KW) to packed (groups, phases, taps_most, pitch): rows m
// innermost, zero beyond them, and the taps of a phase in the order of PatchLoader, in blocks of `run`
// channels, zero beyond those.
template <class T>
struct PackFilters {
    T* packed;
    Correlation<T> c;
    int64_t run, blocks_of_channels, taps_most, pitch;
};

// A block carries 32 taps of 32 rows, in the order of the one and then of the other. 256 threads.
template <class T>
__global__ void __launch_bounds__(256) conv2d_pack_filters(const PackFilters<T> g) {
    SHARED(T, tile, [32][33]);
    const Correlation<T>& c = g.c;
    const int64_t taps = g.blocks_of_channels * g.run * c.h.kernel * c.w.kernel;
    const int64_t row_tiles = tiles_of(g.pitch, 32), tap_tiles = tiles_of(taps, 32);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = 8;
    for (int64_t block = blockIdx.x; block < row_tiles * tap_tiles * c.groups; block += gridDim.x) {
        const int64_t m0 = block % row_tiles * 32, tap0 = block / row_tiles % tap_tiles * 32;
        const int64_t group = block / row_tiles / tap_tiles;
        const auto channel_of = [&](int64_t tap) { return tap / c.w.kernel / c.h.kernel; };
        {
            const int64_t tap = tap0 + lane, channel = channel_of(tap);
            const int64_t in_filter = tap % (c.h.kernel * c.w.kernel);
            for (int i = warp; i < 32; i += warps) {
                const int64_t m = m0 + i,
                              at = group * c.rows * c.channels + m * c.row_step + channel * c.channel_step;
                const bool inside = m < c.rows && channel < c.channels;
                tile[i][lane] = inside ? c.filters[at * c.h.kernel * c.w.kernel + in_filter] : T(0);
            }
        }
        __syncthreads();
        for (int i = warp; i < 32 && tap0 + i < taps && m0 + lane < g.pitch; i += warps) {
            const int64_t tap = tap0 + i, channel = channel_of(tap);
            const int64_t y = tap / c.w.kernel % c.h.kernel, x = tap % c.w.kernel;
            const int64_t phase_h = y % c.h.tap_jump, phase_w = x % c.w.tap_jump;
            const int64_t taps_h = c.h.template phase<int64_t>(phase_h).taps;
            const int64_t taps_w = c.w.template phase<int64_t>(phase_w).taps;
            const int64_t in_run = (channel / g.run * taps_h + y / c.h.tap_jump) * taps_w + x / c.w.tap_jump;
            const int64_t p = in_run * g.run + channel % g.run;
            const int64_t phase = (group * c.h.phases + phase_h) * c.w.phases + phase_w;
            g.packed[(phase * g.taps_most + p) * g.pitch + m0 + lane] = tile[lane][i];
        }
        __syncthreads();
    }
}

// Filters times patches; of a split sum the parts, without the epilogue.
template <class T>
struct PatchProduct {
    Correlation<T> c;
    const T* packed;
    int64_t pitch, taps_most, blocks_of_channels;
    T* to;  // (parts, as out)
    Split split;
    int64_t row_tiles, column_tiles, blocks;
};

// to[part, n, g*rows + m, a, b] = epilogue(sum over taps p of packed[g, phase, p, m] * patch[n, g, a, b, p])
// A tile is rows m by positions (n, a, b) of one phase of one group; blocks go on to further tiles.
template <class T, class Tile, class Index, int run>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads)
    conv2d_patches(const PatchProduct<T> g) {
    SHARED(int64_t, out_at,
           [Tile::columns]);  // of the tile's positions, row 0; -1: there is no such position
    const Correlation<T>& c = g.c;
    for (int64_t block = blockIdx.x; block < g.blocks; block += gridDim.x) {
        const int64_t m0 = block % g.row_tiles * Tile::rows, above = block / g.row_tiles;
        const int64_t j0 = above % g.column_tiles * Tile::columns, item = above / g.column_tiles;
        const int64_t phase = item % (c.h.phases * c.w.phases),
                      group = item / (c.h.phases * c.w.phases) % c.groups;
        const int64_t part = item / (c.h.phases * c.w.phases) / c.groups;
        const Phase<Index> h = c.h.template phase<Index>(phase / c.w.phases);
        const Phase<Index> w = c.w.template phase<Index>(phase % c.w.phases);
        const int64_t in_image = int64_t(h.results) * w.results, positions = c.batch * in_image;
        if (j0 >= positions) continue;

        const int column = int(threadIdx.x) % Tile::columns;
        const int64_t j = j0 + column < positions ? j0 + column : positions - 1, n = j / in_image;
        const Index a = Index(j % in_image / w.results), b = Index(j % w.results);
        if (int(threadIdx.x) < Tile::columns)
            out_at[column] =
                j0 + column < positions
                    ? ((n * c.groups + group) * c.rows * c.h.out + h.first + a * c.h.apart) * c.w.out +
                          w.first + b * c.w.apart
                    : -1;
        const int64_t taps = g.blocks_of_channels * run * h.taps * w.taps, p_begin = part * g.split.length;
        const int64_t left = taps - p_begin < g.split.length ? taps - p_begin : g.split.length;
        const T* const image = c.image + (n * c.groups + group) * c.channels * (c.h.image * c.w.image);
        PackedLoader<T, Tile> filters{
            g.packed + (group * c.h.phases * c.w.phases + phase) * g.taps_most * g.pitch + m0, g.pitch, taps};
        PatchLoader<T, Tile, Index, run> patches(image, Index(c.channels), c.h, c.w, h.taps, w.taps,
                                                 h.start + a * Index(c.h.step), w.start + b * Index(c.w.step),
                                                 p_begin);
        T acc[Tile::thread_rows][Tile::thread_columns] = {};
        multiply_tile<T, Tile>(acc, filters, patches, p_begin,
                               p_begin + tiles_of(left, Tile::depth) * Tile::depth);
        __syncthreads();  // out_at is there, also where there was nothing to multiply

        const bool whole = g.split.parts == 1;
        if (whole && c.epilogue.bias)
#pragma unroll
            for (int i = 0; i < Tile::thread_rows; ++i) {
                const int64_t m = m0 + Tile::row(i);
                const T bias = m < c.rows ? c.epilogue.bias[group * c.rows + m] : T(0);
#pragma unroll
                for (int k = 0; k < Tile::thread_columns; ++k) acc[i][k] += bias;
            }
        if (whole) activate(acc, c.epilogue.activation, c.epilogue.parameter);
        T* const to = g.to + part * (c.batch * c.groups * c.rows * c.h.out * c.w.out);
#pragma unroll
        for (int k = 0; k < Tile::thread_columns; ++k) {
            const int64_t at = out_at[Tile::column(k)];
            if (at < 0) continue;
#pragma unroll
            for (int i = 0; i < Tile::thread_rows; ++i) {
                const int64_t m = m0 + Tile::row(i);
                if (m < c.rows) to[at + m * (c.h.out * c.w.out)] = acc[i][k];
            }
        }
        __syncthreads();  // before the next tile's positions
    }
}

template <class T, class Tile, class Index, int run>
void multiply_patches(const Correlation<T>& c) {
    PatchProduct<T> g{};
    g.c = c;
    g.row_tiles = tiles_of(c.rows, Tile::rows), g.column_tiles = tiles_of(c.results(), Tile::columns);
    g.pitch = g.row_tiles * Tile::rows;
    g.blocks_of_channels = tiles_of(c.channels, run);
    g.taps_most = g.blocks_of_channels * run * c.taps();
    const Scratch<T> packed(c.groups * c.phases() * g.taps_most * g.pitch);
    g.packed = packed.data();
    const int64_t pack_tiles =
        tiles_of(g.pitch, 32) * tiles_of(g.blocks_of_channels * run * c.h.kernel * c.w.kernel, 32) * c.groups;
    LAUNCH((conv2d_pack_filters<T>), blocks_for(pack_tiles, 1), 256, 0,
           PackFilters<T>{packed.data(), c, run, g.blocks_of_channels, g.taps_most, g.pitch});

    const int64_t tiles = g.row_tiles * g.column_tiles * c.phases() * c.groups;
    const bool all = c.h.every_result_has_a_phase() && c.w.every_result_has_a_phase();
    g.split = split_sum(g.taps_most, Tile::depth, all ? tiles : INT32_MAX,
                        Tile::threads);  // parts cover all of out
    const Scratch<T> partial(g.split.parts > 1 ? g.split.parts * c.out_size() : 0);
    g.to = g.split.parts > 1 ? partial.data() : c.out;
    g.blocks = tiles * g.split.parts;
    LAUNCH((conv2d_patches<T, Tile, Index, run>), blocks_for(g.blocks, 1), Tile::threads, 0, g);
    if (g.split.parts > 1)
        add_parts<T>({c.out, partial.data(), g.split.parts, c.out_size(), c.h.out * c.w.out,
                      c.groups * c.rows, c.epilogue});
}

// Blocks of channels have one decision for all numbers of a panel: for them, a fifth of the products may be
// with zeros.
template <class T, class Tile>
void run_tile(const Correlation<T>& c) {
    const int64_t padded = tiles_of(c.channels, Tile::depth) * Tile::depth;
    if (padded * 4 <= c.channels * 5)
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
    if (conv2d_direct(c)) return;
    if (!positions_fit_32_bits) return multiply_patches<T, typename Tiles<T>::Smallest, int64_t, 1>(c);
    best_tile(Tiles<T>::rows, c.rows, c.results()).run(c);
}

CorrelationAxis forward_axis(int64_t out, int64_t image, int64_t kernel, int64_t stride, int64_t pad,
                             int64_t dilation) {
    return {out, image, kernel, pad, stride, dilation, false, 1, 1, 1, stride, dilation};
}
CorrelationAxis adjoint_axis(int64_t out, int64_t image, int64_t kernel, int64_t stride, int64_t pad,
                             int64_t dilation) {
    const int64_t jump = stride / std::gcd(stride, dilation);
    return {out,    image,    kernel, pad,
            stride, dilation, true,   kernel < jump ? kernel : jump,
            jump,   stride,   1,      -(jump * dilation / stride)};
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
            T total[1][1] = {{sum}};
            for (unsigned y = 1; y < blockDim.y; ++y) total[0][0] += sums[y][threadIdx.x];
            if (g.epilogue.bias) total[0][0] += g.epilogue.bias[e / g.plane % g.channels];
            activate(total, g.epilogue.activation, g.epilogue.parameter);
            g.out[e] = total[0][0];
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
    correlate<T>({a.out,
                  a.x,
                  a.w,
                  s.batch,
                  s.groups,
                  s.group_filters,
                  s.group_channels,
                  s.group_channels,
                  1,
                  forward_axis(s.out_h, s.height, s.kernel_h, s.stride_h, s.pad_top, s.dilation_h),
                  forward_axis(s.out_w, s.width, s.kernel_w, s.stride_w, s.pad_left, s.dilation_w),
                  {a.bias, BiasAxis::rows, a.activation, a.parameter}},
                 fits_32_bits(s));
}
template void conv2d_forward<float>(const Conv2dForward<float>&);
template void conv2d_forward<double>(const Conv2dForward<double>&);

template <class T>
void conv2d_backward_input(const Conv2dBackwardInput<T>& a) {
    if (winograd_applies(a.shape, a.winograd)) return conv2d_winograd_backward_input(a);
    const Conv2dShape& s = a.shape;
    correlate<T>({a.out,
                  a.dy,
                  a.w,
                  s.batch,
                  s.groups,
                  s.group_channels,
                  s.group_filters,
                  1,
                  s.group_channels,
                  adjoint_axis(s.height, s.out_h, s.kernel_h, s.stride_h, s.pad_top, s.dilation_h),
                  adjoint_axis(s.width, s.out_w, s.kernel_w, s.stride_w, s.pad_left, s.dilation_w),
                  {}},
                 fits_32_bits(s));
}
template void conv2d_backward_input<float>(const Conv2dBackwardInput<float>&);
template void conv2d_backward_input<double>(const Conv2dBackwardInput<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
