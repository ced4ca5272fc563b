// Winograd's F(2x2, 5x5) on interleaved images: 36 products in place of 100 for a tile of 2x2 outputs.
//
// A vector is one pixel of as many images as it has lanes, as in conv2d_interleaved_body.h, so the transforms
// (winograd_transforms_body.h) have no idle lane and the few channels of a small network are enough for them
// to pay. Tiles overlap: what they share along the columns is formed once. Here are the outputs, in
// conv2d_interleaved_winograd_gradient_body.h the gradients.
#pragma once
#include "cpu/conv2d_interleaved_weight_body.h"
#include "cpu/winograd_transforms_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t tile_side = 2, tile_halo = winograd_size - tile_side;  // outputs, and inputs beyond them

// The outputs' sums run over the channels for half a column of points at a time, 0, 1, -1 or 2, -2, infinity,
// of some filters and tiles: then a third of the sums is enough to store, those of two rows of outputs.
constexpr int half_points = winograd_size / 2;
constexpr int half_sums = most_sums / half_points;  // filters times tiles
constexpr int tiles_beside = half_sums >= 4 ? 2 : 1, filters_beside = half_sums / tiles_beside;

// Tiles may reach neither beyond the outputs, nor x beyond what they read.
template <class T>
bool tiles_possible(const InterleavedPlan<T>& plan) {
    const Conv2dShape &s = plan.s, &image = plan.image;
    return s.kernel_h == 5 && s.kernel_w == 5 && s.out_h % tile_side == 0 && s.out_w % tile_side == 0 &&
           image.pad_top + image.height <= image.out_h + image.kernel_h - 1 &&
           image.pad_left + image.width <= plan.width;
}

// Where they pay is decided by what a tile's steps were measured to cost with AVX-512, in cycles (of its four
// outputs: 105 for each channel and filter by the plain sums), and by a tenth, for what was not.
constexpr double plain_cost = 105, least_tile_gain = 1.1;
inline bool tiles_pay(bool possible, Winograd winograd, double plain, double by_tiles) {
    if (winograd != Winograd::where_it_pays) return possible && winograd == Winograd::always;
    return possible && plain >= least_tile_gain * by_tiles;
}
template <class T>
bool outputs_by_tiles(const InterleavedPlan<T>& plan, Winograd winograd) {
    const double c = double(plan.s.group_channels), tasks = double(plan.cuts.tasks);
    const double o = double(plan.s.group_filters) / tasks;
    return tiles_pay(tiles_possible(plan), winograd, plain_cost * c * o, 160 * c + 42 * c * o + 40 * o);
}

// Where number (i, j) of transformed tile t of channel c lies: at point[i] + j * column + c * channel, and
// tiles in groups of `beside`, which lie `group` apart.
struct TilePlaces {
    int64_t point[winograd_size], column, channel, group;
};

// Some rows of tiles of a block, and the sizes of their transformed numbers.
template <class T>
struct TileRows {
    int64_t first, rows, across;

    int64_t plane() const { return rows * across * Vec<T>::lanes; }
    int64_t point(int64_t planes) const { return point_stride<T>(planes * plane()); }
    // (point, plane, tile, lane), points in the order of rows.
    TilePlaces places(int64_t planes) const {
        const int64_t row = winograd_size * point(planes);
        return {{0, row, 2 * row, 3 * row, 4 * row, 5 * row}, point(planes), plane(), Vec<T>::lanes};
    }
};

