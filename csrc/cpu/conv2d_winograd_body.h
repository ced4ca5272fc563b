// Convolution by Winograd's F(4x4, 3x3) and F(2x2, 5x5), stride 1, dilation 1: 36 products instead of the
// 144 and 100 that a tile of outputs takes.
//
// Tiles of 6x6 inputs, R = 7 - K apart, and the filters are transformed (winograd_transforms_body.h); then
// each of the 36 points is a matrix product (tiles x channels) (channels x filters), whose result is
// transformed back into R x R outputs. A block of tiles is taken through all of this while it stays in the
// caches, so scratch memory does not depend on the batch. In every transform a vector is one pixel of
// adjacent channels: blocks of planes are interleaved, which also writes the zeros around them.
#pragma once
#include "cpu/arena.h"
#include "cpu/interleaved_body.h"
#include "cpu/parallel.h"
#include "cpu/patches_body.h"
#include "cpu/tile_body.h"
#include "cpu/winograd_transforms_body.h"
#include "shared/conv2d.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t winograd_tiles = 64;          // in a block at most
constexpr int64_t winograd_filters = 64;        // whose sums are kept for a block of tiles
constexpr int64_t winograd_depth_bytes = 2048;  // of a row of transformed inputs in one product

// Where it pays, by measurement: gain is how many times fewer products there are, borders included. Few
// channels, whose transforms cost as much as the products, need a larger one.
constexpr double winograd_least_tiles = 16, winograd_least_gain = 1.5,
                 winograd_least_channels = 40;  // times gain

constexpr int64_t round_up(int64_t n, int64_t unit) {
    return divide_up(n, unit) * unit;
}

// Planes (N, channels, height, width) cut into tiles: tile (y, x) begins at row y * step - top, column
// x * step - left; outside of the plane there are zeros.
template <class T>
struct TiledPlanes {
    const T* data;
    int64_t channels, height, width, step, top, left;
};

// Numbers of an interleaved part of a plane, tiles of `size` side by side.
inline int64_t window_size(const BlockPlan& plan, int64_t step, int64_t size) {
    return ((plan.rows - 1) * step + size) * ((plan.columns - 1) * step + size);
}

// Asks for a line at each of the 36 points, for the tile after the one in hand: they lie too far apart for
// the processor to foresee.
template <class T>
TINYGRAD_NM_INLINE void prefetch_points(const T* first, int64_t stride) {
#pragma GCC unroll 6
    for (int q = 0; q < winograd_points; ++q) __builtin_prefetch(first + q * stride);
}

// to[t * tile_stride + q * point_stride + lane] = number q of tile t of the block, transformed, for the
// channels [channel, channel + used) in the lanes. window: scratch memory, window_size vectors.
template <class T, class Transform>
void transform_tiles(const TiledPlanes<T>& source, const PositionBlock& block, int64_t channel, int used,
                     T* window, T* to, int64_t tile_stride, int64_t point_stride) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t height = (block.rows - 1) * source.step + Transform::in;
    const int64_t width = (block.columns - 1) * source.step + Transform::in;
    const int64_t top = block.row * source.step - source.top, left = block.column * source.step - source.left;
    const int64_t first_row = larger(0, -top), end_row = smaller(height, source.height - top);
    const int64_t first = larger(0, -left), end = smaller(width, source.width - left);
    const int64_t plane = source.height * source.width;
    memset(window, 0, size_t(height * width * lanes) * sizeof(T));  // the zeros stay for all images
    for (int64_t n = 0; n < block.images; ++n) {
        const T* const from = source.data + ((block.image + n) * source.channels + channel) * plane;
        for (int64_t y = first_row; y < end_row; ++y)
            if (first < end)
                interleave(window + (y * width + first) * lanes,
                           from + (top + y) * source.width + left + first, plane, used, end - first);
        for (int64_t y = 0; y < block.rows; ++y)
            for (int64_t x = 0; x < block.columns; ++x, to += tile_stride) {
                prefetch_points(to + tile_stride, point_stride);
                transform_square<T, Transform>(
                    window + (y * width + x) * source.step * lanes, width * lanes, lanes,
                    [to, point_stride](int i, int j, Vec<T> v)
                        TINYGRAD_NM_INLINE_LAMBDA { v.store(to + (i * winograd_size + j) * point_stride); });
            }
    }
}

