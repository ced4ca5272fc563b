// Convolutions as matrix products whose second operand is gathered from the images (implicit GEMM).
//
// Forward and backward-input are both a correlation, at stride 1 in the latter: an input position p = ih +
// pad_top is reached by the taps i with i*dilation = p mod stride, whose outputs are then adjacent. So each
// residue class of (p mod stride_h, q mod stride_w) is a dense problem of its own, with its own few taps.
// Where that would multiply many zeros from outside of dy, backward-input scatters instead
// (conv2d_scatter_body.h).
#pragma once
#include "cpu/conv2d_interleaved_passes_body.h"
#include "cpu/conv2d_phases_body.h"
#include "cpu/conv2d_scatter_body.h"
#include "cpu/conv2d_winograd_body.h"
#include "cpu/conv2d_winograd_weight_body.h"
#include "cpu/gemm_body.h"
#include "cpu/patches_body.h"
#include "shared/conv2d.h"

namespace tinygrad_nm {
namespace {

// out[n, g, m, y, x] = epilogue(sum over c, i, j of weight[g, m, c, i, j] * source[n, g, c, y + i, x + j])
// where y + i and x + j stand for the axes' positions. Rows of the product are m, its columns are (n, y, x).
template <class T>
struct Correlation {
    const char* operation;
    int64_t batch, groups, m, channels;  // m and channels of a group
    Images<T> source;                    // groups * channels channels
    const T* weight;
    int64_t weight_group, weight_m;
    Strides weight_taps;
    T* out;  // groups * m channels
    int64_t out_m;
    Strides out_positions;
    Epilogue<T> epilogue;  // bias (groups * m)

    int64_t depth() const { return channels * source.y.taps * source.x.taps; }
};

// Size of the blocks of the depth, at least 1: whole channels where they are small enough.
template <class T>
int64_t depth_block(int64_t channels, int64_t taps) {
    if (taps > block_depth<T>) return equal_block(channels * taps, block_depth<T>, 1);
    return larger(1, taps * equal_block(channels, block_depth<T> / larger(taps, 1), 1));
}

// out[r * out_m + at[l]] = beta * that + the product of two panels; at = null: columns are adjacent.
template <class T>
void correlate_tile(int64_t depth, const T* a, const T* b, const Tile<T>& tile, T* out, int64_t out_m,
                    const int64_t* at) {
    Accumulators<T> acc;
    multiply_panels<T>(depth, a, b, acc);
    if (!at) {
        store_tile<T>(acc, tile, out, out_m);
        return;
    }
    T copy[tile_rows * tile_columns<T>] = {};
    if (tile.beta != 0)
        for (int r = 0; r < tile.rows; ++r)
            for (int l = 0; l < tile.columns; ++l) copy[r * tile_columns<T> + l] = out[r * out_m + at[l]];
    store_tile<T>(acc, tile, copy, tile_columns<T>);
    for (int r = 0; r < tile.rows; ++r)
        for (int l = 0; l < tile.columns; ++l) out[r * out_m + at[l]] = copy[r * tile_columns<T> + l];
}

// The weights of all groups in panels of tile_rows: block of depth p0 of row panel i lies at
// packed + (group * depth + p0) * padded_m + i * tile_rows * (depth of the block).
template <class T>
struct PackedWeights {
    int64_t padded_m, block;
    T* panels;

