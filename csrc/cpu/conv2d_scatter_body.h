// The gradient of a convolution's input, scattered: a product with rows (c, i, j), columns (n, oh, ow) and
// depth o, whose tiles are added to a padded window of the input as they leave the registers. It multiplies
// no zeros at all, where the gather of conv2d_body.h multiplies those outside of dy; but it adds in memory,
// not in registers.
#pragma once
#include "cpu/patches_body.h"
#include "shared/conv2d.h"

namespace tinygrad_nm {
namespace {

// Gathering does so many times the arithmetic that scattering pays: 14x14 from 10x10 is 1.96.
constexpr double scatter_excess = 1.5;

// The gather computes all inputs, in tiles with rows for the channels of a group; the scatter only what has
// an output.
inline bool scatter_pays(const Conv2dShape& s) {
    const double rows = double(divide_up(s.group_channels, tile_rows) * tile_rows) / double(s.group_channels);
    const double gathered = double(s.height * s.width) / double(s.stride_h * s.stride_w) * rows;
    return gathered > scatter_excess * double(s.out_h * s.out_w);
}

// How the work is cut: a task is some images times some channels of a group.
template <class T>
struct ScatterPlan {
    BlockPlan blocks;                   // of the positions; those of the same images belong to one task
    int64_t image_blocks, per_images;   // blocks of images, and of positions for each
    int64_t channels, chunks;           // of a task, and of a group
    int64_t taps, rows, panels, depth;  // i, j; rows of a task's product, panels of them; block of the depth
    int64_t height, width;              // of the padded part of the input that any output reads

