// Convolution of 3x3 filters at stride 1 and dilation 1 by Winograd's F(4x4, 3x3), and the gradient of the
// filters by F(3x3, 4x4): 36 products instead of the 144 that a tile of outputs takes.
// shared/winograd_transforms.h has the transforms, shared/conv2d.h what becomes of the numbers.
//
// Tiles of 6x6 inputs, 4 apart, and the filters are transformed; then each of the 36 points is a matrix
// product, whose result is transformed back. All 36 of all groups are one batched call of gemm, with, of each
// group and point,
//   filters (K, M)          number (k, m) at k * M + m: a column of A for each k
//   inputs  (K, tiles)      number (k, t) at k * pitch + t
//   sums    (M, tiles)      number (m, t) at m * pitch + t
// K channels are summed to M: C/groups to O/groups, or in the gradient of x the other way. Neighbouring
// threads transform neighbouring tiles (filters: neighbouring m), so what they write and gemm reads lies side
// by side. In the gradient of the filters gemm sums over tiles, products of the transformed dy (O/groups,
// tiles) and x (C/groups, tiles), to (O/groups, C/groups).
//
// Tiles are numbered through the batch and taken in chunks, which bounds the scratch memory.
#include "cuda/conv2d_winograd.cuh"

#include "cuda/activate.cuh"
#include "cuda/conv2d_correlation.cuh"
#include "cuda/kernels.cuh"
#include "shared/winograd_transforms.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr int taps = 9, step = 4;                    // 3x3 taps; outputs of a tile along an axis
constexpr int tile_threads = 128;                    // of a block, a tile each
constexpr int64_t chunk_unit = 128;                  // tiles: whole tiles of gemm
constexpr int64_t chunk_bytes = int64_t(256) << 20;  // of the transformed tiles and sums of a chunk

// Where it pays, estimated: of a tile 36 (gain - 1) C O multiply-adds are saved, and some 350 (C + O) bytes
// are moved (float32), in whose time cards do 6 to 13 multiply-adds each; the second-level cache keeps part
// of them. The filters are transformed once, for all tiles.
constexpr int64_t least_tiles = 128;
constexpr double least_saved = 64;         // (gain - 1) C O / (C + O)
constexpr int64_t longest_axis = 1 << 30;  // of an image, so that a pixel's coordinates are ints

// `count` tiles from tile (row, column) of image `image` on, of images that have rows x columns of them.
struct TileRange {
    int64_t image;
    int row, column, rows, columns, count;
};

struct TilePlace {
    int64_t image;
    int y, x;  // of the first output
};

__device__ __forceinline__ TilePlace place_of(const TileRange& r, int tile) {
    const unsigned across = unsigned(r.column) + unsigned(tile), columns = unsigned(r.columns);
    const unsigned down = unsigned(r.row) + across / columns, rows = unsigned(r.rows);
    return {r.image + down / rows, int(down % rows) * step, int(across % columns) * step};
}

// Planes (N, channels, height, width) whose tiles begin `top` rows above and `left` columns before the
// outputs.
template <class T>
struct Planes {
    T* data;
    int64_t channels;
    int height, width, top, left;
};

// The transform of a square of numbers, down the columns and along the rows: load(i, j) gives number (i, j)
// and store(i, j, v) takes those of the result.
template <class T, class Transform, class Load, class Store>
__device__ __forceinline__ void transform_square(const Load& load, const Store& store) {
    constexpr int in = Transform::in, out = Transform::out;
    T half[out][in];
#pragma unroll
    for (int j = 0; j < in; ++j) {
        T d[in], v[out];
#pragma unroll
        for (int i = 0; i < in; ++i) d[i] = load(i, j);
        Transform::along(d, v);
#pragma unroll
        for (int i = 0; i < out; ++i) half[i][j] = v[i];
    }
#pragma unroll
    for (int i = 0; i < out; ++i) {
        T v[out];
        Transform::along(half[i], v);
#pragma unroll
        for (int j = 0; j < out; ++j) store(i, j, v[j]);
    }
}

// A block's place in a grid of tile_blocks x channels: few enough of both for unsigned numbers, since a chunk
// of tiles is small.
struct ChannelTiles {
    int tile;  // of this thread
    int64_t channel;

    __device__ __forceinline__ explicit ChannelTiles(const TileRange& range)
        : tile(int(blockIdx.x % tile_blocks(range)) * tile_threads + int(threadIdx.x)),
          channel(blockIdx.x / tile_blocks(range)) {}
    static __host__ __device__ __forceinline__ unsigned tile_blocks(const TileRange& range) {
        return unsigned(range.count + tile_threads - 1) / tile_threads;
    }
    static unsigned grid(const TileRange& range, int64_t channels) {
        return tile_blocks(range) * unsigned(channels);
    }
};

