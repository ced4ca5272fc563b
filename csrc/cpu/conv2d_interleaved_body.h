// Convolutions of small planes on interleaved images (interleaved_body.h): stride 1, dilation 1.
//
// A vector is one pixel of as many images as it has lanes, so the three passes are sums of products of a
// vector with a weight (forward and backward-input) or with a vector (backward-weight), whatever the widths
// and channels. A block of images is interleaved, worked on while it stays in the second-level cache, and
// written back. Blocks are the tasks. Backward-weight: conv2d_interleaved_weight_body.h.
#pragma once
#include "cpu/activation_body.h"
#include "cpu/arena.h"
#include "cpu/conv2d.h"
#include "cpu/interleaved_body.h"
#include "cpu/parallel.h"
#include "cpu/patches_body.h"

namespace tinygrad_nm {
namespace {

constexpr int most_rows = 6, most_pixels = 3;  // of a register tile: outputs (or inputs) times pixels
constexpr int64_t most_taps = 64;              // KH * KW
constexpr int64_t margin = most_pixels - 1;    // zero pixels at both ends of a row of dy
constexpr int64_t interleaved_bytes =
    (12 << 10) * TINYGRAD_NM_VECTOR_BYTES;            // of a block: what stays in the second-level cache
constexpr int64_t interleaved_weight_sums = 8 << 10;  // vectors of partial sums of the weight gradient
constexpr int64_t weight_partials = 16;               // tasks that sum a weight gradient

// The blocks of interleaved images of one convolution. x is padded, with just what the outputs read.
template <class T>
struct InterleavedPlan {
    static constexpr int64_t lanes = Vec<T>::lanes;
    Conv2dShape s;
    int64_t blocks, taps, depth;  // of the batch; KH * KW; C/groups * KH * KW
    int64_t height, width;        // of the padded x
    int64_t x_plane, y_plane;     // numbers in an interleaved channel of x, of y
    int64_t dy_row, dy_plane;     // numbers in a row and a channel of dy with its margins

    explicit InterleavedPlan(const Conv2dShape& s)
        : s(s),
          blocks(divide_up(s.batch, lanes)),
          taps(s.kernel_h * s.kernel_w),
          depth(s.group_channels * taps),
          height(s.out_h + s.kernel_h - 1),
          width(s.out_w + s.kernel_w - 1),
          x_plane(height * width * lanes),
          y_plane(s.out_h * s.out_w * lanes),
          dy_row((s.out_w + 2 * margin) * lanes),
          dy_plane(s.out_h * dy_row) {}