// out[n, g, m, y, x] = epilogue(sum over c, i, j of weight(g, m, c, i, j) * source[n, g, c, y - top + i,
// x - left + j]), where weight(g, m, c, i, j) = weight[g * weight_group + m * weight_m + c * weight_channel +
// tap], tap = i * K + j, or backwards if flipped.
template <class T>
struct WinogradCorrelation {
    const char* operation;
    int64_t batch, groups, m, channels;  // m and channels of a group
    TiledPlanes<T> source;
    const T* weight;
    int64_t weight_group, weight_m, weight_channel;
    bool flipped;
    T* out;  // (N, groups * m, out_h, out_w)
    int64_t out_h, out_w;
    Epilogue<T> epilogue;  // bias (groups * m)
};

// The transformed filters: number (c, lane) of panel j of point q of group g lies at
// data + ((g * panels + j) * 36 + q) * point + c * tile_columns + lane.
template <class T, int kernel>
struct TransformedFilters {
    static constexpr int64_t width = tile_columns<T>;
    int64_t panels, point;
    T* data;

    explicit TransformedFilters(const WinogradCorrelation<T>& c)
        : panels(divide_up(c.m, width)), point(point_stride<T>(c.channels * width)) {}
    int64_t size(const WinogradCorrelation<T>& c) const {
        return checked_product(c.operation, {c.groups, panels, winograd_points, point});
    }
    const T* panel(int64_t group, int64_t j, int64_t q) const {
        return data + ((group * panels + j) * winograd_points + q) * point;
    }

    void fill(const WinogradCorrelation<T>& c, T* memory) {
        constexpr int64_t lanes = Vec<T>::lanes, taps = kernel * kernel;
        constexpr double work = 200;
        data = memory;
        parallel_for(c.groups * panels, work * double(c.channels * width), [&](int64_t task) {
            const int64_t group = task / panels, begin = task % panels * width;
            T* const panel = memory + task * winograd_points * point;
            T filter[taps * lanes];
            const int64_t direction = c.flipped ? -lanes : lanes;
            const T* const first = filter + (c.flipped ? taps - 1 : 0) * lanes;
            for (int64_t channel = 0; channel < c.channels; ++channel)
                for (int64_t m = begin; m < begin + width; m += lanes) {
                    const int used = int(smaller(lanes, larger(0, c.m - m)));
                    interleave(filter,
                               c.weight + group * c.weight_group + smaller(m, c.m - 1) * c.weight_m +
                                   channel * c.weight_channel,
                               c.weight_m, used, taps);
                    T* const to = panel + channel * width + m - begin;
                    transform_square<T, Evaluate<Vec<T>, kernel, true>>(
                        first, kernel * direction, direction,
                        [to, this](int i, int j, Vec<T> v)
                            TINYGRAD_NM_INLINE_LAMBDA { v.store(to + (i * winograd_size + j) * point); });
                }
        });
    }
};

// A product of panels, where the tile of registers may be smaller than GEMM's: few tiles and few filters are
// what is left over in every block, and there are 36 products in it.
template <class T>
struct PointProduct {
    int64_t depth;
    const T* a;  // element (r, k) is a[r * a_row + k * a_step]
    int64_t a_row, a_step;
    const T* b;  // element (k, c) is b[k * tile_columns + c]
    T* out;      // element (r, c) is out[r * out_row + c]
    int64_t out_row;
    bool first;  // out = the product, else out +=
};

