// Convolutions of small planes on interleaved images (interleaved_body.h): stride 1, dilation 1.
//
// A vector is one pixel of as many images as it has lanes, so the three passes are sums of products of a
// vector with a weight (forward and backward-input) or with a vector (backward-weight), whatever the widths
// and channels. A block of images is interleaved, worked on while it stays in the second-level cache, and
// written back. Blocks, or shares of them, are the tasks. Backward-weight: conv2d_interleaved_weight_body.h;
// by Winograd's tiles: conv2d_interleaved_winograd_body.h; the passes: conv2d_interleaved_passes_body.h.
#pragma once
#include "cpu/activation_body.h"
#include "cpu/arena.h"
#include "cpu/interleaved_plan_body.h"
#include "cpu/parallel.h"
#include "cpu/patches_body.h"
#include "shared/conv2d.h"

namespace tinygrad_nm {
namespace {

// ---- forward and backward-input: sum over outer, i, j of weight[r] * pixels ----

// Where a tap (i, j) lies in the pixels of one channel, and in the weights.
struct Tap {
    int64_t x, w;
};

// y[r * y_stride + q * lanes] = bias[r] + sum over c < outer and the taps of
//     w[c * w_outer + tap.w + r] * x[c * x_outer + tap.x + q * lanes],  a tile of some rows r and pixels q.
template <class T>
struct PixelTile {
    const T *x, *w;
    const Tap* taps;
    int64_t count, outer, x_outer, w_outer;
    const T* bias;  // null: none
    T* y;
    int64_t y_stride;
    int64_t tiles;
};

template <class T, int row_count, int pixels>
TINYGRAD_NM_INLINE void compute_tile_of_pixels(const PixelTile<T>& t, const T* x, T* y) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const T *w = t.w, *const bias = t.bias;
    const int64_t y_stride = t.y_stride;
    Vec<T> acc[row_count][pixels] = {};
    for (int64_t c = 0; c < t.outer; ++c, x += t.x_outer, w += t.w_outer)
        for (const Tap *tap = t.taps, *end = tap + t.count; tap < end; ++tap) {
            const T* const weights = w + tap->w;
            Vec<T> pixel[pixels];
#pragma GCC unroll 6
            for (int q = 0; q < pixels; ++q) pixel[q] = Vec<T>::load(x + tap->x + q * lanes);
#pragma GCC unroll 6
            for (int r = 0; r < row_count; ++r) {
                const Vec<T> weight = Vec<T>::broadcast(weights[r]);
#pragma GCC unroll 6
                for (int q = 0; q < pixels; ++q) acc[r][q] = fma(weight, pixel[q], acc[r][q]);
            }
        }
    if (bias)
#pragma GCC unroll 6
        for (int r = 0; r < row_count; ++r)
#pragma GCC unroll 6
            for (int q = 0; q < pixels; ++q) acc[r][q] = acc[r][q] + Vec<T>::broadcast(bias[r]);
#pragma GCC unroll 6
    for (int r = 0; r < row_count; ++r)
#pragma GCC unroll 6
        for (int q = 0; q < pixels; ++q) acc[r][q].store(y + r * y_stride + q * lanes);
}

// Some tiles side by side.
template <class T, int row_count, int pixels>
void compute_pixels(const PixelTile<T>& t) {
    constexpr int64_t step = pixels * Vec<T>::lanes;
    for (int64_t i = 0; i < t.tiles; ++i)
        compute_tile_of_pixels<T, row_count, pixels>(t, t.x + i * step, t.y + i * step);
}

template <class T>
using ComputePixels = void (*)(const PixelTile<T>&);
template <class T, int row_count, int pixels>
constexpr ComputePixels<T> compute_pixels_entry() {
    if constexpr (row_count * pixels <= most_sums)
        return compute_pixels<T, row_count, pixels>;
    else
        return nullptr;
}
template <class T, int rows>
struct ComputePixelsOf {
    static constexpr ComputePixels<T> of[most_pixels] = {
        compute_pixels_entry<T, rows, 1>(), compute_pixels_entry<T, rows, 2>(),
        compute_pixels_entry<T, rows, 3>(), compute_pixels_entry<T, rows, 4>(),
        compute_pixels_entry<T, rows, 5>(), compute_pixels_entry<T, rows, 6>()};
};
template <class T>
void compute_pixels(const PixelTile<T>& t, int64_t row_count, int64_t pixels) {
    static constexpr const ComputePixels<T>* of[most_rows] = {
        ComputePixelsOf<T, 1>::of, ComputePixelsOf<T, 2>::of, ComputePixelsOf<T, 3>::of,
        ComputePixelsOf<T, 4>::of, ComputePixelsOf<T, 5>::of, ComputePixelsOf<T, 6>::of};
    of[row_count - 1][pixels - 1](t);
}
// The width of tiles of `row_count` rows in a row of `width` pixels.
constexpr int64_t pixels_beside(int64_t row_count, int64_t width, int64_t most) {
    return equal_block(width, smaller(most, most_sums / row_count), 1);
}

// packed[first * depth + tap * count + r] = w[first + r][tap], for parts of the filters of a group.
template <class T>
void pack_filters(const InterleavedPlan<T>& plan, const T* w, T* packed) {
    for (int64_t task = 0; task < plan.cuts.tasks; ++task)
        plan.for_filters(plan.filters(task), [&](int64_t, const Part& part) {
            for (int64_t p = 0; p < plan.depth; ++p)
                for (int64_t r = 0; r < part.count; ++r)
                    packed[part.begin * plan.depth + p * part.count + r] =
                        w[(part.begin + r) * plan.depth + p];
        });
}

// The rows of y (O, OH, OW, lane) = activation(bias + the correlation of x (C, height, width, lane)), of one
// block and some filters.
template <class T>
void correlate_interleaved(const InterleavedPlan<T>& plan, const T* x, const T* packed,
                           const Epilogue<T>& epilogue, const Part& filters, const Part& rows, T* y) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t x_row = plan.width * lanes;
    plan.for_filters(filters, [&](int64_t g, const Part& part) {
        Tap taps[most_taps];
        for (int64_t t = 0; t < plan.taps; ++t)
            taps[t] = {t / s.kernel_w * x_row + t % s.kernel_w * lanes, t * part.count};
        const int64_t first = part.begin, wide = pixels_beside(part.count, s.out_w, most_pixels);
        const auto compute = [&](int64_t oh, int64_t ow, int64_t pixels, int64_t tiles) {
            compute_pixels<T>({.x = x + g * s.group_channels * plan.x_plane + oh * x_row + ow * lanes,
                               .w = packed + first * plan.depth,
                               .taps = taps,
                               .count = plan.taps,
                               .outer = s.group_channels,
                               .x_outer = plan.x_plane,
                               .w_outer = plan.taps * part.count,
                               .bias = epilogue.bias ? epilogue.bias + first : nullptr,
                               .y = y + first * plan.y_plane + (oh * s.out_w + ow) * lanes,
                               .y_stride = plan.y_plane,
                               .tiles = tiles},
                              part.count, pixels);
        };
        const int64_t tiles = s.out_w / wide, rest = s.out_w % wide;
        for (int64_t oh = rows.begin; oh < rows.begin + rows.count; ++oh) {
            compute(oh, 0, wide, tiles);
            if (rest) compute(oh, tiles * wide, rest, 1);
        }
        for (int64_t o = first; o < first + part.count; ++o)
            apply_activation<T>(epilogue.activation, epilogue.parameter,
                                y + o * plan.y_plane + rows.begin * s.out_w * lanes,
                                rows.count * s.out_w * lanes);
    });
}

