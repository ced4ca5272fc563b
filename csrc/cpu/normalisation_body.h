// The local response normalisation kernels of one instruction set; shapes and sums in normalisation.h.
#pragma once
#include "cpu/arena.h"
#include "cpu/isa/vector_math.h"
#include "cpu/normalisation.h"
#include "cpu/parallel.h"

namespace tinygrad_nm {
namespace {

// Channels [first, last) of one group in a column of `width` positions, wherever the position stands in a
// vector.
template <class T>
struct LrnColumn {
    const LocalResponseNorm<T>& a;
    int64_t offset;  // of the group's first channel at the first position
    int64_t channels;
    int width;

    TINYGRAD_NM_INLINE Vec<T> load(const T* p, int64_t channel) const {
        p += offset + channel * a.plane;
        return width == Vec<T>::lanes ? Vec<T>::load(p) : Vec<T>::load(p, width);
    }
    TINYGRAD_NM_INLINE void store(Vec<T> v, int64_t channel) const {
        T* p = a.out + offset + channel * a.plane;
        width == Vec<T>::lanes ? v.store(p) : v.store(p, width);
    }
    // The window of `before` channels below c and `after` above it, cut at the group's ends.
    TINYGRAD_NM_INLINE int64_t first(int64_t c, int64_t before) const { return c > before ? c - before : 0; }
    TINYGRAD_NM_INLINE int64_t last(int64_t c, int64_t after) const {
        return after < channels - c ? c + after + 1 : channels;
    }
    // d[c]: summed afresh for each channel, a running sum would keep rounding errors, Inf and NaN.
    TINYGRAD_NM_INLINE Vec<T> denominator(int64_t c) const {
        Vec<T> sum = Vec<T>::zero();
        const int64_t end = last(c, (a.size - 1) / 2);
        for (int64_t j = first(c, a.size / 2); j < end; ++j) {
            const Vec<T> x = load(a.x, j);
            sum = fma(x, x, sum);
        }
        return fma(sum, Vec<T>::broadcast(T(a.alpha)), Vec<T>::broadcast(T(a.k)));
    }
};

// d^beta; the paper's beta 0.75 as two square roots, within 2 units in the last place.
template <class T>
TINYGRAD_NM_INLINE Vec<T> lrn_power(Vec<T> d, double beta) {
    if (beta == 0.75) {
        const Vec<T> root = math_sqrt(d);
        return root * math_sqrt(root);
    }
    return math_pow(d, T(beta));
}

template <class T>
void lrn_forward_column(const LrnColumn<T>& column) {
    for (int64_t c = 0; c < column.channels; ++c)
        column.store(column.load(column.a.x, c) / lrn_power(column.denominator(c), column.a.beta), c);
}

// First dy d^-beta to out and the sum's terms to `terms`, one vector a channel; then the sums.
template <class T>
void lrn_backward_column(const LrnColumn<T>& column, T* terms) {
    const LocalResponseNorm<T>& a = column.a;
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t c = 0; c < column.channels; ++c) {
        const Vec<T> d = column.denominator(c);
        const Vec<T> scaled = column.load(a.dy, c) / lrn_power(d, a.beta);
        column.store(scaled, c);
        (scaled * column.load(a.x, c) / d).store(terms + c * lanes);
    }
    const Vec<T> factor = Vec<T>::broadcast(T(-2 * a.alpha * a.beta));
    for (int64_t i = 0; i < column.channels; ++i) {
        Vec<T> sum = Vec<T>::zero();
        const int64_t end = column.last(i, a.size / 2);
        for (int64_t c = column.first(i, (a.size - 1) / 2); c < end; ++c)
            sum = sum + Vec<T>::load(terms + c * lanes);
        column.store(fma(factor * column.load(a.x, i), sum, column.load(a.out, i)), i);
    }
}

constexpr int64_t lrn_task = 64;  // positions

// A task is one group of one example at `lrn_task` positions, one vector after the other.
template <class T, class Body>
void lrn_columns(const LocalResponseNorm<T>& a, double work_per_number, const Body& body) {
    constexpr int lanes = Vec<T>::lanes;
    const int64_t tasks = (a.plane + lrn_task - 1) / lrn_task, channels = a.channels / a.groups;
    const double work = double(channels) * lrn_task * work_per_number;
    parallel_for(a.examples * a.groups * tasks, work, [&](int64_t task) {
        const int64_t plane = task / tasks * channels * a.plane, start = task % tasks * lrn_task;
        const int64_t end = a.plane - start < lrn_task ? a.plane : start + lrn_task;
        for (int64_t p = start; p < end; p += lanes)
            body(LrnColumn<T>{a, plane + p, channels, int(end - p < lanes ? end - p : lanes)});
    });
}

template <class T>
void local_response_norm_forward(const LocalResponseNorm<T>& a) {
    const double power = a.beta == 0.75 ? 4 : 100;
    lrn_columns(a, double(a.size) + power, [](const LrnColumn<T>& column) { lrn_forward_column(column); });
}

template <class T>
void local_response_norm_backward(const LocalResponseNorm<T>& a) {
    const double power = a.beta == 0.75 ? 8 : 100;
    lrn_columns(a, 2 * double(a.size) + power, [](const LrnColumn<T>& column) {
        Scratch terms(column.channels * Vec<T>::lanes, sizeof(T));
        lrn_backward_column(column, static_cast<T*>(terms.data));
    });
}

}  // namespace
}  // namespace tinygrad_nm
