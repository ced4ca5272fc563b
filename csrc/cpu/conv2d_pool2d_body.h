// Convolution, activation and pooling fused, on blocks of interleaved images (conv2d_interleaved_body.h);
// shapes and sums in conv2d_pool2d.h.
#pragma once
#include "cpu/conv2d_interleaved_weight_body.h"
#include "cpu/conv2d_pool2d.h"

namespace tinygrad_nm {
namespace {

template <class T>
int64_t conv2d_pool2d_kept(const Conv2dShape& s, Activation activation, const PoolWindows& pool) {
    bool from_output = true;
    with_activation(activation, [&](auto formula) { from_output = !decltype(formula)::saves_input; });
    if (!from_output || pool.height * pool.width > most_taps || !interleaving_pays<T>(s)) return 0;
    const InterleavedPlan<T> plan(s);
    return plan.blocks * s.filters * plan.y_plane;
}

// One window of interleaved pixels: rows * columns vectors, rows `step` numbers apart.
template <class T>
struct Pixels {
    int64_t rows, columns, step;

    template <class Visit>  // visit(offset, index of the tap)
    TINYGRAD_NM_INLINE void each(const Visit& visit) const {
        int index = 0;
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) visit(i * step + j * Vec<T>::lanes, index++);
    }
};

struct MeanOfWindow {
    template <class T>
    static TINYGRAD_NM_INLINE Vec<T> forward(const Pixels<T>& window, const T* y) {
        Vec<T> total = Vec<T>::zero();
        window.each([&](int64_t at, int) { total = total + Vec<T>::load(y + at); });
        return total / Vec<T>::broadcast(T(window.rows) * T(window.columns));
    }
    // store(offset, y, dy) for each pixel of the window.
    template <class T, class Store>
    static TINYGRAD_NM_INLINE void backward(const Pixels<T>& window, const T* y, Vec<T> dout,
                                            const Store& store) {
        const Vec<T> share = dout / Vec<T>::broadcast(T(window.rows) * T(window.columns));
        window.each([&](int64_t at, int tap) { store(at, tap, Vec<T>::load(y + at), share); });
    }
};

// NaN wins, then the first of the largest, as in pool2d_body.h.
struct MaximumOfWindow {
    template <class T>
    static TINYGRAD_NM_INLINE Vec<T> choose(const Pixels<T>& window, const T* y, Int<T>& chosen) {
        Vec<T> best = Vec<T>::broadcast(T(-__builtin_inf()));
        chosen = Int<T>{};
        window.each([&](int64_t at, int tap) {
            const Vec<T> value = Vec<T>::load(y + at);
            const Int<T> wins = (value > best) | (is_nan(value) & ~is_nan(best));
            best = select(wins, value, best);
            chosen = wins ? Int<T>{} + tap : chosen;
        });
        return best;
    }
    template <class T>
    static TINYGRAD_NM_INLINE Vec<T> forward(const Pixels<T>& window, const T* y) {
        Int<T> chosen;
        return choose(window, y, chosen);
    }
    template <class T, class Store>
    static TINYGRAD_NM_INLINE void backward(const Pixels<T>& window, const T* y, Vec<T> dout,
                                            const Store& store) {
        Int<T> chosen;
        choose(window, y, chosen);
        window.each([&](int64_t at, int tap) {
            store(at, tap, Vec<T>::load(y + at), select(chosen == Int<T>{} + tap, dout, Vec<T>::zero()));
        });
    }
};

template <class Visit>
void with_pool(const PoolWindows& pool, const Visit& visit) {
    if (pool.maximum) return visit(MaximumOfWindow{});
    visit(MeanOfWindow{});
}

// out (O, OH / height, OW / width, lane) from y (O, OH, OW, lane), of one block.
template <class T, class Pool>
void pool_interleaved(const InterleavedPlan<T>& plan, const PoolWindows& pool, const T* y, T* out) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t row = plan.s.out_w * lanes, down = plan.s.out_h / pool.height,
                  across = plan.s.out_w / pool.width;
    const Pixels<T> window = {pool.height, pool.width, row};
    for (int64_t o = 0; o < plan.s.filters; ++o)
        for (int64_t i = 0; i < down; ++i)
            for (int64_t j = 0; j < across; ++j, out += lanes)
                Pool::forward(window, y + o * plan.y_plane + i * pool.height * row + j * pool.width * lanes)
                    .store(out);
}

