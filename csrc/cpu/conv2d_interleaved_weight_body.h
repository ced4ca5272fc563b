// The weight gradient of convolutions of small planes on interleaved images: see conv2d_interleaved_body.h.
//
// Sums over the pixels of vectors, lane by lane; the lanes are added once, after the last block of a task.
#pragma once
#include "cpu/conv2d_interleaved_body.h"

namespace tinygrad_nm {
namespace {

constexpr int tile_taps = 5, most_filters = most_sums / tile_taps;    // of a register tile
constexpr int most_tile_taps = smaller(6, most_sums / most_filters);  // where five are not all of a row
constexpr int64_t first_cache_rows = 20 << 10;                        // bytes of the gradient, see below

// sums[r * sums_stride + t] = (`first`: 0, else itself) + sum over the pixels of dy[r * dy_plane + pixel] *
// x[tap[t] + pixel].
template <class T>
struct TapTile {
    const T *x, *dy;
    const int64_t* taps;
    int64_t height, width, x_row, dy_row, dy_plane;
    T* sums;  // vectors
    int64_t sums_stride;
    bool first;
};

template <class T, int row_count, int tap_count>
void add_taps(const TapTile<T>& t) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t width = t.width * lanes, dy_plane = t.dy_plane;
    Vec<T> acc[row_count][tap_count] = {};
    for (int64_t y = 0; y < t.height; ++y) {
        const T* const x_row = t.x + y * t.x_row;
        const T* const dy_row = t.dy + y * t.dy_row;
        const T* tap[tap_count];
#pragma GCC unroll 6
        for (int k = 0; k < tap_count; ++k) tap[k] = x_row + t.taps[k];
        for (int64_t p = 0; p < width; p += lanes) {
            Vec<T> gradient[row_count];
#pragma GCC unroll 4
            for (int r = 0; r < row_count; ++r) gradient[r] = Vec<T>::load(dy_row + r * dy_plane + p);
#pragma GCC unroll 6
            for (int k = 0; k < tap_count; ++k) {
                const Vec<T> pixel = in_register(Vec<T>::load(tap[k] + p));
#pragma GCC unroll 4
                for (int r = 0; r < row_count; ++r) acc[r][k] = fma(gradient[r], pixel, acc[r][k]);
            }
        }
    }
    T* const sums = t.sums;
    const int64_t stride = t.sums_stride;
    if (!t.first)
#pragma GCC unroll 4
        for (int r = 0; r < row_count; ++r)
#pragma GCC unroll 6
            for (int k = 0; k < tap_count; ++k)
                acc[r][k] = Vec<T>::load(sums + (r * stride + k) * lanes) + acc[r][k];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; ++r)
#pragma GCC unroll 6
        for (int k = 0; k < tap_count; ++k) acc[r][k].store(sums + (r * stride + k) * lanes);
}

template <class T, int rows>
struct AddTapsOf {
    static constexpr void (*of[6])(const TapTile<T>&) = {
        add_taps<T, rows, 1>, add_taps<T, rows, 2>, add_taps<T, rows, 3>,
        add_taps<T, rows, 4>, add_taps<T, rows, 5>, add_taps<T, rows, most_tile_taps>};
};

template <class T>
void add_taps(const TapTile<T>& tile, int64_t row_count, int64_t tap_count) {
    using Add = void (*)(const TapTile<T>&);
    static constexpr const Add* of[4] = {AddTapsOf<T, 1>::of, AddTapsOf<T, smaller(2, most_filters)>::of,
                                         AddTapsOf<T, smaller(3, most_filters)>::of,
                                         AddTapsOf<T, most_filters>::of};
    static_assert(1 <= most_filters && most_filters <= 4);
    of[row_count - 1][tap_count - 1](tile);
}

// Interleaved rows of dy (O, rows, margin + OW + margin, lane), of which the first is row `first` of y.
template <class T>
struct GradientRows {
    T* data;
    int64_t plane, first, count;
};

// sums (filters, C/groups * KH * KW, lane) = (`start`: 0, else itself) + the weight gradient of some rows of
// one block, lane by lane. As many rows at a time as leave the gradient in the first-level cache for all the
// taps.
template <class T>
void add_weight_gradient(const InterleavedPlan<T>& plan, const T* x, const GradientRows<T>& dy,
                         const Part& filters, bool start, T* sums) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = plan.s;
    const int64_t group_filters = smaller(filters.count, s.group_filters), x_row = plan.width * lanes;
    const int64_t parts = divide_up(group_filters, most_filters), groups = filters.count / group_filters;
    Scratch memory(plan.depth, sizeof(int64_t));
    int64_t* const offsets = static_cast<int64_t*>(memory.data);
    tap_offsets(0, plan.depth, s.kernel_h, s.kernel_w, {plan.x_plane, x_row, lanes}, offsets);
    const int64_t most_rows_at_once = first_cache_rows / (most_filters * plan.dy_row * int64_t(sizeof(T)));
    const int64_t cuts = divide_up(dy.count, larger(1, most_rows_at_once));
    for (int64_t index = 0; index < groups * parts * cuts; ++index) {
        const int64_t g = index / cuts / parts;
        const Part part(group_filters, parts, index / cuts % parts), rows(dy.count, cuts, index % cuts);
        const int64_t first = g * group_filters + part.begin;
        for (int64_t tap = 0; tap < plan.depth; tap += tile_taps)
            add_taps<T>({.x = x + g * s.group_channels * plan.x_plane + (dy.first + rows.begin) * x_row,
                         .dy = dy.data + (filters.begin + first) * dy.plane + rows.begin * plan.dy_row +
                               margin * lanes,
                         .taps = offsets + tap,
                         .height = rows.count,
                         .width = s.out_w,
                         .x_row = x_row,
                         .dy_row = plan.dy_row,
                         .dy_plane = dy.plane,
                         .sums = sums + (first * plan.depth + tap) * lanes,
                         .sums_stride = plan.depth,
                         .first = start && rows.begin == 0},
                        part.count, smaller(tile_taps, plan.depth - tap));
    }
}

// out[i] = the sum of the lanes of sums (size, lane), as sum() in isa/vector.h adds them.
template <class T>
void add_lanes(T* out, const T* sums, int64_t size) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t i = 0; i < size; i += lanes, out += lanes, sums += lanes * lanes) {
        const int n = int(smaller(lanes, size - i));
        Vec<T> row[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) row[r] = r < n ? Vec<T>::load(sums + r * lanes) : Vec<T>::zero();
        transpose<T>(row);
#pragma GCC unroll 4
        for (int width = lanes / 2; width > 0; width /= 2)
#pragma GCC unroll 8
            for (int r = 0; r < width; ++r) row[r] = row[r] + row[r + width];
        store_up_to(row[0], out, n);
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

}  // namespace
}  // namespace tinygrad_nm
