// What forward and the gradient in x have in common: filters that meet an image.
//
//   out[n, g*rows + m, a, b] = epilogue(sum over c < channels, taps i of a, taps j of b of
//                               filter[g, m, c, i, j] * image[n, g*channels + c, row of (a, i), column of (b,
//                               j)])
//
// with zeros outside of the image. Forward: out = y, image = x. The gradient in x: out = dx, image = dy, and
// of the taps of a only those i count for which a + pad - i dilation is a multiple of the stride. They are
// the same for all a of one remainder modulo stride, a phase. A phase is numbered by its first tap, so every
// phase has taps, and results that are in no phase are zero.
#pragma once
#include <cstdint>

#include "cuda/launch.cuh"
#include "shared/conv2d.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

__host__ __device__ inline int64_t tiles_of(int64_t size, int64_t tile) {
    return (size + tile - 1) / tile;
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
    __host__ __device__ Phase<Index> phase(int64_t f) const {
        if (!adjoint) return {Index(out), 0, Index(-pad), Index(kernel)};
        const int64_t behind = (f * dilation - pad) % stride, first = behind < 0 ? behind + stride : behind;
        return {Index(first < out ? (out - 1 - first) / stride + 1 : 0), Index(first),
                Index((first + pad - f * dilation) / stride), Index((kernel - 1 - f) / tap_jump + 1)};
    }
};

template <class T>
struct Correlation {
    T* out;            // (batch, groups * rows, h.out, w.out)
    const T* image;    // (batch, groups * channels, h.image, w.image)
    const T* filters;  // filter[g, m, c, i, j] is at ((g rows channels + m row_step + c channel_step) KH + i)
                       // KW + j
    int64_t batch, groups, rows, channels, row_step, channel_step;
    CorrelationAxis h, w;
    Epilogue<T> epilogue;

    int64_t phases() const { return h.phases * w.phases; }
    int64_t results() const { return batch * h.results() * w.results(); }  // of a row and phase, at most
    int64_t taps() const { return h.taps() * w.taps(); }
    int64_t out_size() const { return batch * groups * rows * h.out * w.out; }
};

// Whether the sum's positions and lengths fit into 32 bits: a coordinate is less than twice the padded size
// away from 0, and a kernel may go on up to 32 channels too far.
inline bool fits_32_bits(const Conv2dShape& s) {
    const auto extent = [](int64_t size, int64_t before, int64_t after) {
        return 2.0 * double(size + before + after);
    };
    const double plane = extent(s.height, s.pad_top, s.pad_bottom) * extent(s.width, s.pad_left, s.pad_right);
    const double most =
        double((s.group_channels > s.group_filters ? s.group_channels : s.group_filters) + 32);
    return most * plane <= INT32_MAX && most * double(s.kernel_h * s.kernel_w) <= INT32_MAX;
}

// By a kernel for images of few channels (conv2d_direct.cu). False: the shape is not for it, and nothing is
// done.
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
    constexpr int64_t enough_threads = 1 << 16, least_steps = 8;
    const int64_t steps = tiles_of(length, depth);
    int64_t parts = enough_threads / (blocks * threads);
    if (parts > steps / least_steps) parts = steps / least_steps;
    if (parts < 1) parts = 1;
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