    PackedWeights(const Correlation<T>& c, T* memory)
        : padded_m(divide_up(c.m, tile_rows) * tile_rows),
          block(depth_block<T>(c.channels, c.source.y.taps * c.source.x.taps)),
          panels(memory) {
        const int64_t row_panels = padded_m / tile_rows, depth = c.depth();
        parallel_for(c.groups * row_panels, double(tile_rows * depth), [&](int64_t task) {
            const int64_t group = task / row_panels, i = task % row_panels * tile_rows;
            int64_t offsets[block_depth<T>];
            for (int64_t p0 = 0; p0 < depth; p0 += block) {
                const int64_t kc = smaller(block, depth - p0);
                tap_offsets(p0, kc, c.source.y.taps, c.source.x.taps, c.weight_taps, offsets);
                const T* weight = c.weight + group * c.weight_group + i * c.weight_m;
                T* panel = panels + (group * depth + p0) * padded_m + i * kc;
                for (int64_t r = 0; r < tile_rows; ++r, weight += c.weight_m)
                    for (int64_t p = 0; p < kc; ++p)
                        panel[p * tile_rows + r] = i + r < c.m ? weight[offsets[p]] : T(0);
            }
        });
    }
};

// One task of a correlation: a block of positions and rows [m_begin, m_end) of one group.
template <class T>
void correlate_block(const Correlation<T>& c, const PackedWeights<T>& weights, const BlockPlan& plan,
                     const PositionBlock& block, int64_t group, int64_t m_begin, int64_t m_end) {
    constexpr int64_t nr = tile_columns<T>;
    const Images<T>& source = c.source;
    const int64_t depth = c.depth(), positions = block.positions(), taps = source.y.taps * source.x.taps;
    const WindowLayout layout(depth ? divide_up(weights.block, taps) + (weights.block % taps != 0) : 0,
                              source.y, source.x, plan);
    Scratch window_memory(block.images * layout.image_stride() + Lanes<T>::slack, sizeof(T));
    Scratch panel_memory(weights.block * nr + Lanes<T>::slack, sizeof(T));
    T* const window = static_cast<T*>(window_memory.data);
    T* const panel = static_cast<T*>(panel_memory.data);

    int64_t from[most_positions], to[most_positions], rows[block_depth<T>];
    position_offsets(block, layout.positions(source.y, source.x), from);
    position_offsets(block, c.out_positions, to);
    T* const out = c.out + group * c.m * c.out_m + block.image * c.out_positions.outer +
                   block.row * c.out_positions.row + block.column * c.out_positions.column;
    Epilogue<T> epilogue = c.epilogue;
    if (epilogue.bias) epilogue.bias += group * c.m;

    for (int64_t p0 = 0; p0 < larger(depth, 1);
         p0 += weights.block) {  // depth 0: one empty block writes zeros
        const int64_t kc = smaller(weights.block, depth - p0);
        const bool last = p0 + kc >= depth;
        if (kc > 0) {
            const int64_t first = p0 / taps, end = divide_up(p0 + kc, taps);
            copy_window(source, block, group * c.channels + first, end - first, layout, window);
            tap_offsets(p0 - first * taps, kc, source.y.taps, source.x.taps, layout.taps(source.y, source.x),
                        rows);
        }
        for (int64_t j = 0; j < positions; j += nr) {
            const int columns = int(smaller(nr, positions - j));
            gather_panel(panel, window, rows, kc, Lanes<T>(from + j, columns));
            const bool adjacent = to[j + columns - 1] - to[j] == columns - 1;  // tables only grow
            for (int64_t i = m_begin; i < m_end; i += tile_rows) {
                const Tile<T> tile = {i,    0,         int(smaller(tile_rows, m_end - i)), columns,
                                      T(1), T(p0 > 0), last ? &epilogue : nullptr};
                correlate_tile(kc, weights.panels + (group * depth + p0) * weights.padded_m + i * kc, panel,
                               tile, out + i * c.out_m + (adjacent ? to[j] : 0), c.out_m,
                               adjacent ? nullptr : to + j);
            }
        }
    }
}

template <class T>
void correlate(const Correlation<T>& c) {
    const int64_t height = c.source.y.results, width = c.source.x.results;
    if (c.batch == 0 || height == 0 || width == 0) return;
    const int64_t depth = c.depth();
    Scratch memory(checked_product(c.operation, {c.groups, divide_up(c.m, tile_rows) * tile_rows, depth}),
                   sizeof(T));
    const PackedWeights<T> weights(c, static_cast<T*>(memory.data));

    const BlockPlan plan(c.batch, height, width, task_positions<T>(c.batch * height * width * c.groups));
    const int64_t blocks = c.groups * plan.count();
    // Few positions: the rows are cut too, although each part gathers its patches again.
    const int64_t rows = equal_block(c.m, divide_up(c.m, divide_up(enough_tasks, blocks)), tile_rows);
    const int64_t parts = divide_up(c.m, rows);
    const double positions = double(plan.images * plan.rows * plan.columns);
    parallel_for(blocks * parts, positions * double(depth + 1) * double(2 * rows + 4), [&](int64_t task) {
        const int64_t m_begin = task % parts * rows, group = task / parts % c.groups;
        const PositionBlock block = plan[task / parts / c.groups];
        correlate_block(c, weights, plan, block, group, m_begin, smaller(m_begin + rows, c.m));
    });
}

// A kernel that covers the whole image gives one pixel: rows of x, of w and of y are those of matrices.
inline bool is_product(const Conv2dShape& s) {
    return s.groups == 1 && s.kernel_h == s.height && s.kernel_w == s.width && s.out_h == 1 && s.out_w == 1 &&
           s.pad_top == 0 && s.pad_left == 0 && s.dilation_h == 1 && s.dilation_w == 1;
}

// out[n, o, oh, ow] = activation(bias[o] + sum over c, i, j of w[o, c, i, j] * x[n, c, oh*stride - pad +
// i*dilation, ..]) out (N, O, OH, OW), x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or null.
template <class T>
void conv2d_forward(const Conv2dForward<T>& a) {
    const Conv2dShape& s = a.shape;
    const int64_t filter_size = s.channels * s.height * s.width;
    if (is_product(s))
        return gemm<T>({.batch = 1,
                        .m = s.batch,
                        .n = s.filters,
                        .k = filter_size,
                        .a = {a.x, filter_size, 1},
                        .b = {a.w, 1, filter_size},
                        .c = {a.out, s.filters, 1},
                        .epilogue = {a.bias, BiasAxis::columns, a.activation, a.parameter}});
    if (winograd_runs<T>(s, a.winograd)) return conv2d_forward_winograd(a);
    if (phases_run<T>(s, a.winograd)) return conv2d_forward_phases(a);
    if (interleaving_pays<T>(s)) return conv2d_forward_interleaved(a);
    const int64_t taps = s.kernel_h * s.kernel_w, filter = s.group_channels * taps;
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    correlate(
        Correlation<T>{"conv2d", s.batch, s.groups, s.group_filters, s.group_channels,
                       Images<T>{a.x, s.channels * plane, plane,
                                 Axis{s.height, s.out_h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top},
                                 Axis{s.width, s.out_w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left}},
                       a.w, s.group_filters * filter, filter, Strides{taps, s.kernel_w, 1}, a.out, out_plane,
                       Strides{s.filters * out_plane, s.out_w, 1},
                       Epilogue<T>{a.bias, BiasAxis::rows, a.activation, a.parameter}});
}

// One residue class of the input positions along an axis, with the taps that reach it.
struct ResidueClass {
    Axis axis;  // results are the positions of the class, the source is dy; taps run backwards, from the last
                // one
    int64_t first, last_tap,
        tap_step;  // first position, tap that stands first in the axis, step to the next one

