// The three passes of a convolution on interleaved images, by plain sums (conv2d_interleaved_body.h,
// conv2d_interleaved_weight_body.h) or by Winograd's tiles (conv2d_interleaved_winograd_body.h).
#pragma once
#include "cpu/conv2d_interleaved_winograd_gradient_body.h"

namespace tinygrad_nm {
namespace {

// Filters as the outputs' sums read them.
template <class T>
struct OutputFilters {
    const bool by_tiles;
    Scratch memory;
    T* const data;

    OutputFilters(const InterleavedPlan<T>& plan, const T* w, Winograd winograd)
        : by_tiles(outputs_by_tiles(plan, winograd)),
          memory(by_tiles ? transformed_filters(plan.s) : plan.s.filters * plan.depth, sizeof(T)),
          data(static_cast<T*>(memory.data)) {
        by_tiles ? transform_for_outputs(plan, w, data) : pack_filters(plan, w, data);
    }
    // How many times `unit` rows of outputs are best computed at once: rows of an odd number of tiles leave
    // the last one of each without a neighbour.
    int64_t rows_at_once(const InterleavedPlan<T>& plan, int64_t unit) const {
        const bool odd = plan.s.out_w / tile_side * (unit / tile_side) % tiles_beside != 0;
        return by_tiles && odd ? 2 * unit : unit;
    }
    void correlate(const InterleavedPlan<T>& plan, const T* x, const Epilogue<T>& epilogue,
                   const Part& filters, const Part& rows, T* y) const {
        const auto compute = by_tiles ? correlate_winograd_interleaved<T> : correlate_interleaved<T>;
        compute(plan, x, data, epilogue, filters, rows, y);
    }
};

// ... and as those of dx read them.
template <class T>
struct InputFilters {
    const bool by_tiles;
    Scratch memory;
    T* const data;

    InputFilters(const InterleavedPlan<T>& plan, const T* w, bool by_tiles, bool wanted = true)
        : by_tiles(by_tiles),
          memory(!wanted    ? 0
                 : by_tiles ? transformed_filters(plan.s)
                            : plan.s.filters * plan.depth,
                 sizeof(T)),
          data(static_cast<T*>(memory.data)) {
        if (wanted) by_tiles ? transform_for_inputs(plan, w, data) : pack_channels(plan, w, data);
    }
};

// out (N, C, H, W): some channels of dx (C, height, width, lane) of one block, padded as x.
template <class T>
void write_tiles_of_inputs(const InterleavedPlan<T>& plan, int64_t block, const Part& channels, const T* dx,
                           T* out) {
    const Conv2dShape& image = plan.image;
    const int64_t plane = image.height * image.width;
    for (int64_t c = channels.begin; c < channels.begin + channels.count; ++c)
        deinterleave_strips<T>(
            {out + c * plane, image.channels * plane, 1, image.height, image.width, image.height},
            block * plan.lanes, plan.used(block), {image.pad_left, image.width, plan.width},
            dx + c * plan.x_plane + image.pad_top * plan.width * plan.lanes);
}

// out (N, O, OH, OW) = activation(bias + correlation of x (N, C, H, W) with w (O, C/groups, KH, KW)).
template <class T>
void conv2d_forward_interleaved(const Conv2dForward<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    const OutputFilters<T> filters(plan, a.w, a.winograd);
    const Epilogue<T> epilogue = {a.bias, BiasAxis::rows, a.activation, a.parameter};
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)), y_memory(s.filters * plan.y_plane, sizeof(T));
        T *const x = static_cast<T*>(x_memory.data), *const y = static_cast<T*>(y_memory.data);
        plan.interleave_x(a.x, block, x);
        const int64_t rows = filters.rows_at_once(plan, tile_side);
        for (int64_t row = 0; row < s.out_h; row += rows)
            filters.correlate(plan, x, epilogue, plan.filters(), Part(row, smaller(rows, s.out_h - row)), y);
        deinterleave_strips(plan.rows_of_y(a.out, plan.filters()), block * plan.lanes, plan.used(block),
                            {0, s.out_w, s.out_w}, y);
    });
}