    int used(int64_t block) const { return int(smaller(lanes, s.batch - block * lanes)); }
    // Decided by the shape alone. A few images leave lanes idle; one output pixel is a product of matrices.
    bool pays() const {
        const int64_t bytes = (s.channels * x_plane + s.filters * dy_plane) * int64_t(sizeof(T));
        return s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
               4 * s.batch >= 3 * lanes && s.out_h * s.out_w > 1 && taps <= most_taps &&
               bytes <= interleaved_bytes && s.filters * depth <= interleaved_weight_sums;
    }
    double work() const {  // of a block, operations of one pass
        return 2.0 * double(y_plane) * double(s.filters * depth);
    }
};

template <class T>
bool interleaving_pays(const Conv2dShape& s) {
    // Cheap tests first: the plan multiplies sizes that must be small.
    return s.height * s.width < 1 << 16 && s.channels * s.filters < 1 << 16 && InterleavedPlan<T>(s).pays();
}

// Part `index` of `parts` nearly equal ones of [0, size).
struct Part {
    int64_t begin, count;
    Part(int64_t size, int64_t parts, int64_t index)
        : begin(size * index / parts), count(size * (index + 1) / parts - begin) {}
};

// ---- forward and backward-input: sum over outer, i, j of weight[r] * pixels ----

// Where a tap (i, j) lies: in the pixels of one channel, and in its weights.
struct Tap {
    int64_t x, w;
};

// y[r * y_stride + q * lanes] = bias[r] + sum over c < outer and the taps of
//     w[c * w_outer + tap.w + r] * x[c * x_outer + tap.x + q * lanes],  a tile of rows r and pixels q.
template <class T>
struct PixelTile {
    const T *x, *w;
    const Tap* taps;
    int64_t count, outer, x_outer, w_outer;
    const T* bias;  // null: none
    T* y;
    int64_t y_stride;
};

template <class T, int row_count, int pixels>
void compute_pixels(const PixelTile<T>& t) {
    constexpr int64_t lanes = Vec<T>::lanes;
    Vec<T> acc[row_count][pixels] = {};
    const T *x = t.x, *w = t.w;
    for (int64_t c = 0; c < t.outer; ++c, x += t.x_outer, w += t.w_outer)
        for (const Tap *tap = t.taps, *end = tap + t.count; tap < end; ++tap) {
            const T* const weights = w + tap->w;
            Vec<T> pixel[pixels];
#pragma GCC unroll 3
            for (int q = 0; q < pixels; ++q) pixel[q] = Vec<T>::load(x + tap->x + q * lanes);
#pragma GCC unroll 6
            for (int r = 0; r < row_count; ++r) {
                const Vec<T> weight = Vec<T>::broadcast(weights[r]);
#pragma GCC unroll 3
                for (int q = 0; q < pixels; ++q) acc[r][q] = fma(weight, pixel[q], acc[r][q]);
            }
        }
#pragma GCC unroll 6
    for (int r = 0; r < row_count; ++r) {
        const Vec<T> bias = t.bias ? Vec<T>::broadcast(t.bias[r]) : Vec<T>::zero();
#pragma GCC unroll 3
        for (int q = 0; q < pixels; ++q)
            (t.bias ? acc[r][q] + bias : acc[r][q]).store(t.y + r * t.y_stride + q * lanes);
    }
}

// At most twelve sums: more would leave the registers.
template <class T>
void compute_pixels(const PixelTile<T>& t, int64_t row_count, int64_t pixels) {
    using Compute = void (*)(const PixelTile<T>&);
    static constexpr Compute of[most_rows][most_pixels] = {
        {compute_pixels<T, 1, 1>, compute_pixels<T, 1, 2>, compute_pixels<T, 1, 3>},
        {compute_pixels<T, 2, 1>, compute_pixels<T, 2, 2>, compute_pixels<T, 2, 3>},
        {compute_pixels<T, 3, 1>, compute_pixels<T, 3, 2>, compute_pixels<T, 3, 3>},
        {compute_pixels<T, 4, 1>, compute_pixels<T, 4, 2>, compute_pixels<T, 4, 3>},
        {compute_pixels<T, 5, 1>, compute_pixels<T, 5, 2>, nullptr},
        {compute_pixels<T, 6, 1>, compute_pixels<T, 6, 2>, nullptr}};
    of[row_count - 1][pixels - 1](t);
}
constexpr int64_t pixels_beside(int64_t row_count) {
    return row_count <= 4 ? 3 : 2;
}

// x (N, C, H, W) of a block to (C, height, width, lane) with its zeros.
template <class T>
void interleave_input(const InterleavedPlan<T>& plan, const T* x, int64_t block, T* to) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t plane = s.height * s.width, image = s.channels * plane;
    const T* from = x + block * lanes * image;
    const bool padded = s.pad_top || s.pad_left || plan.height != s.height || plan.width != s.width;
    if (!padded) return interleave(to, from, image, plan.used(block), image);
    memset(to, 0, size_t(s.channels * plan.x_plane) * sizeof(T));
    const int64_t right = smaller(s.width, plan.width - s.pad_left);
    for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t h = 0; h < smaller(s.height, plan.height - s.pad_top); ++h)
            interleave(to + c * plan.x_plane + ((h + s.pad_top) * plan.width + s.pad_left) * lanes,
                       from + c * plane + h * s.width, image, plan.used(block), right);
}

// dy (N, O, OH, OW) of a block to (O, OH, margin + OW + margin, lane).
template <class T>
void interleave_gradient(const InterleavedPlan<T>& plan, const T* dy, int64_t block, T* to) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t image = s.filters * s.out_h * s.out_w;
    for (int64_t row = 0; row < s.filters * s.out_h; ++row) {
        T* out = to + row * plan.dy_row;
        memset(out, 0, margin * lanes * sizeof(T));
        interleave(out + margin * lanes, dy + block * lanes * image + row * s.out_w, image, plan.used(block),
                   s.out_w);
        memset(out + (margin + s.out_w) * lanes, 0, margin * lanes * sizeof(T));
    }
}

// packed[first * depth + tap * count + r] = w[first + r][tap], for parts of the filters of a group.
template <class T>
void pack_filters(const InterleavedPlan<T>& plan, const T* w, T* packed) {
    const Conv2dShape& s = plan.s;
    const int64_t parts = divide_up(s.group_filters, most_rows);
    for (int64_t g = 0; g < s.groups; ++g)
        for (int64_t b = 0; b < parts; ++b) {
            const Part part(s.group_filters, parts, b);
            const int64_t first = g * s.group_filters + part.begin;
            for (int64_t p = 0; p < plan.depth; ++p)
                for (int64_t r = 0; r < part.count; ++r)
                    packed[first * plan.depth + p * part.count + r] = w[(first + r) * plan.depth + p];
        }
}