    ResidueClass(int64_t residue, int64_t size, int64_t out_size, int64_t kernel, int64_t stride,
                 int64_t dilation, int64_t pad) {
        // Padded position = residue + stride * t, for t in [begin, end).
        const int64_t begin = divide_up(larger(pad - residue, 0), stride);
        const int64_t end = divide_up(larger(pad + size - residue, 0), stride);
        int64_t tap = 0, period = 1;  // taps tap, tap + period, ... have tap * dilation = residue mod stride
        while (tap < smaller(kernel, stride) && tap * dilation % stride != residue) ++tap;
        while (period * dilation % stride != 0) ++period;  // at most stride, which is within the input
        const bool reached = tap < kernel && tap * dilation % stride == residue;
        const int64_t taps = reached ? (kernel - 1 - tap) / period + 1 : 0;
        last_tap = tap + larger(taps - 1, 0) * period;
        tap_step = period;
        first = residue + stride * begin - pad;
        axis = {out_size, larger(end - begin, 0),     taps,
                1,        period * dilation / stride, (last_tap * dilation - residue) / stride - begin};
    }
};

// out[n, c, ih, iw] = sum over o, i, j of w[o, c, i, j] * dy[n, o, oh, ow], oh*stride_h = ih + pad_top -
// i*dilation_h and ow likewise. out (N, C, H, W), dy (N, O, OH, OW), w (O, C/groups, KH, KW).
template <class T>
void conv2d_backward_input(const Conv2dBackwardInput<T>& a) {
    const Conv2dShape& s = a.shape;
    const int64_t filter_size = s.channels * s.height * s.width;
    if (is_product(s))
        return gemm<T>({.batch = 1,
                        .m = s.batch,
                        .n = filter_size,
                        .k = s.filters,
                        .a = {a.dy, s.filters, 1},
                        .b = {a.w, filter_size, 1},
                        .c = {a.out, filter_size, 1}});
    if (winograd_runs<T>(s, a.winograd)) return conv2d_backward_input_winograd(a);
    if (interleaving_pays<T>(s)) return conv2d_backward_input_interleaved(a);
    if (scatter_pays(s)) return conv2d_backward_input_scatter(a);
    const int64_t taps = s.kernel_h * s.kernel_w, filter = s.group_channels * taps;
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    for (int64_t residue_h = 0; residue_h < smaller(s.stride_h, s.height + s.pad_top); ++residue_h)
        for (int64_t residue_w = 0; residue_w < smaller(s.stride_w, s.width + s.pad_left); ++residue_w) {
            const ResidueClass h(residue_h, s.height, s.out_h, s.kernel_h, s.stride_h, s.dilation_h,
                                 s.pad_top);
            const ResidueClass w(residue_w, s.width, s.out_w, s.kernel_w, s.stride_w, s.dilation_w,
                                 s.pad_left);
            correlate(Correlation<T>{
                "conv2d_backward_input", s.batch, s.groups, s.group_channels, s.group_filters,
                Images<T>{a.dy, s.filters * out_plane, out_plane, h.axis, w.axis},
                a.w + h.last_tap * s.kernel_w + w.last_tap, s.group_filters * filter, taps,
                Strides{filter, -h.tap_step * s.kernel_w, -w.tap_step}, a.out + h.first * s.width + w.first,
                plane, Strides{s.channels * plane, s.stride_h * s.width, s.stride_w}, Epilogue<T>{}});
        }
}

// A task of the weight gradient: taps [tap_begin, tap_end) of all filters of a group, over blocks [begin,
// end) of the positions, into out (group's filters, C/groups * KH * KW).
template <class T>
struct WeightTask {
    int64_t group, tap_begin, tap_end, begin, end;
    T* out;
};

template <class T>
void correlate_with_gradient(const Conv2dBackwardWeight<T>& a, const Images<T>& x, const BlockPlan& plan,
                             const WeightTask<T>& task) {
    constexpr int64_t nr = tile_columns<T>;
    const Conv2dShape& s = a.shape;
    const int64_t taps = x.y.taps * x.x.taps, count = task.tap_end - task.tap_begin;
    const int64_t first = task.tap_begin / taps, channels = divide_up(task.tap_end, taps) - first;
    const int64_t filter = s.group_channels * taps, out_plane = s.out_h * s.out_w;
    const int64_t padded_m = divide_up(s.group_filters, tile_rows) * tile_rows;
    const WindowLayout layout(channels, x.y, x.x, plan);
    Scratch offsets_memory(count, sizeof(int64_t));
    Scratch window_memory(plan.images * layout.image_stride() + Lanes<T>::slack, sizeof(T));
    Scratch panel_memory(block_depth<T> * nr + Lanes<T>::slack, sizeof(T));
    Scratch gradient_memory(padded_m * block_depth<T>, sizeof(T));
    int64_t* const lanes = static_cast<int64_t*>(offsets_memory.data);
    T* const window = static_cast<T*>(window_memory.data);
    T* const panel = static_cast<T*>(panel_memory.data);
    T* const gradient = static_cast<T*>(gradient_memory.data);
    tap_offsets(task.tap_begin - first * taps, count, x.y.taps, x.x.taps, layout.taps(x.y, x.x), lanes);

    for (int64_t b = task.begin; b < task.end; ++b) {
        const PositionBlock block = plan[b];
        const int64_t kc = block.positions();
        int64_t rows[block_depth<T>], from[block_depth<T>];
        position_offsets(block, layout.positions(x.y, x.x), rows);
        position_offsets(block, Strides{s.filters * out_plane, s.out_w, 1}, from);
        copy_window(x, block, task.group * s.group_channels + first, channels, layout, window);
        const T* dy = a.dy + (block.image * s.filters + task.group * s.group_filters) * out_plane +
                      block.row * s.out_w + block.column;
        for (int64_t i = 0; i < padded_m; ++i) {  // transposed into panels of tile_rows
            T* to = gradient + i / tile_rows * tile_rows * kc + i % tile_rows;
            for (int64_t p = 0; p < kc; ++p)
                to[p * tile_rows] = i < s.group_filters ? dy[i * out_plane + from[p]] : T(0);
        }
        for (int64_t j = 0; j < count; j += nr) {
            const int columns = int(smaller(nr, count - j));
            gather_panel(panel, window, rows, kc, Lanes<T>(lanes + j, columns));
            for (int64_t i = 0; i < s.group_filters; i += tile_rows) {
                const Tile<T> tile = {i,       0,    int(smaller(tile_rows, s.group_filters - i)),
                                      columns, T(1), T(b > task.begin),
                                      nullptr};
                correlate_tile<T>(kc, gradient + i * kc, panel, tile,
                                  task.out + i * filter + task.tap_begin + j, filter, nullptr);
            }
        }
    }
}

// out[o, c, i, j] = sum over n, oh, ow of dy[n, o, oh, ow] * x[n, c, oh*stride_h - pad_top + i*dilation_h,
// ..] out (O, C/groups, KH, KW), x (N, C, H, W), dy (N, O, OH, OW). Rows of the product are o, its columns c,
// i, j. Where these give too few tasks, the positions are cut into a number of partial sums that depends on
// the shape alone.
template <class T>
void conv2d_backward_weight(const Conv2dBackwardWeight<T>& a) {
    const Conv2dShape& s = a.shape;
    const int64_t filter = s.group_channels * s.kernel_h * s.kernel_w, size = s.filters * filter;
    if (s.batch == 0) {
        memset(a.out, 0, size_t(size) * sizeof(T));
        return;
    }
    if (is_product(s))
        return gemm<T>({.batch = 1,
                        .m = s.filters,
                        .n = size / s.filters,
                        .k = s.batch,
                        .a = {a.dy, 1, s.filters},
                        .b = {a.x, size / s.filters, 1},
                        .c = {a.out, size / s.filters, 1}});
    if (winograd_runs<T>(s, a.winograd)) return conv2d_backward_weight_winograd(a);
    if (phases_run<T>(s, a.winograd)) return conv2d_backward_weight_phases(a);
    if (interleaving_pays<T>(s)) return conv2d_backward_weight_interleaved(a);
    const int64_t plane = s.height * s.width;
    const Images<T> x = {a.x, s.channels * plane, plane,
                         Axis{s.height, s.out_h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top},
                         Axis{s.width, s.out_w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left}};
    const BlockPlan plan(s.batch, s.out_h, s.out_w, block_depth<T>);
    constexpr int64_t nr = tile_columns<T>;
    const int64_t wanted = divide_up(filter * s.groups, enough_tasks);
    const int64_t columns = equal_block(filter, larger(4 * nr, smaller(wanted, most_positions)), nr);
    const int64_t parts = divide_up(filter, columns), tiles = s.groups * parts;
    const int64_t blocks = plan.count(), sums = smaller(blocks, divide_up(enough_tasks, tiles));
    Scratch memory(sums > 1 ? checked_product("conv2d_backward_weight", {sums, size}) : 0, sizeof(T));
    T* const partial = sums > 1 ? static_cast<T*>(memory.data) : a.out;

    const double work = 2.0 * double(plan.batch * plan.height * plan.width) * double(s.group_filters + 4) *
                        double(columns) / double(sums);
    parallel_for(tiles * sums, work, [&](int64_t index) {
        const int64_t sum = index / tiles, group = index % tiles / parts, tap = index % parts * columns;
        correlate_with_gradient(a, x, plan,
                                WeightTask<T>{group, tap, smaller(tap + columns, filter), sum * blocks / sums,
                                              (sum + 1) * blocks / sums,
                                              partial + sum * size + group * s.group_filters * filter});
    });
    if (sums == 1) return;
    constexpr int64_t piece = 4096;
    parallel_for(divide_up(size, piece), double(piece * sums), [&](int64_t index) {
        const int64_t begin = index * piece, end = smaller(size, begin + piece);
        for (int64_t i = begin; i < end; ++i) {
            T total = partial[i];
            for (int64_t sum = 1; sum < sums; ++sum) total += partial[sum * size + i];
            a.out[i] = total;
        }
    });
}

}  // namespace
}  // namespace tinygrad_nm