    explicit ScatterPlan(const Conv2dShape& s)
        : blocks(s.batch, s.out_h, s.out_w, task_positions<T>(s.batch * s.out_h * s.out_w * s.groups)),
          image_blocks(divide_up(s.batch, blocks.images)),
          per_images(blocks.count() / image_blocks),
          channels(equal_block(s.group_channels,
                               divide_up(s.group_channels, divide_up(enough_tasks, image_blocks * s.groups)),
                               1)),
          chunks(divide_up(s.group_channels, channels)),
          taps(s.kernel_h * s.kernel_w),
          rows(channels * taps),
          panels(divide_up(rows, tile_rows)),
          depth(equal_block(s.group_filters, block_depth<T>, 1)),
          height((s.out_h - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1),
          width((s.out_w - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1) {}
};

// Panels of the transposed weights: row (c, i, j) of a chunk, depth o. The panel of rows i and depth block p0
// lies at packed + ((group * chunks + chunk) * filters + p0) * padded rows + i * (depth of the block).
template <class T>
void pack_transposed_weights(const Conv2dBackwardInput<T>& a, const ScatterPlan<T>& plan, T* packed) {
    const Conv2dShape& s = a.shape;
    const int64_t filter = s.group_channels * plan.taps, padded = plan.panels * tile_rows;
    parallel_for(
        s.groups * plan.chunks * plan.panels, double(tile_rows * s.group_filters), [&](int64_t task) {
            const int64_t chunk = task / plan.panels % plan.chunks, group = task / plan.panels / plan.chunks;
            const int64_t i = task % plan.panels * tile_rows, first = chunk * plan.rows + i;
            const int64_t used = smaller(tile_rows, smaller(filter - chunk * plan.rows, plan.rows) - i);
            for (int64_t p0 = 0; p0 < s.group_filters; p0 += plan.depth) {
                const int64_t kc = smaller(plan.depth, s.group_filters - p0);
                T* panel = packed + ((group * plan.chunks + chunk) * s.group_filters + p0) * padded + i * kc;
                const T* weight = a.w + (group * s.group_filters + p0) * filter + first;
                for (int64_t p = 0; p < kc; ++p, panel += tile_rows, weight += filter)
                    for (int64_t r = 0; r < tile_rows; ++r) panel[r] = r < used ? weight[r] : T(0);
            }
        });
}

// window[rows[r] + lane offset l] += the product of two panels, at row r and lane l.
template <class T>
void scatter_tile(int64_t depth, const T* a, const T* b, int used_rows, const int64_t* rows,
                  const Lanes<T>& lanes, T* window) {
    constexpr int vector = Vec<T>::lanes, width = tile_columns<T>;
    Accumulators<T> acc;
    multiply_panels<T>(depth, a, b, acc);
    T product[tile_rows * width];
    for (int r = 0; r < tile_rows; ++r)
        for (int v = 0; v < tile_vectors; ++v) acc[r][v].store(product + r * width + v * vector);
    for (int r = 0; r < used_rows; ++r)
        for (int run = 0; run < lanes.runs; ++run) {
            const T* from = product + r * width + lanes.start[run];
            T* to = window + rows[r] + lanes.offset[run];
            const int end = run + 1 < lanes.runs ? lanes.start[run + 1] : lanes.used;
            const int count = end - lanes.start[run];
            int l = 0;
            for (; l + vector <= count; l += vector)
                (Vec<T>::load(to + l) + Vec<T>::load(from + l)).store(to + l);
            for (; l < count; ++l) to[l] += from[l];
        }
}

// One task: images [block.image, ..), channels [chunk * plan.channels, ..) of a group.
template <class T>
void scatter_images(const Conv2dBackwardInput<T>& a, const ScatterPlan<T>& plan, const T* packed,
                    int64_t image_block, int64_t group, int64_t chunk) {
    constexpr int64_t nr = tile_columns<T>;
    const Conv2dShape& s = a.shape;
    const int64_t first_channel = chunk * plan.channels;
    const int64_t channels = smaller(plan.channels, s.group_channels - first_channel),
                  rows = channels * plan.taps;
    const int64_t plane = plan.height * plan.width, out_plane = s.out_h * s.out_w;
    const Images<T> dy = {a.dy, s.filters * out_plane, out_plane, Axis{s.out_h, s.out_h, 1, 1, 1, 0},
                          Axis{s.out_w, s.out_w, 1, 1, 1, 0}};
    const WindowLayout layout(plan.depth, dy.y, dy.x, plan.blocks);
    const int64_t images = plan.blocks[image_block * plan.per_images].images;
    Scratch sum_memory(images * channels * plane, sizeof(T)), taps_memory(rows, sizeof(int64_t));
    Scratch window_memory(images * layout.image_stride() + Lanes<T>::slack, sizeof(T));
    Scratch panel_memory(plan.depth * nr + Lanes<T>::slack, sizeof(T));
    T* const sums = static_cast<T*>(sum_memory.data);
    T* const window = static_cast<T*>(window_memory.data);
    T* const panel = static_cast<T*>(panel_memory.data);
    int64_t* const taps = static_cast<int64_t*>(taps_memory.data);
    tap_offsets(0, rows, s.kernel_h, s.kernel_w, {plane, s.dilation_h * plan.width, s.dilation_w}, taps);
    memset(sums, 0, size_t(images * channels * plane) * sizeof(T));

    int64_t from[most_positions], to[most_positions], depth_offsets[block_depth<T>];
    tap_offsets(0, plan.depth, 1, 1, {layout.height * layout.width, 0, 0}, depth_offsets);
    for (int64_t b = 0; b < plan.per_images; ++b) {
        const PositionBlock block = plan.blocks[image_block * plan.per_images + b];
        position_offsets(block, layout.positions(dy.y, dy.x), from);
        position_offsets(block, {channels * plane, s.stride_h * plan.width, s.stride_w}, to);
        T* const corner = sums + block.row * s.stride_h * plan.width + block.column * s.stride_w;
        for (int64_t p0 = 0; p0 < s.group_filters; p0 += plan.depth) {
            const int64_t kc = smaller(plan.depth, s.group_filters - p0);
            copy_window(dy, block, group * s.group_filters + p0, kc, layout, window);
            const T* weights =
                packed + ((group * plan.chunks + chunk) * s.group_filters + p0) * plan.panels * tile_rows;
            for (int64_t j = 0; j < block.positions(); j += nr) {
                const int columns = int(smaller(nr, block.positions() - j));
                gather_panel(panel, window, depth_offsets, kc, Lanes<T>(from + j, columns));
                const Lanes<T> lanes(to + j, columns);
                for (int64_t i = 0; i < rows; i += tile_rows)
                    scatter_tile<T>(kc, weights + i * kc, panel, int(smaller(tile_rows, rows - i)), taps + i,
                                    lanes, corner);
            }
        }
    }
    const int64_t image = image_block * plan.blocks.images;
    const int64_t right =
        smaller(s.width, larger(plan.width - s.pad_left, 0));  // columns that some output reads
    for (int64_t n = 0; n < images; ++n)
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t channel = group * s.group_channels + first_channel + c;
            T* out = a.out + ((image + n) * s.channels + channel) * s.height * s.width;
            const T* sum = sums + (n * channels + c) * plane + s.pad_top * plan.width + s.pad_left;
            for (int64_t h = 0; h < s.height; ++h, out += s.width, sum += plan.width) {
                const int64_t used = h + s.pad_top < plan.height ? right : 0;
                for (int64_t w = 0; w < used; ++w) out[w] = sum[w];
                for (int64_t w = used; w < s.width; ++w) out[w] = 0;
            }
        }
}

// out[n, c, oh*stride_h - pad_top + i*dilation_h, ..] += w[o, c, i, j] * dy[n, o, oh, ow] over o, i, j, oh,
// ow, from 0. out (N, C, H, W), dy (N, O, OH, OW), w (O, C/groups, KH, KW).
template <class T>
void conv2d_backward_input_scatter(const Conv2dBackwardInput<T>& a) {
    const Conv2dShape& s = a.shape;
    if (s.batch == 0) return;
    const ScatterPlan<T> plan(s);
    const int64_t padded = plan.panels * tile_rows;
    Scratch memory(
        checked_product("conv2d_backward_input", {s.groups * plan.chunks, s.group_filters, padded}),
        sizeof(T));
    T* const packed = static_cast<T*>(memory.data);
    pack_transposed_weights(a, plan, packed);
    const double positions = double(plan.blocks.images * s.out_h * s.out_w);
    const double work = positions * double(plan.rows) * double(2 * s.group_filters + 4);
    parallel_for(plan.image_blocks * s.groups * plan.chunks, work, [&](int64_t task) {
        const int64_t chunk = task % plan.chunks, group = task / plan.chunks % s.groups;
        scatter_images(a, plan, packed, task / plan.chunks / s.groups, group, chunk);
    });
}

}  // namespace
}  // namespace tinygrad_nm