// to (36, channels, pitch): to[q, c, t] = number q of tile t of channel c, transformed; zeros outside of the
// planes.
template <class T, class Transform>
__global__ void __launch_bounds__(tile_threads)
    winograd_tiles(T* to, int64_t pitch, const Planes<const T> planes, const TileRange range) {
    const ChannelTiles own(range);
    if (own.tile >= range.count) return;
    const TilePlace place = place_of(range, own.tile);
    const int top = place.y - planes.top, left = place.x - planes.left;
    const T* const plane =
        planes.data + (place.image * planes.channels + own.channel) * planes.height * planes.width;
    T* const first = to + own.channel * pitch + own.tile;
    const int64_t point = planes.channels * pitch;
    transform_square<T, Transform>(
        [&](int i, int j) {
            const int y = top + i, x = left + j;
            const bool inside = y >= 0 && y < planes.height && x >= 0 && x < planes.width;
            return inside ? plane[int64_t(y) * planes.width + x] : T(0);
        },
        [&](int i, int j, T v) { first[(i * winograd_size + j) * point] = v; });
}

constexpr int filters_m = 32, filters_k = 8;  // of a block

// w (groups * O, C, 3, 3), C and O those of a group; M = O and K = C, or turned the other way.
template <class T>
struct Filters {
    const T* w;
    int64_t groups, m, k;
    unsigned m_blocks, k_blocks;  // of a group
};

// to (36, groups, K, M): to[q, g, k, m] = number q of the transform of w[g, m, k], or if turned, of w[g, k,
// m] with its taps in reverse order. A block reads its filters as they lie and passes them through shared
// memory.
template <class T, bool turned>
__global__ void __launch_bounds__(filters_m* filters_k) winograd_filters(T* to, const Filters<T> f) {
    constexpr int threads = filters_m * filters_k, count = threads * taps;
    constexpr int side_by_side = (turned ? filters_m : filters_k) * taps;
    SHARED(T, panel, [filters_m][filters_k * taps + 1]);
    const unsigned rest = blockIdx.x / f.m_blocks;
    const int64_t group = rest / f.k_blocks, filters = f.m * f.k;
    const int64_t m0 = int64_t(blockIdx.x % f.m_blocks) * filters_m,
                  k0 = int64_t(rest % f.k_blocks) * filters_k;
    const T* const w = f.w + group * filters * taps;
#pragma unroll
    for (int e = int(threadIdx.x); e < count; e += threads) {
        const int inner = e % side_by_side / taps, outer = e / side_by_side, tap = e % taps;
        const int m = turned ? inner : outer, k = turned ? outer : inner;
        const int64_t filter = turned ? (k0 + k) * f.m + m0 + m : (m0 + m) * f.k + k0 + k;
        if (m0 + m < f.m && k0 + k < f.k) panel[m][k * taps + tap] = w[filter * taps + tap];
    }
    __syncthreads();
    const int m = int(threadIdx.x) % filters_m, k = int(threadIdx.x) / filters_m;
    if (m0 + m >= f.m || k0 + k >= f.k) return;
    T* const first = to + group * filters + (k0 + k) * f.m + m0 + m;
    const int64_t point = f.groups * filters;
    transform_square<T, Evaluate<T, 3, true>>(
        [&](int i, int j) {
            const int tap = i * 3 + j;
            return panel[m][k * taps + (turned ? taps - 1 - tap : tap)];
        },
        [&](int i, int j, T v) { first[(i * winograd_size + j) * point] = v; });
}

// out[n, c, y, x] = activation(number (y, x) of sums (36, channels, pitch) transformed back + bias[c]) for
// the 4x4 outputs of each tile.
template <class T>
__global__ void __launch_bounds__(tile_threads)
    winograd_outputs(const Planes<T> out, const T* sums, int64_t pitch, const Epilogue<T> epilogue,
                     const TileRange range) {
    const ChannelTiles own(range);
    if (own.tile >= range.count) return;
    const T* const first = sums + own.channel * pitch + own.tile;
    const int64_t point = out.channels * pitch;
    const T bias = epilogue.bias ? epilogue.bias[own.channel] : T(0);
    T values[step][step];
    transform_square<T, Interpolate<T, step, false>>(
        [&](int i, int j) { return first[(i * winograd_size + j) * point]; },
        [&](int i, int j, T v) { values[i][j] = v + bias; });
    activate(values, epilogue.activation, epilogue.parameter);
    const TilePlace place = place_of(range, own.tile);
    T* const plane = out.data + (place.image * out.channels + own.channel) * out.height * out.width;
#pragma unroll
    for (int i = 0; i < step; ++i)
#pragma unroll
        for (int j = 0; j < step; ++j) {
            const int y = place.y + i, x = place.x + j;
            if (y < out.height && x < out.width) plane[int64_t(y) * out.width + x] = values[i][j];
        }
}