template <class T>
void conv2d_pool2d_forward(const Conv2dPool2dForward<T>& a) {
    const InterleavedPlan<T> plan(a.conv.shape);
    const Conv2dShape& s = a.conv.shape;
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t pooled = s.filters * (s.out_h / a.pool.height) * (s.out_w / a.pool.width);
    Scratch weights(s.filters * plan.depth, sizeof(T));
    T* const packed = static_cast<T*>(weights.data);
    pack_filters(plan, a.conv.w, packed);
    const Epilogue<T> epilogue = {a.conv.bias, BiasAxis::rows, a.conv.activation, a.conv.parameter};
    parallel_for(plan.blocks, plan.work(), [&](int64_t block) {
        const int64_t size = s.filters * plan.y_plane;
        Scratch x_memory(s.channels * plan.x_plane, sizeof(T)), y_memory(a.y ? 0 : size, sizeof(T));
        Scratch out_memory(pooled * lanes, sizeof(T));
        T* const x = static_cast<T*>(x_memory.data);
        T* const y = a.y ? a.y + block * size : static_cast<T*>(y_memory.data);
        T* const out = static_cast<T*>(out_memory.data);
        interleave_input(plan, a.conv.x, block, x);
        correlate_interleaved(plan, x, packed, epilogue, y);
        with_pool(a.pool, [&](auto kind) { pool_interleaved<T, decltype(kind)>(plan, a.pool, y, out); });
        deinterleave(a.out + block * lanes * pooled, pooled, plan.used(block), out, pooled);
    });
}

// dz (O, OH, margin + OW + margin, lane) of one block from dout (O, OH / height, OW / width, lane) and y (O,
// OH, OW, lane); bias_sums (O, lane) += its sums over the pixels. Lanes without an image get 0.
template <class T, class Pool, class Formula>
void spread_interleaved(const InterleavedPlan<T>& plan, const Conv2dPool2dBackward<T>& a, int used,
                        const T* dout, const T* y, T* dz, T* bias_sums) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = plan.s;
    const int64_t down = s.out_h / a.pool.height, across = s.out_w / a.pool.width, row = s.out_w * lanes;
    const Pixels<T> window = {a.pool.height, a.pool.width, row};
    const Vec<T> parameter = Vec<T>::broadcast(a.conv.parameter), zero = Vec<T>::zero();
    T flags[lanes];
    for (int n = 0; n < lanes; ++n) flags[n] = T(n < used);
    const Int<T> image = Vec<T>::load(flags) != zero;
    int64_t offsets[most_taps];  // of a window's pixels in dz
    window.each([&](int64_t at, int tap) { offsets[tap] = at / row * plan.dy_row + at % row; });

    memset(dz, 0, size_t(s.filters * plan.dy_plane) * sizeof(T));
    for (int64_t o = 0; o < s.filters; ++o) {
        Vec<T> sum = Vec<T>::load(bias_sums + o * lanes);
        for (int64_t i = 0; i < down; ++i)
            for (int64_t j = 0; j < across; ++j, dout += lanes) {
                const int64_t column = j * a.pool.width * lanes;
                T* const to =
                    dz + o * plan.dy_plane + i * a.pool.height * plan.dy_row + margin * lanes + column;
                const T* const from = y + o * plan.y_plane + i * a.pool.height * row + column;
                Pool::backward(
                    window, from, Vec<T>::load(dout), [&](int64_t, int tap, Vec<T> value, Vec<T> dy) {
                        const Int<T> kept = a.zeros_stay ? image & (dy != zero) : image;
                        const Vec<T> d = select(kept, Formula::backward(dy, value, parameter), zero);
                        d.store(to + offsets[tap]);
                        sum = sum + d;
                    });
            }
        sum.store(bias_sums + o * lanes);
    }
}

