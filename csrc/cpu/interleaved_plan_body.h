// How a convolution at stride 1 and dilation 1 is laid out on interleaved images: blocks, cuts, sizes; and
// whether that pays. Everything follows from the shape alone.
#pragma once
#include "cpu/interleaved_body.h"
#include "cpu/tile_body.h"
#include "shared/conv2d_shape.h"

namespace tinygrad_nm {
namespace {

constexpr int most_rows = 6, most_pixels = 6;        // of a register tile: outputs (or inputs) times pixels,
constexpr int most_sums = tile_rows * tile_vectors;  // and of both together: more would leave the registers
constexpr int64_t most_taps = 64;                    // KH * KW
constexpr int64_t margin = 2;                        // zero pixels at both ends of a row of dy
constexpr int64_t interleaved_bytes =
    (12 << 10) * TINYGRAD_NM_VECTOR_BYTES;            // of a block: what stays in the second-level cache
constexpr int64_t interleaved_weight_sums = 8 << 10;  // vectors of partial sums of the weight gradient
constexpr int64_t weight_partials = 16;               // tasks that sum a weight gradient
constexpr int64_t few_blocks = 4;                     // up to which images are cut
constexpr double cut_work = 1e6;                      // operations of a block that several tasks share

// Part `index` of `parts` nearly equal ones of [0, size).
struct Part {
    int64_t begin, count;
    Part(int64_t size, int64_t parts, int64_t index)
        : begin(size * index / parts), count(size * (index + 1) / parts - begin) {}
    Part(int64_t begin, int64_t count) : begin(begin), count(count) {}
};

// How few images are cut, so that there is work for all lanes and for two threads at least.
struct Cuts {
    int64_t strips = 1;  // of an image: parts of equal height of y, a lane each
    int64_t tasks = 1;   // of a block, by its filters and rows of dx: each copies the block for itself
};

// The best of all cuts into parts of whole `units` of unit_rows rows whose blocks stay in the second-level
// cache. To copy a vector takes some 6 cycles, to compute with it half a cycle for each of its O KH KW
// products: so `copy`, a copied row's cost in computed ones.
template <class T>
Cuts best_cuts(const Conv2dShape& s, int64_t units, int64_t unit_rows, int64_t most_tasks = 2) {
    constexpr int64_t lanes = Vec<T>::lanes;
    Cuts best;
    if (s.batch > few_blocks * lanes) return best;
    const double copy = 12.0 / double(s.group_filters * s.kernel_h * s.kernel_w);
    const double row_work =
        2.0 * double(lanes * s.out_w * s.filters * s.group_channels * s.kernel_h * s.kernel_w);
    const double row_bytes =
        double(lanes * int64_t(sizeof(T))) *
        double(s.channels * (s.out_w + s.kernel_w - 1) + s.filters * (s.out_w + 2 * margin));
    double least = HUGE_VAL;
    for (int64_t strips = 1; strips <= units; ++strips)
        for (int64_t tasks = 1; tasks <= most_tasks; ++tasks) {
            const double rows = double(units / strips * unit_rows), halo = double(s.kernel_h - 1);
            const bool possible =
                tasks == 1 || (s.groups == 1 && s.filters > 1 && rows * row_work > cut_work);
            if (units % strips || !possible || (rows + halo) * row_bytes > double(interleaved_bytes))
                continue;
            const double rounds = double(divide_up(divide_up(s.batch * strips, lanes) * tasks, 2));
            const double cost = rounds * (rows * (1 / double(tasks) + copy) + halo * copy);
            if (cost < least) least = cost, best = {strips, tasks};
        }
    return best;
}

// The blocks of interleaved images, or strips of rows of y, of one convolution. x is padded, with just what
// the outputs read.
template <class T>
struct InterleavedPlan {
    static constexpr int64_t lanes = Vec<T>::lanes;
    Conv2dShape image;
    Cuts cuts;
    Conv2dShape s;                // of the strips, as if they were images of a larger batch
    int64_t blocks, taps, depth;  // of the batch; KH * KW; C/groups * KH * KW
    int64_t height, width;        // of the padded x
    int64_t x_plane, y_plane;     // numbers in an interleaved channel of x, of y
    int64_t dy_row, dy_plane;     // numbers in a row and a channel of dy with its margins
    int64_t filter_rows;          // most filters of a register tile

