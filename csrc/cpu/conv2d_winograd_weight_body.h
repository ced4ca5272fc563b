// The gradient of the filters by Winograd's F(3x3, 4x4) and F(5x5, 2x2): see conv2d_winograd_body.h.
//
// Tiles of x and of dy are transformed; at each of the 36 points their products are summed over tiles, a
// matrix product (filters x tiles) (tiles x channels), and the sums of all tiles are transformed back once.
// A task does all of this for some filters of a group, so that no thread reads what another one transformed.
// Where that gives too few tasks, blocks of tiles are shared out to a number of partial sums that depends on
// the shape alone.
#pragma once
#include "cpu/conv2d_winograd_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t winograd_sum_tiles = 128;                // in a block at most: the depth of a product
constexpr int64_t winograd_sum_rows = 128;                 // filters of a task
constexpr int64_t winograd_sum_bytes = int64_t(32) << 20;  // of all partial sums, unless one is larger

// The transformed tiles of a block: number (tile t, channel c) of point q lies at
// data + q * point + (c / width * most_tiles + t) * width + c % width.
template <class T>
struct SummedTiles {
    int64_t width, most_tiles, point;
    T* data = nullptr;

    SummedTiles(int64_t channels, int64_t width, int64_t most_tiles)
        : width(width),
          most_tiles(most_tiles),
          point(point_stride<T>(round_up(channels, width) * most_tiles + tile_rows)) {}
    T* at(int64_t q, int64_t channel) const {
        return data + q * point + channel / width * most_tiles * width + channel % width;
    }
};

// The sums over tiles: number (filter o, channel c) of a group and point lies at
// data + (group * 36 + q) * point + (c / tile_columns * (O / groups) + o) * tile_columns + c % tile_columns.
template <class T>
struct PointSums {
    int64_t filters, point, size;  // filters of a group; numbers of a point, of all groups
    T* data = nullptr;

    PointSums(const char* operation, const Conv2dShape& s)
        : filters(s.group_filters),
          point(point_stride<T>(filters * round_up(s.group_channels, tile_columns<T>))),
          size(checked_product(operation, {s.groups, winograd_points, point})) {}
    T* at(int64_t group, int64_t q, int64_t o, int64_t c) const {
        constexpr int64_t columns = tile_columns<T>;
        return data + (group * winograd_points + q) * point + (c / columns * filters + o) * columns +
               c % columns;
    }
};

// A task: filters [begin, end) of a group, over blocks [first, last) of tiles, into `sums`.
template <class T>
struct SumTask {
    int64_t group, begin, end, first, last;
    PointSums<T> sums;
};

template <class T, int kernel>
void sum_products(const Conv2dBackwardWeight<T>& a, const BlockPlan& plan, const SumTask<T>& task) {
    constexpr int64_t step = 7 - kernel, lanes = Vec<T>::lanes, columns = tile_columns<T>;
    const Conv2dShape& s = a.shape;
    const int64_t filters = task.end - task.begin, most_tiles = plan.images * plan.rows * plan.columns;
    const TiledPlanes<T> x_planes = {a.x, s.channels, s.height, s.width, step, s.pad_top, s.pad_left};
    const TiledPlanes<T> dy_planes = {a.dy, s.filters, s.out_h, s.out_w, step, 0, 0};
    SummedTiles<T> x(s.group_channels, columns, most_tiles);
    SummedTiles<T> dy(filters, round_up(filters, lanes), most_tiles);
    const Scratch x_memory(winograd_points * x.point, sizeof(T));
    const Scratch dy_memory(winograd_points * dy.point, sizeof(T));
    const Scratch window_memory(window_size(plan, step, winograd_size) * lanes, sizeof(T));
    x.data = static_cast<T*>(x_memory.data);
    dy.data = static_cast<T*>(dy_memory.data);
    T* const window = static_cast<T*>(window_memory.data);

    for (int64_t b = task.first; b < task.last; ++b) {
        const PositionBlock block = plan[b];
        for (int64_t c = 0; c < s.group_channels; c += lanes)
            transform_tiles<T, FilterInputs<Vec<T>>>(x_planes, block, task.group * s.group_channels + c,
                                                     int(smaller(lanes, s.group_channels - c)), window,
                                                     x.at(0, c), x.width, x.point);
        for (int64_t o = 0; o < filters; o += lanes)
            transform_tiles<T, Evaluate<Vec<T>, int(step), false>>(
                dy_planes, block, task.group * s.group_filters + task.begin + o,
                int(smaller(lanes, filters - o)), window, dy.at(0, o), dy.width, dy.point);
        for (int q = 0; q < winograd_points; ++q)
            for (int64_t c = 0; c < s.group_channels; c += columns)
                multiply_panel<T>({block.positions(), dy.at(q, 0), 1, dy.width, x.at(q, c),
                                   task.sums.at(task.group, q, task.begin, c), columns, b == task.first},
                                  filters, s.group_channels - c);
    }
}