// y (O, OH, OW, lane) = activation(bias + the correlation of x (C, height, width, lane)), of one block.
template <class T>
void correlate_interleaved(const InterleavedPlan<T>& plan, const T* x, const T* packed,
                           const Epilogue<T>& epilogue, T* y) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t parts = divide_up(s.group_filters, most_rows), x_row = plan.width * lanes;
    Tap taps[most_taps];
    for (int64_t index = 0; index < s.groups * parts; ++index) {
        const int64_t g = index / parts;
        const Part part(s.group_filters, parts, index % parts);
        const int64_t first = g * s.group_filters + part.begin, wide = pixels_beside(part.count);
        for (int64_t t = 0; t < plan.taps; ++t)
            taps[t] = {t / s.kernel_w * x_row + t % s.kernel_w * lanes, t * part.count};
        for (int64_t oh = 0; oh < s.out_h; ++oh)
            for (int64_t ow = 0; ow < s.out_w; ow += wide)
                compute_pixels<T>({.x = x + g * s.group_channels * plan.x_plane + oh * x_row + ow * lanes,
                                   .w = packed + first * plan.depth,
                                   .taps = taps,
                                   .count = plan.taps,
                                   .outer = s.group_channels,
                                   .x_outer = plan.x_plane,
                                   .w_outer = plan.taps * part.count,
                                   .bias = epilogue.bias ? epilogue.bias + first : nullptr,
                                   .y = y + first * plan.y_plane + (oh * s.out_w + ow) * lanes,
                                   .y_stride = plan.y_plane},
                                  part.count, smaller(wide, s.out_w - ow));
        for (int64_t o = first; o < first + part.count; ++o)
            apply_activation<T>(epilogue.activation, epilogue.parameter, y + o * plan.y_plane, plan.y_plane);
    }
}

// out (N, O, OH, OW) = activation(bias + correlation of x (N, C, H, W) with w (O, C/groups, KH, KW)).
template <class T>
void conv2d_forward_interleaved(const Conv2dForward<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    constexpr int64_t lanes = Vec<T>::lanes;
    Scratch weights(s.filters * plan.depth, sizeof(T));
    T* const packed = static_cast<T*>(weights.data);
    pack_filters(plan, a.w, packed);
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)), y_memory(s.filters * plan.y_plane, sizeof(T));
        T *const x = static_cast<T*>(x_memory.data), *const y = static_cast<T*>(y_memory.data);
        interleave_input(plan, a.x, block, x);
        correlate_interleaved(plan, x, packed, {a.bias, BiasAxis::rows, a.activation, a.parameter}, y);
        const int64_t image = s.filters * s.out_h * s.out_w;
        deinterleave(a.out + block * lanes * image, image, plan.used(block), y, image);
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

// dx (C, H, W, lane) of one block from dy (O, OH, margin + OW + margin, lane):
//   dx[c][h][w] = sum over o, i, j of w[o][c][i][j] * dy[o][h + pad_top - i][w + pad_left - j].
// Taps beyond the top and bottom of dy are left out; beyond its sides, those beyond for the whole tile.
template <class T>
void correlate_back_interleaved(const InterleavedPlan<T>& plan, const T* dy, const T* packed, T* dx) {
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t parts = divide_up(s.group_channels, most_rows), rows = s.group_filters * plan.taps;
    const int64_t plane = s.height * s.width * lanes;
    Tap taps[most_taps];
    for (int64_t index = 0; index < s.groups * parts; ++index) {
        const int64_t g = index / parts;
        const Part part(s.group_channels, parts, index % parts);
        const int64_t first = g * s.group_channels + part.begin, wide = pixels_beside(part.count);
        for (int64_t h = 0; h < s.height; ++h) {
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
                                   .y = dx + first * plane + (h * s.width + w) * lanes,
                                   .y_stride = plane},
                                  part.count, pixels);
            }
        }
    }
}

// out (N, C, H, W) from dy (N, O, OH, OW), w (O, C/groups, KH, KW): the sum in conv2d.h.
template <class T>
void conv2d_backward_input_interleaved(const Conv2dBackwardInput<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t image = s.channels * s.height * s.width;
    Scratch weights(s.filters * plan.depth, sizeof(T));
    T* const packed = static_cast<T*>(weights.data);
    pack_channels(plan, a.w, packed);
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        Scratch dy_memory(s.filters * plan.dy_plane, sizeof(T)), dx_memory(image * lanes, sizeof(T));
        T *const dy = static_cast<T*>(dy_memory.data), *const dx = static_cast<T*>(dx_memory.data);
        interleave_gradient(plan, a.dy, block, dy);
        correlate_back_interleaved(plan, dy, packed, dx);
        deinterleave(a.out + block * lanes * image, image, plan.used(block), dx, image);
    });
}

}  // namespace
}  // namespace tinygrad_nm