// dw (filters, 3, 3): the sums (36, filters) transformed back. A block writes through shared memory, since 9
// numbers of a thread lie side by side.
template <class T>
__global__ void __launch_bounds__(tile_threads) winograd_taps(T* dw, const T* sums, int64_t filters) {
    SHARED(T, values, [tile_threads * taps]);
    const int thread = int(threadIdx.x);
    const int64_t begin = int64_t(blockIdx.x) * tile_threads;
    if (begin + thread < filters)
        transform_square<T, Interpolate<T, 3, true>>(
            [&](int i, int j) { return sums[(i * winograd_size + j) * filters + begin + thread]; },
            [&](int i, int j, T v) { values[thread * taps + i * 3 + j] = v; });
    __syncthreads();
#pragma unroll
    for (int e = thread; e < tile_threads * taps; e += tile_threads)
        if (begin * taps + e < filters * taps) dw[begin * taps + e] = values[e];
}

// The tiles of `batch` images of height x width outputs, in chunks: use(range, whether it is the first).
struct Chunks {
    int64_t rows, columns, tiles, size, pitch;

    // numbers: of scratch memory for a tile. Tests of small shapes (`always`) have chunks of the least size.
    template <class T>
    static Chunks of(int64_t batch, int64_t height, int64_t width, int64_t numbers, Winograd winograd) {
        const int64_t rows = tiles_of(height, step), columns = tiles_of(width, step);
        const int64_t tiles = batch * rows * columns;
        const int64_t fit =
            winograd == Winograd::always ? 1 : chunk_bytes / (numbers * int64_t(sizeof(T)) * chunk_unit);
        const int64_t units = tiles_of(tiles, chunk_unit), chunks = tiles_of(units, fit < 1 ? 1 : fit);
        const int64_t size = tiles_of(units, chunks) * chunk_unit;
        constexpr int64_t line = 32;  // numbers
        return {rows, columns, tiles, size, tiles_of(tiles < size ? tiles : size, line) * line};
    }
    template <class Use>
    void each(const Use& use) const {
        for (int64_t begin = 0; begin < tiles; begin += size) {
            const int64_t count = tiles - begin < size ? tiles - begin : size, row = begin / columns;
            use(TileRange{row / rows, int(row % rows), int(begin % columns), int(rows), int(columns),
                          int(count)},
                begin == 0);
        }
    }
};

template <class Transform, class T>
void transform_tiles(T* to, int64_t pitch, const Planes<const T>& planes, const TileRange& range) {
    LAUNCH((winograd_tiles<T, Transform>), ChannelTiles::grid(range, planes.channels), tile_threads, 0, to,
           pitch, planes, range);
}

template <class T>
Filters<T> filters_of(const T* w, int64_t groups, int64_t m, int64_t k) {
    return {w, groups, m, k, unsigned(tiles_of(m, filters_m)), unsigned(tiles_of(k, filters_k))};
}

// The sum over the K channels of each group of `source`, correlated with the filters: M channels of `out`.
template <class T, bool turned>
void correlate(const Filters<T>& f, const Planes<const T>& source, const Planes<T>& out, int64_t batch,
               const Epilogue<T>& epilogue, Winograd winograd) {
    const int64_t products = winograd_points * f.groups;
    const Chunks chunks = Chunks::of<T>(batch, out.height, out.width,
                                        winograd_points * (source.channels + out.channels), winograd);
    const Scratch<T> filters(products * f.m * f.k), inputs(products * f.k * chunks.pitch),
        sums(products * f.m * chunks.pitch);
    LAUNCH((winograd_filters<T, turned>), unsigned(f.groups) * f.m_blocks * f.k_blocks, filters_m * filters_k,
           0, filters.data(), f);
    chunks.each([&](const TileRange& range, bool) {
        transform_tiles<FilterInputs<T>>(inputs.data(), chunks.pitch, source, range);
        gemm<T>({.batch = products,
                 .m = f.m,
                 .n = range.count,
                 .k = f.k,
                 .a = {filters.data(), 1, f.m},
                 .a_batch_stride = f.k * f.m,
                 .b = {inputs.data(), chunks.pitch, 1},
                 .b_batch_stride = f.k * chunks.pitch,
                 .c = {sums.data(), chunks.pitch, 1},
                 .c_batch_stride = f.m * chunks.pitch});
        LAUNCH(winograd_outputs<T>, ChannelTiles::grid(range, out.channels), tile_threads, 0, out,
               sums.data(), chunks.pitch, epilogue, range);
    });
}

}  // namespace