constexpr int64_t written_filters = 8;  // in a task; their sums are adjacent

// out (O, C/groups, K, K) from `parts` partial sums, for filters [first, first + written_filters) and a panel
// of channels [begin, begin + tile_columns) of a group.
template <class T, int kernel>
void write_filters(const Conv2dShape& s, const PointSums<T>& sums, int64_t parts, int64_t group,
                   int64_t first, int64_t begin, T* out) {
    constexpr int64_t lanes = Vec<T>::lanes, taps = kernel * kernel;
    const int64_t end = smaller(begin + tile_columns<T>, s.group_channels);
    for (int64_t o = first; o < smaller(first + written_filters, s.group_filters); ++o)
        for (int64_t c = begin; c < end; c += lanes) {
            T total[winograd_points * lanes], result[taps * lanes];
            for (int64_t q = 0; q < winograd_points; ++q) {
                const T* const part = sums.at(group, q, o, c);
                Vec<T> v = Vec<T>::load(part);
                for (int64_t i = 1; i < parts; ++i) v = v + Vec<T>::load(part + i * sums.size);
                v.store(total + q * lanes);
            }
            T* const to = result;
            transform_square<T, Interpolate<Vec<T>, kernel, true>>(
                total, winograd_size * lanes, lanes, [to](int i, int j, Vec<T> v) TINYGRAD_NM_INLINE_LAMBDA {
                    v.store(to + (i * kernel + j) * lanes);
                });
            deinterleave(out + ((group * s.group_filters + o) * s.group_channels + c) * taps, taps,
                         int(smaller(lanes, end - c)), result, taps);
        }
}

template <class T, int kernel>
void sum_winograd(const Conv2dBackwardWeight<T>& a) {
    constexpr int64_t step = 7 - kernel;
    const char* const operation = "conv2d_backward_weight";
    const Conv2dShape& s = a.shape;
    const BlockPlan plan(s.batch, divide_up(s.out_h, step), divide_up(s.out_w, step), winograd_sum_tiles);
    const int64_t filters = equal_block(s.group_filters, winograd_sum_rows, Vec<T>::lanes);
    const int64_t row_parts = divide_up(s.group_filters, filters), tasks = s.groups * row_parts;
    PointSums<T> sums(operation, s);
    const int64_t most = winograd_sum_bytes / int64_t(sizeof(T)) / sums.size;
    const int64_t parts = larger(1, smaller(smaller(most, plan.count()), divide_up(enough_tasks, tasks)));
    const Scratch memory(checked_product(operation, {parts, sums.size}), sizeof(T));
    sums.data = static_cast<T*>(memory.data);

    const double tiles = double(plan.batch * plan.height * plan.width) / double(parts);
    parallel_for(tasks * parts, tiles * 72.0 * double(filters * s.group_channels), [&](int64_t index) {
        const int64_t part = index / tasks, begin = index % row_parts * filters;
        PointSums<T> to = sums;
        to.data += part * sums.size;
        sum_products<T, kernel>(
            a, plan,
            SumTask<T>{index % tasks / row_parts, begin, smaller(begin + filters, s.group_filters),
                       part * plan.count() / parts, (part + 1) * plan.count() / parts, to});
    });
    const int64_t panels = divide_up(s.group_channels, tile_columns<T>);
    const int64_t rows = divide_up(s.group_filters, written_filters);
    parallel_for(s.groups * panels * rows, 50.0 * double(parts * written_filters * tile_columns<T>),
                 [&](int64_t index) {
                     write_filters<T, kernel>(s, sums, parts, index / rows / panels,
                                              index % rows * written_filters,
                                              index / rows % panels * tile_columns<T>, a.out);
                 });
}

// out (O, C/groups, K, K) = sum over n, oh, ow of dy[n, o, oh, ow] * x[n, c, oh - pad_top + i, ow - pad_left
// + j], for a batch that is not empty.
template <class T>
void conv2d_backward_weight_winograd(const Conv2dBackwardWeight<T>& a) {
    a.shape.kernel_h == 3 ? sum_winograd<T, 3>(a) : sum_winograd<T, 5>(a);
}

}  // namespace
}  // namespace tinygrad_nm