// to[q * point + n] = number q of G filter G', down the columns first, for the filters at from[n].
template <class T>
void transform_filters(const T* const* from, int64_t count, int64_t point, T* to) {
    constexpr int64_t lanes = Vec<T>::lanes, side = 7 - tile_side;
    T taps[side * side * lanes];
    for (int64_t n = 0; n < count; n += lanes) {
        const int used = int(smaller(lanes, count - n));
        const T* some[lanes] = {};
        for (int k = 0; k < used; ++k) some[k] = from[n + k];
        interleave(taps, some, side * side);
        transform_square<T, Evaluate<Vec<T>, side, true>>(
            taps, lanes, side * lanes, [=](int j, int i, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA {
                store_up_to(v, to + n + (j * winograd_size + i) * point, used);
            });
    }
}
inline int64_t transformed_filters(const Conv2dShape& s) {
    return winograd_points * s.filters * s.group_channels;
}
// For the outputs: (part of the filters, column and row of points, channel, filter of the part).
template <class T>
void transform_for_outputs(const InterleavedPlan<T>& plan, const T* w, T* to) {
    const int64_t channels = plan.s.group_channels;
    Scratch memory(filters_beside * channels, sizeof(T*));
    const T** const from = static_cast<const T**>(memory.data);
    for (int64_t task = 0; task < plan.cuts.tasks; ++task)
        plan.for_filters(
            plan.filters(task),
            [&](int64_t, const Part& part) {
                for (int64_t n = 0; n < channels * part.count; ++n)
                    from[n] = w + ((part.begin + n % part.count) * channels + n / part.count) * plan.taps;
                const int64_t point = channels * part.count;
                transform_filters(from, point, point, to + part.begin * winograd_points * channels);
            },
            filters_beside);
}

// to = B' x B of the tiles, for all channels of x (C, height, width, lane).
template <class T, int beside>
void transform_inputs(const InterleavedPlan<T>& plan, const T* x, const TileRows<T>& tiles,
                      const TilePlaces& places, T* to) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t line = plan.width * lanes, column = places.column;
    Scratch memory(winograd_size * line, sizeof(T));
    T* const columns = static_cast<T*>(memory.data);
    for (int64_t c = 0; c < plan.s.channels; ++c)
        for (int64_t row = 0; row < tiles.rows; ++row) {
            const T* const from = x + c * plan.x_plane + (tiles.first + row) * tile_side * line;
            for (int64_t p = 0; p < line; p += lanes) {
                Vec<T> d[winograd_size], v[winograd_size];
#pragma GCC unroll 6
                for (int i = 0; i < winograd_size; ++i) d[i] = Vec<T>::load(from + i * line + p);
                FilterInputs<Vec<T>>::along(d, v);
#pragma GCC unroll 6
                for (int i = 0; i < winograd_size; ++i) v[i].store(columns + i * line + p);
            }
            for (int i = 0; i < winograd_size; ++i) {
                const T* const across = columns + i * line;
                T* const first = to + places.point[i] + c * places.channel;
                Vec<T> d[winograd_size], v[winograd_size];
#pragma GCC unroll 4
                for (int j = 0; j < tile_halo; ++j) d[j] = Vec<T>::load(across + j * lanes);
                for (int64_t t = 0; t < tiles.across; ++t) {
                    const int64_t index = row * tiles.across + t;
                    T* const tile = first + index / beside * places.group + index % beside * lanes;
#pragma GCC unroll 2
                    for (int j = tile_halo; j < winograd_size; ++j)
                        d[j] = Vec<T>::load(across + (t * tile_side + j) * lanes);
                    FilterInputs<Vec<T>>::along(d, v);
#pragma GCC unroll 6
                    for (int j = 0; j < winograd_size; ++j) v[j].store(tile + j * column);
#pragma GCC unroll 4
                    for (int j = 0; j < tile_halo; ++j) d[j] = d[j + tile_side];
                }
            }
        }
}

// From `inputs` (channel, point, tiles_beside, lane) and `filters` (point, channel, filter_count):
// rows[(h * filter_count + r) * tiles_beside + t] for h < 2, lane by lane.
template <class T, int filter_count, bool second>
void multiply_half(const T* inputs, const T* filters, int64_t channels, T* rows) {
    constexpr int64_t lanes = Vec<T>::lanes;
    Vec<T> acc[half_points][filter_count][tiles_beside] = {};
    for (int64_t c = 0; c < channels; ++c, filters += filter_count)
#pragma GCC unroll 3
        for (int q = 0; q < half_points; ++q, inputs += tiles_beside * lanes) {
            Vec<T> tile[tiles_beside];
#pragma GCC unroll 2
            for (int t = 0; t < tiles_beside; ++t) tile[t] = Vec<T>::load(inputs + t * lanes);
#pragma GCC unroll 4
            for (int r = 0; r < filter_count; ++r) {
                const Vec<T> weight = Vec<T>::broadcast(filters[q * channels * filter_count + r]);
#pragma GCC unroll 2
                for (int t = 0; t < tiles_beside; ++t) acc[q][r][t] = fma(weight, tile[t], acc[q][r][t]);
            }
        }
#pragma GCC unroll 4
    for (int r = 0; r < filter_count; ++r)
#pragma GCC unroll 2
        for (int t = 0; t < tiles_beside; ++t) {
            T* const top = rows + (r * tiles_beside + t) * lanes;
            T* const bottom = top + filter_count * tiles_beside * lanes;
            const Vec<T> a = acc[0][r][t], b = acc[1][r][t], c = acc[2][r][t];
            if constexpr (!second) {
                (a + (b + c)).store(top);
                (b - c).store(bottom);
            } else {
                (Vec<T>::load(top) + (a + b)).store(top);
                (Vec<T>::load(bottom) + fma(Vec<T>::broadcast(2), a - b, c)).store(bottom);
            }
        }
}

