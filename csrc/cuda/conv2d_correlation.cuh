// What forward and the gradient in x have in common: filters that meet an image.
//
//   out[n, g*rows + m, a, b] =
//       epilogue(sum over c < channels, taps i of a, taps j of b of
//                filter[g, m, c, i, j] * image[n, g*channels + c, row of (a, i), column of (b, j)])
//
// with zeros outside of the image. Forward: out = y, image = x. The gradient in x: out = dx, image = dy, and
// of the taps of a only those i count for which a + pad - i dilation is a multiple of the stride. They are
// the same for all a of one remainder modulo stride, a phase. A phase is numbered by its first tap, so every
// phase has taps, and results that are in no phase are zero.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/activate.cuh"
#include "shared/conv2d.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// Blocks of a multiprocessor at least, for tiles of products: 128 registers a thread, and where a thread has
// 64 sums and finds its own way through the taps as well, 168.
template <class Tile>
constexpr int least_blocks =
    (Tile::threads <= 64 && Tile::thread_rows * Tile::thread_columns >= 64 ? 384 : 512) / Tile::threads;

__host__ __device__ inline int64_t tiles_of(int64_t size, int64_t tile) {
    return (size + tile - 1) / tile;
}

// A grid of at least `blocks` blocks, and the number of a block in it.
inline dim3 grid_of(int64_t blocks) {
    constexpr int64_t most = 1 << 30;
    return dim3(unsigned(std::min(blocks, most)), unsigned(tiles_of(blocks, most)));
}
template <class Index>
__device__ __forceinline__ Index block_index() {
    return Index(blockIdx.x) + Index(blockIdx.y) * Index(gridDim.x);
}

// The innermost coordinate of a number of coordinates written as one, which keeps the others. No number is
// negative.
template <class Index>
__device__ __forceinline__ Index take(Index& coordinates, Index size) {
    using Unsigned = std::make_unsigned_t<Index>;
    const Unsigned all = Unsigned(coordinates);
    coordinates = Index(all / Unsigned(size));
    return Index(all) - coordinates * size;
}

