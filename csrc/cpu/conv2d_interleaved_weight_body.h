// The weight gradient of convolutions of small planes on interleaved images: see conv2d_interleaved_body.h.
//
// Sums over the pixels of vectors, lane by lane; the lanes are added once, after the last block of a task.
#pragma once
#include "cpu/conv2d_interleaved_body.h"

namespace tinygrad_nm {
namespace {

// sums[r * sums_stride + t] += sum over the pixels of dy[r * dy_plane + pixel] * x[tap[t] + pixel].
template <class T>
struct TapTile {
    const T *x, *dy;
    const int64_t* taps;
    int64_t height, width, x_row, dy_row, dy_plane;
    T* sums;  // vectors
    int64_t sums_stride;
};

template <class T, int row_count, int tap_count>
void add_taps(const TapTile<T>& t) {
    constexpr int64_t lanes = Vec<T>::lanes;
    Vec<T> acc[row_count][tap_count] = {};
    for (int64_t y = 0; y < t.height; ++y) {
        const T* const x_row = t.x + y * t.x_row;
        const T* const dy_row = t.dy + y * t.dy_row;
        const T* tap[tap_count];
#pragma GCC unroll 5
        for (int k = 0; k < tap_count; ++k) tap[k] = x_row + t.taps[k];
        for (int64_t p = 0; p < t.width * lanes; p += lanes) {
            Vec<T> gradient[row_count];
#pragma GCC unroll 2
            for (int r = 0; r < row_count; ++r) gradient[r] = Vec<T>::load(dy_row + r * t.dy_plane + p);
#pragma GCC unroll 5
            for (int k = 0; k < tap_count; ++k) {
                const Vec<T> pixel = in_register(Vec<T>::load(tap[k] + p));
#pragma GCC unroll 2
                for (int r = 0; r < row_count; ++r) acc[r][k] = fma(gradient[r], pixel, acc[r][k]);
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < row_count; ++r)
#pragma GCC unroll 5
        for (int k = 0; k < tap_count; ++k) {
            T* const sum = t.sums + (r * t.sums_stride + k) * lanes;
            (Vec<T>::load(sum) + acc[r][k]).store(sum);
        }
}

// sums (O, C/groups * KH * KW, lane) += the weight gradient of one block, lane by lane.
template <class T>
void add_weight_gradient(const InterleavedPlan<T>& plan, const T* x, const T* dy, T* sums) {
    constexpr int64_t lanes = Vec<T>::lanes, tile_taps = 5;
    using Add = void (*)(const TapTile<T>&);
    static constexpr Add of[2][tile_taps] = {
        {add_taps<T, 1, 1>, add_taps<T, 1, 2>, add_taps<T, 1, 3>, add_taps<T, 1, 4>, add_taps<T, 1, 5>},
        {add_taps<T, 2, 1>, add_taps<T, 2, 2>, add_taps<T, 2, 3>, add_taps<T, 2, 4>, add_taps<T, 2, 5>}};
    const Conv2dShape& s = plan.s;
    Scratch memory(plan.depth, sizeof(int64_t));
    int64_t* const offsets = static_cast<int64_t*>(memory.data);
    tap_offsets(0, plan.depth, s.kernel_h, s.kernel_w, {plan.x_plane, plan.width * lanes, lanes}, offsets);
    for (int64_t g = 0; g < s.groups; ++g)
        for (int64_t o = 0; o < s.group_filters; o += 2)
            for (int64_t tap = 0; tap < plan.depth; tap += tile_taps) {
                const int64_t first = g * s.group_filters + o, rows = smaller(2, s.group_filters - o);
                of[rows - 1][smaller(tile_taps, plan.depth - tap) - 1](
                    {.x = x + g * s.group_channels * plan.x_plane,
                     .dy = dy + first * plan.dy_plane + margin * lanes,
                     .taps = offsets + tap,
                     .height = s.out_h,
                     .width = s.out_w,
                     .x_row = plan.width * lanes,
                     .dy_row = plan.dy_row,
                     .dy_plane = plan.dy_plane,
                     .sums = sums + (first * plan.depth + tap) * lanes,
                     .sums_stride = plan.depth});
            }
}

// out[i] = the sum over the partials, in order: partial[p * size + i].
template <class T>
void add_partials(T* out, const T* partial, int64_t partials, int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
        T total = partial[i];
        for (int64_t p = 1; p < partials; ++p) total += partial[p * size + i];
        out[i] = total;
    }
}

// out (O, C/groups, KH, KW) from x (N, C, H, W), dy (N, O, OH, OW): the sum in conv2d.h. The blocks are dealt
// to a number of partial sums that depends on the shape alone.
template <class T>
void conv2d_backward_weight_interleaved(const Conv2dBackwardWeight<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t size = s.filters * plan.depth, partials = smaller(plan.blocks, weight_partials);
    Scratch memory(partials * size, sizeof(T));
    T* const partial = static_cast<T*>(memory.data);
    parallel_for(partials, plan.work() * double(plan.blocks) / double(partials), [&](int64_t index) {
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)),
            dy_memory(s.filters * plan.dy_plane, sizeof(T));
        Scratch sums_memory(size * lanes, sizeof(T));
        T *const x = static_cast<T*>(x_memory.data), *const dy = static_cast<T*>(dy_memory.data);
        T* const sums = static_cast<T*>(sums_memory.data);
        memset(sums, 0, size_t(size * lanes) * sizeof(T));
        const Part part(plan.blocks, partials, index);
        for (int64_t block = part.begin; block < part.begin + part.count; ++block) {
            interleave_input(plan, a.x, block, x);
            interleave_gradient(plan, a.dy, block, dy);
            add_weight_gradient(plan, x, dy, sums);
        }
        for (int64_t i = 0; i < size; ++i) partial[index * size + i] = sum(Vec<T>::load(sums + i * lanes));
    });
    add_partials(a.out, partial, partials, size);
}

}  // namespace
}  // namespace tinygrad_nm