// The outputs of some filters, whose transforms lie one after the other in `filters`, and of tiles side by
// side: store(filter, tile, row, column, vector).
template <class T, int filter_count, class Store>
TINYGRAD_NM_INLINE void correlate_tiles_beside(const T* inputs, int64_t inputs_half, const T* filters,
                                               int64_t channels, const Store& store) {
    constexpr int64_t lanes = Vec<T>::lanes, sums = filter_count * tiles_beside;
    alignas(64) T columns[winograd_size][tile_side * sums * lanes];
    const int64_t filters_half = channels * half_points * filter_count;
    for (int j = 0; j < winograd_size; ++j, inputs += 2 * inputs_half, filters += 2 * filters_half) {
        multiply_half<T, filter_count, false>(inputs, filters, channels, columns[j]);
        multiply_half<T, filter_count, true>(inputs + inputs_half, filters + filters_half, channels,
                                             columns[j]);
    }
    for (int h = 0; h < tile_side; ++h)
        for (int r = 0; r < filter_count; ++r)
            for (int t = 0; t < tiles_beside; ++t) {
                Vec<T> v[winograd_size], y[tile_side];
#pragma GCC unroll 6
                for (int j = 0; j < winograd_size; ++j)
                    v[j] = Vec<T>::load(columns[j] + ((h * filter_count + r) * tiles_beside + t) * lanes);
                Interpolate<Vec<T>, int(tile_side), false>::along(v, y);
#pragma GCC unroll 2
                for (int w = 0; w < tile_side; ++w) store(r, t, h, w, y[w]);
            }
}

// Transformed inputs of rows of tiles in groups side by side: (group, column of points, half, channel, point,
// tile, lane). Whatever lies in the place of a tile that the last group lacks, its results are not stored.
template <class T>
struct TileGroups {
    static constexpr int64_t point = tiles_beside * Vec<T>::lanes, channel = half_points * point;
    TileRows<T> tiles;
    int64_t count, groups, half;
    TilePlaces places;

    TileGroups(const TileRows<T>& tiles, int64_t channels)
        : tiles(tiles),
          count(tiles.rows * tiles.across),
          groups(divide_up(count, tiles_beside)),
          half(channels * channel),
          places({{0, point, 2 * point, half, half + point, half + 2 * point},
                  2 * half,
                  channel,
                  winograd_size * 2 * half}) {}
};

// The outputs of all tiles and some filters: those of filter r from y + r * plan.y_plane on.
template <class T, int filter_count>
void correlate_groups(const InterleavedPlan<T>& plan, const TileGroups<T>& of, const T* inputs,
                      const T* filters, const T* bias, T* y) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t line = plan.s.out_w * lanes, across = of.tiles.across;
    for (int64_t group = 0; group < of.groups; ++group) {
        T* at[tiles_beside];
        for (int64_t t = 0; t < tiles_beside; ++t) {
            const int64_t tile = group * tiles_beside + t, row = tile / across;
            at[t] = tile < of.count ? y + (row * line + tile % across * lanes) * tile_side : nullptr;
        }
        correlate_tiles_beside<T, filter_count>(
            inputs + group * of.places.group, of.half, filters, plan.s.group_channels,
            [&](int r, int t, int h, int w, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA {
                if (!at[t]) return;
                if (bias) v = v + Vec<T>::broadcast(bias[r]);
                v.store(at[t] + r * plan.y_plane + h * line + w * lanes);
            });
    }
}

// As correlate_interleaved, with filters from transform_for_outputs, for whole tiles of rows.
template <class T>
void correlate_winograd_interleaved(const InterleavedPlan<T>& plan, const T* x, const T* transformed,
                                    const Epilogue<T>& epilogue, const Part& filters, const Part& rows,
                                    T* y) {
    static constexpr decltype(&correlate_groups<T, 1>) of[4] = {
        correlate_groups<T, 1>, correlate_groups<T, smaller(2, filters_beside)>,
        correlate_groups<T, smaller(3, filters_beside)>, correlate_groups<T, filters_beside>};
    static_assert(1 <= filters_beside && filters_beside <= 4);
    const Conv2dShape& s = plan.s;
    const TileGroups<T> groups({rows.begin / tile_side, rows.count / tile_side, s.out_w / tile_side},
                               s.channels);
    Scratch memory(groups.groups * groups.places.group, sizeof(T));
    T* const inputs = static_cast<T*>(memory.data);
    transform_inputs<T, tiles_beside>(plan, x, groups.tiles, groups.places, inputs);
    const int64_t line = s.out_w * plan.lanes;
    const auto compute = [&](int64_t g, const Part& part) {
        of[part.count - 1](plan, groups, inputs + g * s.group_channels * groups.channel,
                           transformed + part.begin * winograd_points * s.group_channels,
                           epilogue.bias ? epilogue.bias + part.begin : nullptr,
                           y + part.begin * plan.y_plane + rows.begin * line);
    };
    plan.for_filters(filters, compute, filters_beside);
    for (int64_t o = filters.begin; o < filters.begin + filters.count; ++o)
        apply_activation<T>(epilogue.activation, epilogue.parameter, y + o * plan.y_plane + rows.begin * line,
                            rows.count * line);
}

}  // namespace
}  // namespace tinygrad_nm
