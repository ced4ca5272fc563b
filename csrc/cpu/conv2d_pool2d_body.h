// Convolution, activation and pooling fused, on blocks of interleaved images (conv2d_interleaved_body.h);
// shapes and sums in conv2d_pool2d.h.
#pragma once
#include "cpu/conv2d_interleaved_passes_body.h"
#include "cpu/conv2d_pool2d_few_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t few_sums_bytes = 16 << 10;  // of a weight gradient, that stay in the first-level cache

// Where rows of y are left over below the windows, images are not cut into strips.
template <class T>
InterleavedPlan<T> pooled_plan(const Conv2dShape& s, const PoolWindows& pool) {
    const bool whole = s.out_h % pool.height == 0;
    return InterleavedPlan<T>(
        s, best_cuts<T>(s, whole ? s.out_h / pool.height : 1, whole ? pool.height : s.out_h));
}

template <class T>
int64_t conv2d_pool2d_kept(const Conv2dShape& s, Activation activation, const PoolWindows& pool) {
    bool from_output = true;
    with_activation(activation, [&](auto formula) { from_output = !decltype(formula)::saves_input; });
    if (!from_output || pool.height * pool.width > most_taps || !interleaving_possible(s)) return 0;
    if (filters_as_lanes<T>(s)) return s.batch * FewImages<T>(s, pool).y_size;
    const InterleavedPlan<T> plan = pooled_plan<T>(s, pool);
    return plan.pays(0.25) ? plan.blocks * s.filters * plan.y_plane : 0;
}

// What the kernels of both ways work with: the pooled result out (N, O, OH / height, OW / width) in strips.
template <class T>
struct PooledPlan : InterleavedPlan<T> {
    PoolWindows pool;
    int64_t down, across, pooled;  // windows of a strip, numbers of its result

    PooledPlan(const Conv2dShape& shape, const PoolWindows& windows)
        : InterleavedPlan<T>(pooled_plan<T>(shape, windows)), pool(windows) {
        const Conv2dShape& s = this->s;
        down = s.out_h / pool.height, across = s.out_w / pool.width;
        pooled = s.filters * down * across;
    }
    template <class Number>
    Strips<Number> rows_of_out(Number* out, const Part& filters) const {
        const int64_t height = this->image.out_h / pool.height, plane = height * across;
        return {out + filters.begin * plane,
                this->s.filters * plane,
                filters.count,
                height,
                across,
                down,
                this->cuts.strips,
                down};
    }
    RowLayout out_layout() const { return {0, across, across}; }
    WindowGrid grid() const { return {pool, down, across, this->s.out_w, this->y_plane, this->dy_row}; }
    // Tiles of outputs must not reach from one row of windows into the next, nor beyond the last.
    Winograd winograd(Winograd asked) const {
        return pool.height % tile_side || this->s.out_h % pool.height ? Winograd::never : asked;
    }
};

// Row by row of windows: from the sums to the pooled result they stay in the first-level cache.
template <class T>
void conv2d_pool2d_forward(const Conv2dPool2dForward<T>& a) {
    if (filters_as_lanes<T>(a.conv.shape)) return forward_few(a);
    const PooledPlan<T> plan(a.conv.shape, a.pool);
    const Conv2dShape& s = plan.s;
    constexpr int64_t lanes = Vec<T>::lanes;
    const OutputFilters<T> weights(plan, a.conv.w, plan.winograd(a.conv.winograd));
    const Epilogue<T> epilogue = {a.conv.bias, BiasAxis::rows, a.conv.activation, a.conv.parameter};
    const int64_t tasks = plan.cuts.tasks;
    parallel_for(plan.blocks * tasks, plan.work() / double(tasks), [&](int64_t index) {
        const int64_t block = index / tasks, size = s.filters * plan.y_plane;
        const Part filters = plan.filters(index % tasks);
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)), y_memory(a.y ? 0 : size, sizeof(T));
        Scratch out_memory(plan.pooled * lanes, sizeof(T));
        T* const x = static_cast<T*>(x_memory.data);
        T* const y = a.y ? a.y + block * size : static_cast<T*>(y_memory.data);
        T* const out = static_cast<T*>(out_memory.data);
        plan.interleave_x(a.conv.x, block, x);
        const int64_t rows = weights.rows_at_once(plan, a.pool.height), end = plan.down * a.pool.height;
        for (int64_t row = 0; row < end; row += rows) {
            const Part part(row, smaller(rows, end - row));
            weights.correlate(plan, x, epilogue, filters, part, y);
            with_pool(a.pool, [&](auto kind) {
                for (int64_t i = row / a.pool.height; i * a.pool.height < row + part.count; ++i)
                    pool_interleaved<T, decltype(kind)>(plan.grid(), filters, i, y, out);
            });
        }
        deinterleave_strips(plan.rows_of_out(a.out, filters), block * lanes, plan.used(block),
                            plan.out_layout(), out);
    });
}