// Neighbours, read or written at once.
template <class T, int count>
struct alignas(count * sizeof(T) < 16 ? count * sizeof(T) : 16) Together {
    T v[count];
};
template <int bytes>
__device__ __forceinline__ bool is_aligned(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// The results and the taps of one phase along one axis.
template <class Index>
struct Phase {
    Index results, first;  // result a < results stands at first + a apart
    Index start, taps;     // and meets the image at start + a step + t tap_step with its tap t < taps
};

struct CorrelationAxis {
    int64_t out, image, kernel, pad, stride, dilation;
    bool adjoint;
    int64_t phases, tap_jump;       // tap t of phase f is tap f + t tap_jump of the filter
    int64_t apart, step, tap_step;  // of each phase

    // The most of any phase.
    __host__ __device__ int64_t results() const { return tiles_of(out, apart); }
    __host__ __device__ int64_t taps() const { return tiles_of(kernel, tap_jump); }
    bool every_result_has_a_phase() const { return phases == apart; }

    template <class Index>
    __device__ Phase<Index> phase(Index f) const {
        if (!adjoint) return {Index(out), 0, Index(-pad), Index(kernel)};
        const Index behind = (f * Index(dilation) - Index(pad)) % Index(stride);
        const Index first = behind < 0 ? behind + Index(stride) : behind;
        return {first < Index(out) ? (Index(out) - 1 - first) / Index(stride) + 1 : 0, first,
                (first + Index(pad) - f * Index(dilation)) / Index(stride),
                (Index(kernel) - 1 - f) / Index(tap_jump) + 1};
    }
};

template <class T>
struct Correlation {
    T* out;            // (batch, groups * rows, h.out, w.out)
    const T* image;    // (batch, groups * channels, h.image, w.image)
    const T* filters;  // filter[g, m, c, i, j] is tap (i, j) of g rows channels + m row_step + c channel_step
    int64_t batch, groups, rows, channels, row_step, channel_step;
    CorrelationAxis h, w;
    Epilogue<T> epilogue;

    int64_t phases() const { return h.phases * w.phases; }
    int64_t results() const { return batch * h.results() * w.results(); }  // of a row and phase, at most
    int64_t taps() const { return h.taps() * w.taps(); }
    int64_t out_size() const { return batch * groups * rows * h.out * w.out; }
};

// The epilogue of a tile in registers; row(i): which of the group's rows its i-th is.
template <class T, int rows, int columns, class Row>
__device__ __forceinline__ void finish(T (&acc)[rows][columns], const Correlation<T>& c, int64_t group,
                                       const Row& row) {
    if (c.epilogue.bias)
#pragma unroll
        for (int i = 0; i < rows; ++i) {
            const T bias = row(i) < c.rows ? c.epilogue.bias[group * c.rows + row(i)] : T(0);
#pragma unroll
            for (int j = 0; j < columns; ++j) acc[i][j] += bias;
        }
    activate(acc, c.epilogue.activation, c.epilogue.parameter);
}

// Whether 32 bits hold every position in an image, every number of results, taps and blocks, and every
// coordinate, which is less than twice the padded size away from 0. Kernels go on a little behind the ends.
inline bool fits_32_bits(const Conv2dShape& s) {
    const double height = double(s.height + s.pad_top + s.pad_bottom),
                 width = double(s.width + s.pad_left + s.pad_right), taps = double(s.kernel_h * s.kernel_w);
    const double channels = double(std::max(s.group_channels, s.group_filters)) + 32;
    const double results = double(s.batch) * height * width;
    const double tiles = double(s.groups) * channels * taps * std::max(results / 64 + 1, channels);
    return std::max({4 * height * width * channels, taps * channels, results, tiles / 16}) < double(1 << 30);
}

// By a kernel for images of few channels (conv2d_direct.cu), where 32 bits suffice. False: the shape is not
// for it, and nothing is done.
template <class T>
bool conv2d_direct(const Correlation<T>&);

// A row of a table of tiles: `cost` is what a multiply-add of the tile costs, those beyond the ends of the
// matrix included, relative to the first row.
template <class Arguments>
struct TileRow {
    int64_t rows, columns;
    double cost;
    void (*run)(const Arguments&);
};
template <class Arguments, size_t count>
const TileRow<Arguments>& best_tile(const TileRow<Arguments> (&table)[count], int64_t rows, int64_t columns) {
    const auto cost = [&](const TileRow<Arguments>& t) {
        return t.cost * double(tiles_of(rows, t.rows) * t.rows) *
               double(tiles_of(columns, t.columns) * t.columns);
    };
    const TileRow<Arguments>* best = table;
    for (const TileRow<Arguments>& row : table)
        if (cost(row) < cost(*best)) best = &row;
    return *best;
}

// How a sum that few blocks have is split among more: into parts of `length`, a multiple of the depth of a
// panel. By the shape alone.
struct Split {
    int64_t parts, length;
};
inline Split split_sum(int64_t length, int depth, int64_t blocks, int threads) {
    constexpr int64_t enough_threads = 1 << 16, least_steps = 8, most_length = 1 << 30;
    const int64_t steps = tiles_of(length, depth);
    const int64_t parts = std::max({std::min(enough_threads / (blocks * threads), steps / least_steps),
                                    tiles_of(length, most_length), int64_t(1)});
    const int64_t steps_each = tiles_of(steps, parts);
    return {tiles_of(steps, steps_each), steps_each * depth};
}

// out[e] = epilogue(sum over p < parts, in an order of its own, of partial[p * size + e]); of no parts: 0.
// The bias is that of channel e / plane % channels.
template <class T>
struct PartialSums {
    T* out;
    const T* partial;
    int64_t parts, size;
    int64_t plane = 1, channels = 1;
    Epilogue<T> epilogue = {};
};
template <class T>
void add_parts(const PartialSums<T>&);  // conv2d.cu

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