bool winograd_applies(const Conv2dShape& s, Winograd winograd) {
    const bool possible = s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 &&
                          s.dilation_h == 1 && s.dilation_w == 1 && s.batch > 0 && s.height <= longest_axis &&
                          s.width <= longest_axis && s.out_h <= longest_axis && s.out_w <= longest_axis;
    if (!possible || winograd != Winograd::where_it_pays) return possible && winograd == Winograd::always;
    const double tiles = double(s.batch) * double(tiles_of(s.out_h, step)) * double(tiles_of(s.out_w, step));
    const double products = double(s.batch) * double(s.out_h) * double(s.out_w) * taps;
    const double gain = products / (winograd_points * tiles);
    const double channels = double(s.group_channels), filters = double(s.group_filters);
    return tiles >= least_tiles && (gain - 1) * channels * filters / (channels + filters) >= least_saved;
}

// out (N, O, OH, OW) = activation(bias + x (N, C, H, W) convolved with w (O, C/groups, 3, 3)).
template <class T>
void conv2d_winograd_forward(const Conv2dForward<T>& a) {
    const Conv2dShape& s = a.shape;
    correlate<T, false>(filters_of(a.w, s.groups, s.group_filters, s.group_channels),
                        {a.x, s.channels, int(s.height), int(s.width), int(s.pad_top), int(s.pad_left)},
                        {a.out, s.filters, int(s.out_h), int(s.out_w), 0, 0}, s.batch,
                        {a.bias, BiasAxis::rows, a.activation, a.parameter}, a.winograd);
}

// out (N, C, H, W) from dy (N, O, OH, OW) and w (O, C/groups, 3, 3): the correlation of dy with the turned
// filters, roles of filters and channels exchanged.
template <class T>
void conv2d_winograd_backward_input(const Conv2dBackwardInput<T>& a) {
    const Conv2dShape& s = a.shape;
    correlate<T, true>(filters_of(a.w, s.groups, s.group_channels, s.group_filters),
                       {a.dy, s.filters, int(s.out_h), int(s.out_w), int(2 - s.pad_top), int(2 - s.pad_left)},
                       {a.out, s.channels, int(s.height), int(s.width), 0, 0}, s.batch, {}, a.winograd);
}

// out (O, C/groups, 3, 3) from x (N, C, H, W) and dy (N, O, OH, OW): chunk by chunk of tiles, in order.
template <class T>
void conv2d_winograd_backward_weight(const Conv2dBackwardWeight<T>& a) {
    const Conv2dShape& s = a.shape;
    const Planes<const T> x = {a.x, s.channels, int(s.height), int(s.width), int(s.pad_top), int(s.pad_left)};
    const Planes<const T> dy = {a.dy, s.filters, int(s.out_h), int(s.out_w), 0, 0};
    const int64_t filters = s.filters * s.group_channels;
    const Chunks chunks =
        Chunks::of<T>(s.batch, s.out_h, s.out_w, winograd_points * (s.channels + s.filters), a.winograd);
    const Scratch<T> inputs(winograd_points * s.channels * chunks.pitch),
        gradients(winograd_points * s.filters * chunks.pitch), sums(winograd_points * filters);
    chunks.each([&](const TileRange& range, bool first) {
        transform_tiles<FilterInputs<T>>(inputs.data(), chunks.pitch, x, range);
        transform_tiles<Evaluate<T, step, false>>(gradients.data(), chunks.pitch, dy, range);
        gemm<T>({.batch = winograd_points * s.groups,
                 .m = s.group_filters,
                 .n = s.group_channels,
                 .k = range.count,
                 .a = {gradients.data(), chunks.pitch, 1},
                 .a_batch_stride = s.group_filters * chunks.pitch,
                 .b = {inputs.data(), 1, chunks.pitch},
                 .b_batch_stride = s.group_channels * chunks.pitch,
                 .c = {sums.data(), s.group_channels, 1},
                 .c_batch_stride = s.group_filters * s.group_channels,
                 .beta = T(first ? 0 : 1)});
    });
    LAUNCH(winograd_taps<T>, unsigned(tiles_of(filters, tile_threads)), tile_threads, 0, a.out, sums.data(),
           filters);
}

#define TINYGRAD_NM_INSTANTIATE(T)                                                  \
    template void conv2d_winograd_forward<T>(const Conv2dForward<T>&);              \
    template void conv2d_winograd_backward_input<T>(const Conv2dBackwardInput<T>&); \
    template void conv2d_winograd_backward_weight<T>(const Conv2dBackwardWeight<T>&);
TINYGRAD_NM_INSTANTIATE(float)
TINYGRAD_NM_INSTANTIATE(double)
#undef TINYGRAD_NM_INSTANTIATE

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