// What one partial sum is made from: blocks of images or strips.
template <class T>
struct BackwardTask {
    Part blocks, filters;  // of dw and db; dx wants all filters, unless it is left to correlate_back_strips
    bool by_tiles;         // Winograd's, of dw, and of dx unless it is left so
    Part dx_part;          // of its channels, by tiles, or rows, or none
    const T* packed;       // weights for dx
    T* dz;                 // (N, O, OH, OW) of these filters, for correlate_back_strips, or null
    T *weight_sum, *bias_sum;  // (O, C/groups * KH * KW), (O,)
};

// Where there is no dx, and the sums are few, the gradient of one row of windows at a time is spread and
// summed in the first-level cache.
template <class T>
void backward_interleaved(const PooledPlan<T>& plan, const Conv2dPool2dBackward<T>& a,
                          const BackwardTask<T>& task) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = plan.s;
    const Part all = task.dx_part.count ? plan.filters() : task.filters, &own = task.filters;
    const int64_t size = a.dw ? own.count * plan.depth : 0, dx_row = s.width * lanes;
    const bool by_tiles = task.by_tiles,
               by_rows = !a.dx && !by_tiles && size * lanes * int64_t(sizeof(T)) <= few_sums_bytes;
    const int64_t dz_plane = by_rows ? a.pool.height * plan.dy_row : plan.dy_plane;
    Scratch x_memory(a.dw ? s.channels * plan.x_plane : 0, sizeof(T));
    Scratch dz_memory(s.filters * dz_plane, sizeof(T)), dout_memory(plan.pooled * lanes, sizeof(T));
    Scratch dx_memory(s.channels * (by_tiles ? plan.x_plane : task.dx_part.count * dx_row), sizeof(T));
    Scratch sums_memory((size + s.filters) * lanes, sizeof(T));
    Scratch tiles_memory(by_tiles && a.dw ? winograd_points * sums_point<T>(s, own) : 0, sizeof(T));
    T *const x = static_cast<T*>(x_memory.data), *const dz = static_cast<T*>(dz_memory.data);
    T *const dout = static_cast<T*>(dout_memory.data), *const dx = static_cast<T*>(dx_memory.data);
    T *const sums = static_cast<T*>(sums_memory.data), *const bias_sums = sums + size * lanes;
    T* const tiles = static_cast<T*>(tiles_memory.data);
    store_zeros(bias_sums, s.filters);
    const int64_t filled = plan.down * a.pool.height;
    for (int64_t block = task.blocks.begin; block < task.blocks.begin + task.blocks.count; ++block) {
        const int64_t begin = block * lanes;
        const int used = plan.used(block);
        const bool start = block == task.blocks.begin;
        interleave_strips(dout, plan.rows_of_out(a.dout, all), begin, used, plan.out_layout());
        if (a.dw) plan.interleave_x(a.conv.x, block, x);
        for (int64_t i = 0; i < plan.down; ++i) {
            const int64_t first = i * a.pool.height;
            const GradientRows<T> rows = {dz + (by_rows ? 0 : first * plan.dy_row), dz_plane, first,
                                          a.pool.height};
            spread_interleaved(plan.grid(), a, used, all, i, dout, a.y + block * s.filters * plan.y_plane,
                               rows, bias_sums);
            if (a.dw && by_rows) add_weight_gradient(plan, x, rows, own, start && i == 0, sums);
        }
        if (by_tiles)
            add_tile_gradients<T>(plan, x, dz,
                                  {a.dw ? own : Part(0, 0), task.dx_part, task.packed, tiles, start, dx});
        else if (a.dw && !by_rows)
            add_weight_gradient(plan, x, {dz, dz_plane, 0, filled}, own, start, sums);
        if (task.dz)
            deinterleave_strips(plan.rows_of_y(task.dz, own), begin, used, plan.dy_layout(),
                                dz + own.begin * dz_plane);
        if (!task.dx_part.count) continue;
        if (by_tiles) {
            write_tiles_of_inputs(plan, block, task.dx_part, dx, a.dx);
            continue;
        }
        for (int64_t o = 0; o < s.filters; ++o)
            store_zeros(dz + o * dz_plane + filled * plan.dy_row, (s.out_h - filled) * plan.dy_row / lanes);
        correlate_back_interleaved(plan, dz, task.packed, task.dx_part, dx);
        const Strips<T> to = {a.dx,
                              s.channels * s.height * s.width,
                              s.channels,
                              s.height,
                              s.width,
                              task.dx_part.count,
                              1,
                              0,
                              task.dx_part.begin};
        deinterleave_strips(to, begin, used, {0, s.width, s.width}, dx);
    }
    if (by_tiles && a.dw) finish_weight_tiles(plan, own, tiles, sums);
    add_lanes(task.weight_sum + own.begin * plan.depth, sums, size);
    add_lanes(task.bias_sum + own.begin, bias_sums + own.begin * lanes, own.count);
}

