// The gradients of a convolution by Winograd's tiles on interleaved images:
// conv2d_interleaved_winograd_body.h.
//
// With the tiles A dy A' both are formed, G'[(A dy A') * (B' x B)]G and B[(G w G') * (A dy A')]B'.
// Transformed numbers are stored as (point, channel or filter, tile, lane), for some rows of tiles at a time,
// which stay in the second-level cache.
#pragma once
#include "cpu/conv2d_interleaved_winograd_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t tile_rows_bytes = (12 << 10) * TINYGRAD_NM_VECTOR_BYTES;  // of transformed numbers

// As outputs_by_tiles. The sums of dw are transformed back once, which a few tiles do not repay.
template <class T>
bool gradients_by_tiles(const InterleavedPlan<T>& plan, Winograd winograd, bool dw, bool dx) {
    const Conv2dShape& s = plan.s;
    const double c = double(s.group_channels), o = double(s.group_filters), tasks = double(plan.cuts.tasks);
    const double blocks = double(plan.blocks) / double(smaller(plan.blocks, weight_partials));
    const double tiles = blocks * double(s.out_h / tile_side * (s.out_w / tile_side));
    const double of_dw = dw ? 160 * c + (50 + 180 / tiles) * c * o / tasks : 0;
    const double of_dx = dx ? (40 * o + 150) * c / tasks : 0, of_dy = 110 * o / (dx ? 1 : tasks);
    return tiles_pay(tiles_possible(plan) && (dw || dx), winograd, (dw + dx) * plain_cost * c * o / tasks,
                     of_dy + of_dw + of_dx);
}

// As many rows of tiles at a time as the cache holds beside the sums of a weight gradient.
template <class T>
int64_t tile_rows_at_once(const Conv2dShape& s) {
    const int64_t row = winograd_points * (s.channels + s.filters) * (s.out_w / tile_side);
    const int64_t sums = winograd_points * s.filters * s.group_channels;
    const int64_t most = (tile_rows_bytes / TINYGRAD_NM_VECTOR_BYTES - sums) / row;
    return equal_block(s.out_h / tile_side, larger(1, most), 1);
}

// For the gradient in x: (column and row of points, filter, channel of its group).
template <class T>
void transform_for_inputs(const InterleavedPlan<T>& plan, const T* w, T* to) {
    const int64_t count = plan.s.filters * plan.s.group_channels;
    Scratch memory(count, sizeof(T*));
    const T** const from = static_cast<const T**>(memory.data);
    for (int64_t n = 0; n < count; ++n) from[n] = w + n * plan.taps;
    transform_filters(from, count, count, to);
}

// dx (C, height, width, lane) += B m B' of the tiles, for some channels, of which m holds `planes`. Rows that
// no tile above reaches are written, so that dx need not be zero before the first row of tiles.
template <class T>
void spread_inputs(const InterleavedPlan<T>& plan, const Part& channels, const T* m, const TileRows<T>& tiles,
                   T* dx) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t line = plan.width * lanes, point = tiles.point(plan.s.channels);
    Scratch memory(winograd_size * line, sizeof(T));
    T* const columns = static_cast<T*>(memory.data);
    for (int64_t c = channels.begin; c < channels.begin + channels.count; ++c)
        for (int64_t row = 0; row < tiles.rows; ++row) {
            for (int i = 0; i < winograd_size; ++i) {
                T* const across = columns + i * line;
                const T* tile =
                    m + i * winograd_size * point + c * tiles.plane() + row * tiles.across * lanes;
                Vec<T> v[winograd_size], d[winograd_size], before[tile_halo];
#pragma GCC unroll 4
                for (int j = 0; j < tile_halo; ++j) before[j] = Vec<T>::zero();
                for (int64_t t = 0; t < tiles.across; ++t, tile += lanes) {
#pragma GCC unroll 6
                    for (int j = 0; j < winograd_size; ++j) v[j] = Vec<T>::load(tile + j * point);
                    SpreadInputs<Vec<T>>::along(v, d);
#pragma GCC unroll 4
                    for (int j = 0; j < tile_halo; ++j) d[j] = before[j] + d[j];
#pragma GCC unroll 2
                    for (int j = 0; j < tile_side; ++j) d[j].store(across + (t * tile_side + j) * lanes);
#pragma GCC unroll 4
                    for (int j = 0; j < tile_halo; ++j) before[j] = d[j + tile_side];
                }
#pragma GCC unroll 4
                for (int j = 0; j < tile_halo; ++j)
                    before[j].store(across + (tiles.across * tile_side + j) * lanes);
            }
            const bool reached = tiles.first + row > 0;
            T* const to = dx + c * plan.x_plane + (tiles.first + row) * tile_side * line;
            for (int64_t p = 0; p < line; p += lanes) {
                Vec<T> v[winograd_size], d[winograd_size];
#pragma GCC unroll 6
                for (int i = 0; i < winograd_size; ++i) v[i] = Vec<T>::load(columns + i * line + p);
                SpreadInputs<Vec<T>>::along(v, d);
                if (reached)
#pragma GCC unroll 4
                    for (int i = 0; i < tile_halo; ++i) d[i] = Vec<T>::load(to + i * line + p) + d[i];
#pragma GCC unroll 6
                for (int i = 0; i < winograd_size; ++i) d[i].store(to + i * line + p);
            }
        }
}