    explicit InterleavedPlan(const Conv2dShape& shape, const Cuts& cuts = {})
        : image(shape),
          cuts(cuts),
          s(shape),
          taps(s.kernel_h * s.kernel_w),
          depth(s.group_channels * taps),
          filter_rows(1) {
        s.batch *= cuts.strips, s.out_h /= cuts.strips;
        blocks = divide_up(s.batch, lanes);
        height = s.out_h + s.kernel_h - 1, width = s.out_w + s.kernel_w - 1;
        x_plane = height * width * lanes, y_plane = s.out_h * s.out_w * lanes;
        dy_row = (s.out_w + 2 * margin) * lanes, dy_plane = s.out_h * dy_row;
        for (int64_t rows = 2; rows <= most_rows; ++rows)
            if (tiles(rows) <= tiles(filter_rows)) filter_rows = rows;
    }
    int64_t tiles(int64_t rows) const {  // in a row of y, of `rows` filters each
        return divide_up(divide_up(s.group_filters, cuts.tasks), rows) *
               divide_up(s.out_w, smaller(most_pixels, most_sums / rows));
    }

    int used(int64_t block) const { return int(smaller(lanes, s.batch - block * lanes)); }
    // Decided by the shape alone. Idle lanes cost: `full` is the share of them that must not be. One output
    // pixel is a product of matrices.
    bool pays(double full) const {
        const int64_t bytes = (s.channels * x_plane + s.filters * dy_plane) * int64_t(sizeof(T));
        return double(s.batch) >= full * double(lanes) && image.out_h * image.out_w > 1 &&
               bytes <= interleaved_bytes && s.filters * depth <= interleaved_weight_sums;
    }
    double work() const {  // of a block, operations of one pass
        return 2.0 * double(y_plane) * double(s.filters * depth);
    }

    // to (C, height, width, lane) = the padded x (N, C, H, W) of a block.
    void interleave_x(const T* x, int64_t block, T* to) const {
        const int64_t size = image.channels * image.height * image.width;
        const Strips<const T> from = {x,      size,        s.channels, image.height,  image.width,
                                      height, cuts.strips, s.out_h,    -image.pad_top};
        const int64_t left = smaller(image.pad_left, width);  // one output may lie in the padding alone
        interleave_strips(to, from, block * lanes, used(block),
                          {left, smaller(image.width, width - left), width});
    }
    // The rows of some planes of y (N, O, OH, OW); of a block of dy (O, OH, margin + OW + margin, lane).
    template <class Number>
    Strips<Number> rows_of_y(Number* y, const Part& planes) const {
        const int64_t plane = image.out_h * image.out_w;
        return {y + planes.begin * plane,
                s.filters * plane,
                planes.count,
                image.out_h,
                image.out_w,
                s.out_h,
                cuts.strips,
                s.out_h};
    }
    Part filters() const { return Part(0, s.filters); }
    Part channels() const { return Part(0, s.channels); }
    // The filters of task `task` of a block; of one group, where there are several tasks.
    Part filters(int64_t task) const { return Part(s.filters, cuts.tasks, task); }
    // ... and those of each group g among them, in parts of at most `rows` for register tiles: visit(g,
    // part).
    template <class Visit>
    void for_filters(const Part& filters, const Visit& visit, int64_t rows) const {
        for (int64_t g = 0; g < s.groups; ++g) {
            const Part group = cuts.tasks > 1 ? filters : Part(g * s.group_filters, s.group_filters);
            const int64_t parts = divide_up(group.count, rows);
            for (int64_t b = 0; b < parts; ++b) {
                const Part part(group.count, parts, b);
                visit(g, Part(group.begin + part.begin, part.count));
            }
        }
    }
    template <class Visit>
    void for_filters(const Part& filters, const Visit& visit) const {
        for_filters(filters, visit, filter_rows);
    }
    RowLayout dy_layout() const { return {margin, s.out_w, s.out_w + 2 * margin}; }
};

// Tests before a plan is made: it multiplies sizes that must be small, and tries every number of strips.
inline bool interleaving_possible(const Conv2dShape& s) {
    constexpr int64_t most = 1 << 16;
    const auto small = [](int64_t a, int64_t b) { return a < most && b < most && a * b < most; };
    return s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 && s.batch > 0 &&
           s.batch < 1 << 24 && small(s.height, s.width) && small(s.out_h, s.out_w) &&
           small(s.channels, s.filters) && small(s.kernel_h, s.kernel_w) &&
           s.kernel_h * s.kernel_w <= most_taps;
}
template <class T>
bool interleaving_pays(const Conv2dShape& s) {
    return interleaving_possible(s) && InterleavedPlan<T>(s).pays(0.75);
}

}  // namespace
}  // namespace tinygrad_nm