// packed[first * filters of the group * taps + (o, i, j) * count + r] = w[o][first + r][i][j], for parts of
// the channels of a group.
template <class T>
void pack_channels(const InterleavedPlan<T>& plan, const T* w, T* packed) {
    const Conv2dShape& s = plan.s;
    const int64_t parts = divide_up(s.group_channels, most_rows), rows = s.group_filters * plan.taps;
    for (int64_t g = 0; g < s.groups; ++g)
        for (int64_t b = 0; b < parts; ++b) {
            const Part part(s.group_channels, parts, b);
            T* to = packed + (g * s.group_channels + part.begin) * rows;
            for (int64_t o = 0; o < s.group_filters; ++o)
                for (int64_t t = 0; t < plan.taps; ++t)
                    for (int64_t r = 0; r < part.count; ++r)
                        *to++ =
                            w[((g * s.group_filters + o) * s.group_channels + part.begin + r) * plan.taps +
                              t];
        }
}

// Some rows of dx (C, rows, W, lane) of one block from dy (O, OH, margin + OW + margin, lane):
//   dx[c][h][w] = sum over o, i, j of w[o][c][i][j] * dy[o][h + pad_top - i][w + pad_left - j].
// Taps beyond the top and bottom of dy are left out; beyond its sides, those beyond for the whole tile.
template <class T>
void correlate_back_interleaved(const InterleavedPlan<T>& plan, const T* dy, const T* packed,
                                const Part& dx_rows, T* dx) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t parts = divide_up(s.group_channels, most_rows), rows = s.group_filters * plan.taps;
    const int64_t plane = dx_rows.count * s.width * lanes;
    Tap taps[most_taps];
    for (int64_t index = 0; index < s.groups * parts; ++index) {
        const int64_t g = index / parts;
        const Part part(s.group_channels, parts, index % parts);
        const int64_t first = g * s.group_channels + part.begin;
        const int64_t wide = pixels_beside(part.count, s.width, margin + 1);
        for (int64_t h = dx_rows.begin; h < dx_rows.begin + dx_rows.count; ++h) {
            const int64_t top = h + s.pad_top, i_begin = larger(0, top - (s.out_h - 1));
            const int64_t i_end = smaller(s.kernel_h, top + 1);
            for (int64_t w = 0; w < s.width; w += wide) {
                const int64_t left = w + s.pad_left, pixels = smaller(wide, s.width - w);
                const int64_t j_begin = larger(0, left - (s.out_w - 1));
                const int64_t j_end = smaller(s.kernel_w, left + pixels);
                int64_t count = 0;
                for (int64_t i = i_begin; i < i_end; ++i)
                    for (int64_t j = j_begin; j < j_end; ++j)
                        taps[count++] = {-i * plan.dy_row - j * lanes, (i * s.kernel_w + j) * part.count};
                compute_pixels<T>({.x = dy + g * s.group_filters * plan.dy_plane + top * plan.dy_row +
                                        (margin + left) * lanes,
                                   .w = packed + first * rows,
                                   .taps = taps,
                                   .count = count,
                                   .outer = s.group_filters,
                                   .x_outer = plan.dy_plane,
                                   .w_outer = plan.taps * part.count,
                                   .bias = nullptr,
                                   .y = dx + first * plane + ((h - dx_rows.begin) * s.width + w) * lanes,
                                   .y_stride = plane,
                                   .tiles = 1},
                                  part.count, pixels);
            }
        }
    }
}

}  // namespace
}  // namespace tinygrad_nm