template <class T, int rows, int vectors>
void multiply_point(const PointProduct<T>& p, int64_t used) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const T* row[rows];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) row[r] = p.a + smaller(r, used - 1) * p.a_row;
    Vec<T> acc[rows][vectors] = {};
    const T* b = p.b;
    for (int64_t k = 0, at = 0; k < p.depth; ++k, at += p.a_step, b += tile_columns<T>) {
        Vec<T> column[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) column[v] = Vec<T>::load(b + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec<T> x = Vec<T>::broadcast(row[r][at]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) acc[r][v] = fma(x, column[v], acc[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
        if (r >= used) continue;
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
            T* const to = p.out + r * p.out_row + v * lanes;
            (p.first ? acc[r][v] : acc[r][v] + Vec<T>::load(to)).store(to);
        }
    }
}

// The smallest tile for what is left: rows in steps of a third.
template <class T, int vectors, int rows = tile_rows>
void multiply_rest(const PointProduct<T>& p, int64_t used) {
    constexpr int unit = tile_rows / 3;
    if constexpr (rows > unit)
        if (used <= rows - unit) return multiply_rest<T, vectors, rows - unit>(p, used);
    multiply_point<T, rows, vectors>(p, used);
}

// Any number of rows times a panel of which `columns` are used.
template <class T>
void multiply_panel(PointProduct<T> p, int64_t rows, int64_t columns) {
    for (; rows > 0; rows -= tile_rows, p.a += tile_rows * p.a_row, p.out += tile_rows * p.out_row)
        columns > Vec<T>::lanes ? multiply_rest<T, tile_vectors>(p, smaller(rows, tile_rows))
                                : multiply_rest<T, 1>(p, smaller(rows, tile_rows));
}

// Writes the outputs of one vector of filters [m, m + used) of a group for a block of tiles.
template <class T, int kernel>
void write_outputs(const WinogradCorrelation<T>& c, const PositionBlock& block, int64_t group, int64_t m,
                   int used, const T* sums, T* window) {
    constexpr int64_t lanes = Vec<T>::lanes, step = 7 - kernel, width = tile_columns<T>;
    const int64_t top = block.row * step, left = block.column * step;
    const int64_t rows = smaller(block.rows * step, c.out_h - top);
    const int64_t columns = smaller(block.columns * step, c.out_w - left);
    const int64_t plane = c.out_h * c.out_w, channel = group * c.m + m;
    const Vec<T> bias = c.epilogue.bias ? load_up_to(c.epilogue.bias + channel, used) : Vec<T>::zero();
    for (int64_t n = 0; n < block.images; ++n) {
        for (int64_t y = 0; y < block.rows; ++y)
            for (int64_t x = 0; x < block.columns; ++x, sums += winograd_points * width) {
                prefetch_points(sums + winograd_points * width, width);
                const int64_t rows_left = rows - y * step, columns_left = columns - x * step;
                T* const to = window + (y * columns + x) * step * lanes;
                transform_square<T, Interpolate<Vec<T>, step, false>>(
                    sums, winograd_size * width, width,
                    [=](int i, int j, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA {
                        if (i < rows_left && j < columns_left)
                            (v + bias).store(to + (i * columns + j) * lanes);
                    });
            }
        apply_activation<T>(c.epilogue.activation, c.epilogue.parameter, window, rows * columns * lanes);
        T* const out = c.out + ((block.image + n) * c.groups * c.m + channel) * plane + top * c.out_w + left;
        if (columns == c.out_w)
            deinterleave(out, plane, used, window, rows * columns);
        else
            for (int64_t y = 0; y < rows; ++y)
                deinterleave(out + y * c.out_w, plane, used, window + y * columns * lanes, columns);
    }
}

// One task: panels of filters [begin, end) of a group over a block of tiles.
template <class T, int kernel>
void correlate_tiles(const WinogradCorrelation<T>& c, const TransformedFilters<T, kernel>& filters,
                     const BlockPlan& plan, const PositionBlock& block, int64_t group, int64_t begin,
                     int64_t end) {
    constexpr int64_t lanes = Vec<T>::lanes, width = tile_columns<T>, panels = winograd_filters / width;
    const int64_t count = block.positions(), channels = round_up(c.channels, lanes);
    const int64_t point = point_stride<T>(count * channels), panel_sums = count * winograd_points * width;
    const int64_t depth = equal_block(c.channels, winograd_depth_bytes / sizeof(T), 1);
    Scratch tiles_memory(winograd_points * point, sizeof(T));
    Scratch sums_memory(smaller(panels, end - begin) * panel_sums, sizeof(T));
    Scratch window_memory(window_size(plan, c.source.step, winograd_size) * lanes, sizeof(T));
    T *const tiles = static_cast<T*>(tiles_memory.data), *const sums = static_cast<T*>(sums_memory.data);
    T* const window = static_cast<T*>(window_memory.data);

    for (int64_t channel = 0; channel < c.channels; channel += lanes)
        transform_tiles<T, FilterInputs<Vec<T>>>(c.source, block, group * c.channels + channel,
                                                 int(smaller(lanes, c.channels - channel)), window,
                                                 tiles + channel, channels, point);
    for (int64_t first = begin; first < end; first += panels) {
        const int64_t last = smaller(first + panels, end);
        for (int q = 0; q < winograd_points; ++q)
            for (int64_t p0 = 0; p0 < c.channels; p0 += depth)
                for (int64_t j = first; j < last; ++j)
                    multiply_panel<T>(
                        {smaller(depth, c.channels - p0), tiles + q * point + p0, channels, 1,
                         filters.panel(group, j, q) + p0 * width, sums + (j - first) * panel_sums + q * width,
                         winograd_points * width, p0 == 0},
                        count, c.m - j * width);
        for (int64_t m = first * width; m < smaller(last * width, c.m); m += lanes)
            write_outputs<T, kernel>(c, block, group, m, int(smaller(lanes, c.m - m)),
                                     sums + (m / width - first) * panel_sums + m % width, window);
    }
}

template <class T, int kernel>
void correlate_winograd(const WinogradCorrelation<T>& c) {
    constexpr int64_t step = 7 - kernel, width = tile_columns<T>;
    if (c.batch == 0) return;
    TransformedFilters<T, kernel> filters(c);
    const Scratch memory(filters.size(c), sizeof(T));
    filters.fill(c, static_cast<T*>(memory.data));

    const BlockPlan plan(c.batch, divide_up(c.out_h, step), divide_up(c.out_w, step), winograd_tiles);
    // Few blocks: the filters are cut too, although each part transforms its tiles again.
    const int64_t blocks = c.groups * plan.count(), wanted = divide_up(enough_tasks / 2, blocks);
    const int64_t part = equal_block(filters.panels, divide_up(filters.panels, wanted), 1);
    const int64_t parts = divide_up(filters.panels, part);
    const double work = 2.0 * winograd_points * double(plan.images * plan.rows * plan.columns) *
                        double(c.channels) * double(part * width);
    parallel_for(blocks * parts, work, [&](int64_t task) {
        const int64_t begin = task % parts * part, group = task / parts % c.groups;
        correlate_tiles(c, filters, plan, plan[task / parts / c.groups], group, begin,
                        smaller(begin + part, filters.panels));
    });
}

// Whether a convolution is computed so: by its shape alone. Tiles that reach beyond the outputs, and few
// channels or tiles for the transforms of each filter, eat up what the fewer products gain.
template <class T>
bool winograd_runs(const Conv2dShape& s, Winograd winograd) {
    const bool possible = s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
                          s.kernel_h == s.kernel_w && (s.kernel_h == 3 || s.kernel_h == 5);
    if (!possible || winograd != Winograd::where_it_pays) return possible && winograd == Winograd::always;
    const int64_t step = 7 - s.kernel_h;
    const double tiles =
        double(s.batch) * double(divide_up(s.out_h, step)) * double(divide_up(s.out_w, step));
    const double products = double(s.batch) * double(s.out_h * s.out_w * s.kernel_h * s.kernel_w);
    const double gain = products / (winograd_points * tiles);
    return tiles >= winograd_least_tiles && gain >= winograd_least_gain &&
           gain * double(smaller(s.group_channels, s.group_filters)) >= winograd_least_channels;
}

// out (N, O, OH, OW) = activation(bias + x (N, C, H, W) convolved with w (O, C/groups, K, K)).
template <class T>
void conv2d_forward_winograd(const Conv2dForward<T>& a) {
    const Conv2dShape& s = a.shape;
    const int64_t taps = s.kernel_h * s.kernel_w, filter = s.group_channels * taps;
    const WinogradCorrelation<T> c = {
        "conv2d",
        s.batch,
        s.groups,
        s.group_filters,
        s.group_channels,
        {a.x, s.channels, s.height, s.width, 7 - s.kernel_h, s.pad_top, s.pad_left},
        a.w,
        s.group_filters * filter,
        filter,
        taps,
        false,
        a.out,
        s.out_h,
        s.out_w,
        {a.bias, BiasAxis::rows, a.activation, a.parameter}};
    s.kernel_h == 3 ? correlate_winograd<T, 3>(c) : correlate_winograd<T, 5>(c);
}

// out (N, C, H, W) from dy (N, O, OH, OW) and w (O, C/groups, K, K): the correlation of dy with the flipped
// filters, roles of filters and channels exchanged.
template <class T>
void conv2d_backward_input_winograd(const Conv2dBackwardInput<T>& a) {
    const Conv2dShape& s = a.shape;
    const int64_t taps = s.kernel_h * s.kernel_w, filter = s.group_channels * taps;
    const WinogradCorrelation<T> c = {"conv2d_backward_input",
                                      s.batch,
                                      s.groups,
                                      s.group_channels,
                                      s.group_filters,
                                      {a.dy, s.filters, s.out_h, s.out_w, 7 - s.kernel_h,
                                       s.kernel_h - 1 - s.pad_top, s.kernel_w - 1 - s.pad_left},
                                      a.w,
                                      s.group_filters * filter,
                                      taps,
                                      filter,
                                      true,
                                      a.out,
                                      s.height,
                                      s.width,
                                      {}};
    s.kernel_h == 3 ? correlate_winograd<T, 3>(c) : correlate_winograd<T, 5>(c);
}

}  // namespace
}  // namespace tinygrad_nm
