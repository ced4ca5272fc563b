// The windows of a fused pooling, on planes of vectors (OH, OW, lane): the lanes are images
// (interleaved_body.h) or filters (conv2d_pool2d_few_body.h).
#pragma once
#include "cpu/conv2d_interleaved_weight_body.h"
#include "shared/conv2d_pool2d.h"

namespace tinygrad_nm {
namespace {

// One window of interleaved pixels: rows * columns vectors, rows `step` numbers apart.
template <class T>
struct Pixels {
    int64_t rows, columns, step;

    template <class Visit>  // visit(offset, index of the tap)
    TINYGRAD_NM_INLINE void each(const Visit& visit) const {
        if (rows == 2 && columns == 2) {  // the usual window, unrolled
            visit(0, 0), visit(Vec<T>::lanes, 1), visit(step, 2), visit(step + Vec<T>::lanes, 3);
            return;
        }
        int index = 0;
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) visit(i * step + j * Vec<T>::lanes, index++);
    }
};

struct MeanOfWindow {
    // x / (rows * columns). A power of two has an exact reciprocal, and a product is ten times faster.
    template <class T>
    static TINYGRAD_NM_INLINE Vec<T> share(const Pixels<T>& window, Vec<T> x) {
        const int64_t size = window.rows * window.columns;
        return size & (size - 1) ? x / Vec<T>::broadcast(T(size)) : x * Vec<T>::broadcast(T(1) / T(size));
    }
    template <class T>
    static TINYGRAD_NM_INLINE Vec<T> forward(const Pixels<T>& window, const T* y) {
        Vec<T> total = Vec<T>::zero();
        window.each([&](int64_t at, int) { total = total + Vec<T>::load(y + at); });
        return share(window, total);
    }
    // store(offset, y, dy) for each pixel of the window.
    template <class T, class Store>
    static TINYGRAD_NM_INLINE void backward(const Pixels<T>& window, const T* y, Vec<T> dout,
                                            const Store& store) {
        const Vec<T> part = share(window, dout);
        window.each([&](int64_t at, int tap) { store(at, tap, Vec<T>::load(y + at), part); });
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

// Where the windows lie in planes (OH, OW, lane) of y and in rows (margin + OW + margin, lane) of its
// gradient.
struct WindowGrid {
    PoolWindows pool;
    int64_t down, across;  // windows
    int64_t out_w, y_plane, dy_row;
};

// Row i of out (planes, down, across, lane) from y (planes, OH, OW, lane).
template <class T, class Pool>
void pool_interleaved(const WindowGrid& grid, const Part& planes, int64_t i, const T* y, T* out) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t row = grid.out_w * lanes;
    const Pixels<T> window = {grid.pool.height, grid.pool.width, row};
    for (int64_t o = 0; o < planes.count; ++o)
        for (int64_t j = 0; j < grid.across; ++j)
            Pool::forward(window, y + (planes.begin + o) * grid.y_plane + i * grid.pool.height * row +
                                      j * grid.pool.width * lanes)
                .store(out + ((o * grid.down + i) * grid.across + j) * lanes);
}

// dz (planes, rows, margin + OW + margin, lane) of window row i, for some planes, from dout
// (planes, down, across, lane) and y (planes, OH, OW, lane); bias_sums (planes, lane) += its sums over the
// pixels. Lanes without an image get 0.
template <class T, class Pool, class Formula>
void spread_interleaved(const WindowGrid& grid, const Conv2dPool2dBackward<T>& a, int used,
                        const Part& planes, int64_t i, const T* dout, const T* y, const GradientRows<T>& dz,
                        T* bias_sums) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t row = grid.out_w * lanes, filled = grid.across * a.pool.width;
    const Pixels<T> window = {a.pool.height, a.pool.width, row};
    const Vec<T> parameter = Vec<T>::broadcast(a.conv.parameter), zero = Vec<T>::zero();
    T flags[lanes];
    for (int n = 0; n < lanes; ++n) flags[n] = T(n < used);
    const Int<T> image = Vec<T>::load(flags) != zero;
    int64_t offsets[most_taps];  // of a window's pixels in dz
    window.each([&](int64_t at, int tap) { offsets[tap] = at / row * grid.dy_row + at % row; });

    for (int64_t o = planes.begin; o < planes.begin + planes.count;
         ++o, dout += grid.down * grid.across * lanes) {
        T* const to = dz.data + o * dz.plane;
        for (int64_t r = 0; r < a.pool.height; ++r) {
            store_zeros(to + r * grid.dy_row, margin);
            store_zeros(to + r * grid.dy_row + (margin + filled) * lanes, grid.out_w - filled + margin);
        }
        Vec<T> sum = Vec<T>::load(bias_sums + o * lanes);
        for (int64_t j = 0; j < grid.across; ++j) {
            const int64_t column = j * a.pool.width * lanes;
            const Vec<T> gradient = Vec<T>::load(dout + (i * grid.across + j) * lanes);
            Pool::backward(window, y + o * grid.y_plane + i * a.pool.height * row + column, gradient,
                           [&](int64_t, int tap, Vec<T> value, Vec<T> dy) {
                               const Int<T> kept = a.zeros_stay ? image & (dy != zero) : image;
                               const Vec<T> d = select(kept, Formula::backward(dy, value, parameter), zero);
                               d.store(to + margin * lanes + column + offsets[tap]);
                               sum = sum + d;
                           });
        }
        sum.store(bias_sums + o * lanes);
    }
}

template <class T>
void spread_interleaved(const WindowGrid& grid, const Conv2dPool2dBackward<T>& a, int used,
                        const Part& planes, int64_t i, const T* dout, const T* y, const GradientRows<T>& dz,
                        T* bias_sums) {
    with_activation(a.conv.activation, [&](auto formula) {
        using Formula = decltype(formula);
        if constexpr (!Formula::saves_input)
            with_pool(a.pool, [&](auto kind) {
                spread_interleaved<T, decltype(kind), Formula>(grid, a, used, planes, i, dout, y, dz,
                                                               bias_sums);
            });
    });
}

}  // namespace
}  // namespace tinygrad_nm