// out (N, C, H, W) from dy (N, O, OH, OW), w (O, C/groups, KH, KW): the sum in conv2d.h.
template <class T>
void conv2d_backward_input_interleaved(const Conv2dBackwardInput<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    const InputFilters<T> filters(plan, a.w, gradients_by_tiles(plan, a.winograd, false, true));
    const int64_t image =
        filters.by_tiles ? s.channels * plan.x_plane / plan.lanes : s.channels * s.height * s.width;
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        Scratch dy_memory(s.filters * plan.dy_plane, sizeof(T)), dx_memory(image * plan.lanes, sizeof(T));
        T *const dy = static_cast<T*>(dy_memory.data), *const dx = static_cast<T*>(dx_memory.data);
        const int64_t begin = block * plan.lanes;
        interleave_strips(dy, plan.rows_of_y(a.dy, plan.filters()), begin, plan.used(block),
                          plan.dy_layout());
        if (filters.by_tiles) {
            add_tile_gradients<T>(plan, nullptr, dy,
                                  {Part(0, 0), plan.channels(), filters.data, nullptr, false, dx});
            write_tiles_of_inputs(plan, block, plan.channels(), dx, a.out);
        } else {
            correlate_back_interleaved(plan, dy, filters.data, Part(0, s.height), dx);
            deinterleave(a.out + begin * image, image, plan.used(block), dx, image);
        }
    });
}

// out (O, C/groups, KH, KW) from x (N, C, H, W), dy (N, O, OH, OW): the sum in conv2d.h. The blocks are dealt
// to a number of partial sums that depends on the shape alone.
template <class T>
void conv2d_backward_weight_interleaved(const Conv2dBackwardWeight<T>& a) {
    const InterleavedPlan<T> plan(a.shape);
    const Conv2dShape& s = a.shape;
    constexpr int64_t lanes = Vec<T>::lanes;
    const bool by_tiles = gradients_by_tiles(plan, a.winograd, true, false);
    const int64_t size = s.filters * plan.depth, partials = smaller(plan.blocks, weight_partials);
    Scratch memory(partials * size, sizeof(T));
    T* const partial = static_cast<T*>(memory.data);
    parallel_for(partials, plan.work() * double(plan.blocks) / double(partials), [&](int64_t index) {
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)),
            dy_memory(s.filters * plan.dy_plane, sizeof(T));
        Scratch sums_memory(size * lanes, sizeof(T));
        Scratch tiles_memory(by_tiles ? winograd_points * sums_point<T>(s, plan.filters()) : 0, sizeof(T));
        T *const x = static_cast<T*>(x_memory.data), *const dy = static_cast<T*>(dy_memory.data);
        T *const sums = static_cast<T*>(sums_memory.data), *const tiles = static_cast<T*>(tiles_memory.data);
        const Part part(plan.blocks, partials, index);
        for (int64_t block = part.begin; block < part.begin + part.count; ++block) {
            plan.interleave_x(a.x, block, x);
            interleave_strips(dy, plan.rows_of_y(a.dy, plan.filters()), block * lanes, plan.used(block),
                              plan.dy_layout());
            const bool start = block == part.begin;
            if (by_tiles)
                add_tile_gradients<T>(plan, x, dy,
                                      {plan.filters(), Part(0, 0), nullptr, tiles, start, nullptr});
            else
                add_weight_gradient(plan, x, {dy, plan.dy_plane, 0, s.out_h}, plan.filters(), start, sums);
        }
        if (by_tiles) finish_weight_tiles(plan, plan.filters(), tiles, sums);
        add_lanes(partial + index * size, sums, size);
    });
    add_partials(a.out, partial, partials, size);
}

}  // namespace
}  // namespace tinygrad_nm