// to = A dy A' of the tiles of some filters of dy (O, OH, margin + OW + margin, lane).
template <class T>
void transform_gradient(const InterleavedPlan<T>& plan, const T* dy, const Part& filters,
                        const TileRows<T>& tiles, T* to) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t point = tiles.point(plan.s.filters);
    for (int64_t o = filters.begin; o < filters.begin + filters.count; ++o)
        for (int64_t row = 0; row < tiles.rows; ++row) {
            const T* const from =
                dy + o * plan.dy_plane + (tiles.first + row) * tile_side * plan.dy_row + margin * lanes;
            T* const first = to + o * tiles.plane() + row * tiles.across * lanes;
            for (int64_t t = 0; t < tiles.across; ++t)
                transform_square<T, Evaluate<Vec<T>, int(tile_side), false>>(
                    from + t * tile_side * lanes, plan.dy_row, lanes,
                    [=](int i, int j, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA {
                        v.store(first + (i * winograd_size + j) * point + t * lanes);
                    });
        }
}

// At one point: y[r][tile] = sum over k < outer of w[k * w_outer + r] * x[k][tile], a plane of tiles for
// each row r and each k.
template <class T>
void multiply_tiles(const TileRows<T>& tiles, const T* x, int64_t outer, const T* w, int64_t w_outer,
                    int64_t row_count, T* y) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t plane = tiles.plane(), count = tiles.rows * tiles.across;
    const int64_t wide = pixels_beside(row_count, count, most_pixels);
    const Tap here = {0, 0};
    PixelTile<T> tile = {.x = x,
                         .w = w,
                         .taps = &here,
                         .count = 1,
                         .outer = outer,
                         .x_outer = plane,
                         .w_outer = w_outer,
                         .bias = nullptr,
                         .y = y,
                         .y_stride = plane,
                         .tiles = count / wide};
    compute_pixels(tile, row_count, wide);
    const int64_t done = tile.tiles * wide * lanes;
    tile.x += done, tile.y += done, tile.tiles = 1;
    if (count % wide) compute_pixels(tile, row_count, count % wide);
}

// What a gradient by tiles is made of: either result may be left out, by a part without members.
template <class T>
struct TileGradients {
    Part filters, channels;  // of dw, of dx
    const T* transformed;    // filters from transform_for_inputs, for dx
    T* sums;                 // transformed sums of dw, see transformed_sums; `start`: they begin here
    bool start;
    T* dx;  // (C, height, width, lane), padded as x
};

// Numbers of the transformed sums of dw: (point, filters, C/groups, lane).
template <class T>
int64_t sums_point(const Conv2dShape& s, const Part& filters) {
    return point_stride<T>(filters.count * s.group_channels * Vec<T>::lanes);
}