template <class T>
void spread_interleaved(const InterleavedPlan<T>& plan, const Conv2dPool2dBackward<T>& a, int used,
                        const T* dout, const T* y, T* dz, T* bias_sums) {
    with_activation(a.conv.activation, [&](auto formula) {
        using Formula = decltype(formula);
        if constexpr (!Formula::saves_input)
            with_pool(a.pool, [&](auto kind) {
                spread_interleaved<T, decltype(kind), Formula>(plan, a, used, dout, y, dz, bias_sums);
            });
    });
}

// The blocks of one partial sum: weight_sum (O, C/groups * KH * KW), bias_sum (O,); dx of these images.
template <class T>
void backward_interleaved(const InterleavedPlan<T>& plan, const Conv2dPool2dBackward<T>& a, const T* packed,
                          const Part& blocks, T* weight_sum, T* bias_sum) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = plan.s;
    const int64_t size = a.dw ? s.filters * plan.depth : 0, image = s.channels * s.height * s.width;
    const int64_t pooled = s.filters * (s.out_h / a.pool.height) * (s.out_w / a.pool.width);
    Scratch x_memory(a.dw ? s.channels * plan.x_plane : 0, sizeof(T));
    Scratch dz_memory(s.filters * plan.dy_plane, sizeof(T)), dout_memory(pooled * lanes, sizeof(T));
    Scratch dx_memory(a.dx ? image * lanes : 0, sizeof(T)),
        sums_memory((size + s.filters) * lanes, sizeof(T));
    T *const x = static_cast<T*>(x_memory.data), *const dz = static_cast<T*>(dz_memory.data);
    T *const dout = static_cast<T*>(dout_memory.data), *const dx = static_cast<T*>(dx_memory.data);
    T *const sums = static_cast<T*>(sums_memory.data), *const bias_sums = sums + size * lanes;
    memset(sums, 0, size_t((size + s.filters) * lanes) * sizeof(T));
    for (int64_t block = blocks.begin; block < blocks.begin + blocks.count; ++block) {
        const int used = plan.used(block);
        interleave(dout, a.dout + block * lanes * pooled, pooled, used, pooled);
        spread_interleaved(plan, a, used, dout, a.y + block * s.filters * plan.y_plane, dz, bias_sums);
        if (a.dw) {
            interleave_input(plan, a.conv.x, block, x);
            add_weight_gradient(plan, x, dz, sums);
        }
        if (a.dx) {
            correlate_back_interleaved(plan, dz, packed, dx);
            deinterleave(a.dx + block * lanes * image, image, used, dx, image);
        }
    }
    for (int64_t i = 0; i < size; ++i) weight_sum[i] = sum(Vec<T>::load(sums + i * lanes));
    for (int64_t o = 0; o < s.filters; ++o) bias_sum[o] = sum(Vec<T>::load(bias_sums + o * lanes));
}

template <class T>
void conv2d_pool2d_backward(const Conv2dPool2dBackward<T>& a) {
    const InterleavedPlan<T> plan(a.conv.shape);
    const Conv2dShape& s = a.conv.shape;
    const int64_t size = a.dw ? s.filters * plan.depth : 0, partials = smaller(plan.blocks, weight_partials);
    Scratch weights(a.dx ? s.filters * plan.depth : 0, sizeof(T));
    Scratch memory(partials * (size + s.filters), sizeof(T));
    T *const packed = static_cast<T*>(weights.data), *const partial = static_cast<T*>(memory.data);
    T* const bias_partial = partial + partials * size;
    if (a.dx) pack_channels(plan, a.conv.w, packed);
    const double work = (a.dx ? 2 : 1) * plan.work() * double(plan.blocks) / double(partials);
    parallel_for(partials, work, [&](int64_t index) {
        backward_interleaved(plan, a, packed, Part(plan.blocks, partials, index), partial + index * size,
                             bias_partial + index * s.filters);
    });
    if (a.dw) add_partials(a.dw, partial, partials, size);
    if (a.db) add_partials(a.db, bias_partial, partials, s.filters);
}

}  // namespace
}  // namespace tinygrad_nm