// dx (N, C, H, W) in strips from dz (N, O, OH, OW): a strip of rows of dx is the gradient of an image that is
// padded by KH - 1 rows above and below, in all the rows of dz that reach it.
template <class T>
void correlate_back_strips(const Conv2dShape& s, const T* dz, const T* packed, T* dx) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t halo = s.kernel_h - 1;
    Conv2dShape transposed = s;  // each number of dz is used for the channels, not for the filters
    transposed.group_filters = s.group_channels;
    const int64_t strips = best_cuts<T>(transposed, s.height, 1, 1).strips;
    Conv2dShape strip = s;
    strip.batch *= strips, strip.height /= strips, strip.out_h = strip.height + halo, strip.pad_top = halo;
    const InterleavedPlan<T> plan(strip);
    const Strips<T> to = {
        dx,          s.channels * s.height * s.width, s.channels, s.height, s.width, strip.height, strips,
        strip.height};
    const Strips<const T> from = {dz,
                                  s.filters * s.out_h * s.out_w,
                                  s.filters,
                                  s.out_h,
                                  s.out_w,
                                  strip.out_h,
                                  strips,
                                  strip.height,
                                  s.pad_top - halo};
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        Scratch dz_memory(s.filters * plan.dy_plane, sizeof(T));
        Scratch dx_memory(s.channels * strip.height * s.width * lanes, sizeof(T));
        T *const rows = static_cast<T*>(dz_memory.data), *const result = static_cast<T*>(dx_memory.data);
        interleave_strips(rows, from, block * lanes, plan.used(block), plan.dy_layout());
        correlate_back_interleaved(plan, rows, packed, Part(0, strip.height), result);
        deinterleave_strips(to, block * lanes, plan.used(block), {0, s.width, s.width}, result);
    });
}

template <class T>
void conv2d_pool2d_backward(const Conv2dPool2dBackward<T>& a) {
    if (filters_as_lanes<T>(a.conv.shape)) return backward_few(a);
    const PooledPlan<T> plan(a.conv.shape, a.pool);
    const Conv2dShape& s = a.conv.shape;
    const bool cut = a.dx && plan.cuts.strips > 1;
    const int64_t size = a.dw ? s.filters * plan.depth : 0, partials = smaller(plan.blocks, weight_partials);
    const bool by_tiles =
        gradients_by_tiles(plan, plan.winograd(a.conv.winograd), a.dw != nullptr, a.dx && !cut);
    const InputFilters<T> weights(plan, a.conv.w, by_tiles && !cut, a.dx != nullptr);
    Scratch gradient(cut ? s.batch * s.filters * s.out_h * s.out_w : 0, sizeof(T));
    Scratch memory(partials * (size + s.filters), sizeof(T));
    T* const partial = static_cast<T*>(memory.data);
    T *const bias_partial = partial + partials * size, *const dz = static_cast<T*>(gradient.data);
    const int64_t tasks = plan.cuts.tasks;
    const int64_t dx_parts = !a.dx || cut ? 0 : by_tiles ? s.channels : s.height;
    const double work = (a.dx ? 2 : 1) * plan.work() * double(plan.blocks) / double(partials * tasks);
    parallel_for(partials * tasks, work, [&](int64_t index) {
        const int64_t i = index / tasks, task = index % tasks;
        backward_interleaved(plan, a,
                             BackwardTask<T>{.blocks = Part(plan.blocks, partials, i),
                                             .filters = plan.filters(task),
                                             .by_tiles = by_tiles,
                                             .dx_part = Part(dx_parts, tasks, task),
                                             .packed = weights.data,
                                             .dz = cut ? dz : nullptr,
                                             .weight_sum = partial + i * size,
                                             .bias_sum = bias_partial + i * s.filters});
    });
    if (cut) correlate_back_strips<T>(s, dz, weights.data, a.dx);
    if (a.dw) add_partials(a.dw, partial, partials, size);
    if (a.db) add_partials(a.db, bias_partial, partials, s.filters);
}

}  // namespace
}  // namespace tinygrad_nm