template <class T>
void add_weight_tiles(const InterleavedPlan<T>& plan, const T* inputs, const T* gradient,
                      const TileRows<T>& tiles, const TileGradients<T>& to, bool first) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = plan.s;
    const int64_t plane = tiles.plane(), group_filters = smaller(to.filters.count, s.group_filters);
    const int64_t groups = to.filters.count / group_filters, point = sums_point<T>(s, to.filters);
    const int64_t filter_parts = divide_up(group_filters, most_filters);
    const int64_t channel_parts = divide_up(s.group_channels, most_tile_taps);
    int64_t taps[most_tile_taps];
    for (int k = 0; k < most_tile_taps; ++k) taps[k] = k * plane;
    for (int64_t q = 0; q < winograd_points; ++q)
        for (int64_t index = 0; index < groups * filter_parts * channel_parts; ++index) {
            const int64_t g = index / channel_parts / filter_parts;
            const Part own(group_filters, filter_parts, index / channel_parts % filter_parts);
            const Part channels(s.group_channels, channel_parts, index % channel_parts);
            const int64_t o = g * group_filters + own.begin;
            add_taps(TapTile<T>{.x = inputs + q * tiles.point(s.channels) +
                                     (g * s.group_channels + channels.begin) * plane,
                                .dy = gradient + q * tiles.point(s.filters) + (to.filters.begin + o) * plane,
                                .taps = taps,
                                .height = 1,
                                .width = tiles.rows * tiles.across,
                                .x_row = 0,
                                .dy_row = 0,
                                .dy_plane = plane,
                                .sums = to.sums + q * point + (o * s.group_channels + channels.begin) * lanes,
                                .sums_stride = s.group_channels,
                                .first = first},
                     own.count, channels.count);
        }
}

// The gradients of one block from all rows of dy (O, OH, margin + OW + margin, lane) and x, which is not read
// without dw.
template <class T>
void add_tile_gradients(const InterleavedPlan<T>& plan, const T* x, const T* dy, const TileGradients<T>& to) {
    const Conv2dShape& s = plan.s;
    TileRows<T> tiles = {0, tile_rows_at_once<T>(s), s.out_w / tile_side};
    const int64_t x_size = winograd_points * tiles.point(s.channels);
    Scratch memory(x_size + winograd_points * tiles.point(s.filters), sizeof(T));
    T *const inputs = static_cast<T*>(memory.data), *const gradient = inputs + x_size;
    const Part filters = to.channels.count ? plan.filters() : to.filters;
    for (; tiles.first < s.out_h / tile_side; tiles.first += tiles.rows) {
        tiles.rows = smaller(tiles.rows, s.out_h / tile_side - tiles.first);
        const int64_t x_point = tiles.point(s.channels), dy_point = tiles.point(s.filters);
        transform_gradient(plan, dy, filters, tiles, gradient);
        if (to.filters.count) {
            transform_inputs<T, 1>(plan, x, tiles, tiles.places(s.channels), inputs);
            add_weight_tiles(plan, inputs, gradient, tiles, to, to.start && tiles.first == 0);
        }
        if (!to.channels.count) continue;
        // The tiles of dx take the place of those of x.
        const int64_t groups = s.groups, own = to.channels.count / groups;
        const int64_t parts = divide_up(own, most_rows);
        for (int64_t q = 0; q < winograd_points; ++q)
            for (int64_t index = 0; index < groups * parts; ++index) {
                const int64_t g = index / parts, first = g * s.group_filters;
                const Part part(own, parts, index % parts);
                const int64_t c = to.channels.begin + part.begin;  // of the group
                multiply_tiles(
                    tiles, gradient + q * dy_point + first * tiles.plane(), s.group_filters,
                    to.transformed +
                        ((q % winograd_size * winograd_size + q / winograd_size) * s.filters + first) *
                            s.group_channels +
                        c,
                    s.group_channels, part.count,
                    inputs + q * x_point + (g * s.group_channels + c) * tiles.plane());
            }
        spread_inputs(plan, to.channels, inputs, tiles, to.dx);
    }
}

// sums (filters, C/groups * KH * KW, lane) from the transformed ones.
template <class T>
void finish_weight_tiles(const InterleavedPlan<T>& plan, const Part& filters, const T* transformed, T* sums) {
    constexpr int64_t lanes = Vec<T>::lanes, side = 7 - tile_side;
    const int64_t point = sums_point<T>(plan.s, filters);
    for (int64_t i = 0; i < filters.count * plan.s.group_channels; ++i) {
        T* const to = sums + i * plan.taps * lanes;
        transform_square<T, Interpolate<Vec<T>, int(side), true>>(
            transformed + i * lanes, winograd_size * point, point,
            [=](int h, int w, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA { v.store(to + (h * side + w) * lanes); });
    }
}

}  // namespace
}  // namespace tinygrad_nm
