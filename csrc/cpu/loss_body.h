// The softmax-cross-entropy kernels of one instruction set; shapes and sums in loss.h.
//
// Two layouts: with one position an example is a contiguous row of classes, and vectors run along it; else
// vectors run along the positions. Long sums are added in blocks, so that a million classes cost few digits.
#pragma once
#include "cpu/isa/vector_math.h"
#include "cpu/loss.h"
#include "cpu/parallel.h"

namespace tinygrad_nm {
namespace {

// Of the logits at one position: the largest, and the sum of exp(x - largest) less the 1 of a largest one.
// V is a number, or a vector of them for as many positions.
template <class V>
struct SoftmaxSum {
    V largest, rest;
};

// Vectors of NaN where the largest is not finite, else `rest` from its parts.
template <class V>
TINYGRAD_NM_INLINE SoftmaxSum<V> softmax_sum(V largest, V ties, V others) {
    return {largest, (ties - Number<V>::constant(1)) + others + (largest - largest)};
}

template <class T>
static inline T cross_entropy_at(const SoftmaxSum<T>& s, T label_logit) {
    return ::tinygrad_nm::math_log1p(s.rest) + (s.largest - label_logit);
}

// softmax - 1 at the label, from the sum over the other classes where that has more digits.
template <class T>
static inline T label_gradient(const SoftmaxSum<T>& s, T label_logit) {
    const T sum = 1 + s.rest;
    if (label_logit == s.largest) return -(s.rest / sum);
    return (::tinygrad_nm::math_exp(label_logit - s.largest) - sum) / sum;
}

// ---- rows: one position an example ----

template <class T>
TINYGRAD_NM_INLINE Vec<T> load_or_lowest(const T* p, int64_t n) {
    if (n >= Vec<T>::lanes) return Vec<T>::load(p);
    T lane[Vec<T>::lanes];
    for (int i = 0; i < Vec<T>::lanes; ++i) lane[i] = i < n ? p[i] : T(-HUGE_VAL);
    return Vec<T>::load(lane);
}

template <class T>
SoftmaxSum<T> softmax_row(const T* x, int64_t classes) {
    constexpr int lanes = Vec<T>::lanes;
    constexpr int64_t block = 64 * lanes;
    Vec<T> largest = Vec<T>::broadcast(T(-HUGE_VAL));
    for (int64_t c = 0; c < classes; c += lanes) largest = max(largest, load_or_lowest(x + c, classes - c));
    T m = largest.v[0];
    for (int i = 1; i < lanes; ++i)
        if (largest.v[i] > m || largest.v[i] != largest.v[i]) m = largest.v[i];

    const Vec<T> top = Vec<T>::broadcast(m), zero = Vec<T>::zero(), one = Vec<T>::broadcast(1);
    T ties = 0, others = 0;
    for (int64_t start = 0; start < classes; start += block) {
        const int64_t end = classes - start < block ? classes : start + block;
        Vec<T> block_ties = zero, block_others = zero;
        for (int64_t c = start; c < end; c += lanes) {
            const Vec<T> v = load_or_lowest(x + c, end - c);
            block_ties = block_ties + select(v == top, one, zero);
            block_others = block_others + select(v == top, zero, math_exp(v - top));
        }
        ties += sum(block_ties);
        others += sum(block_others);
    }
    return softmax_sum(m, ties, others);
}

// body(row) for each example, several to a task where rows are short.
template <class T, class Body>
void softmax_rows(const SoftmaxCrossEntropy<T>& a, const Body& body) {
    const int64_t rows = a.classes < 512 ? 1 + 512 / (a.classes + 1) : 1;
    parallel_for((a.examples + rows - 1) / rows, double(rows) * double(a.classes) * 20, [&](int64_t task) {
        const int64_t start = task * rows, end = a.examples - start < rows ? a.examples : start + rows;
        for (int64_t row = start; row < end; ++row) body(row);
    });
}

template <class T>
void cross_entropy_row(const SoftmaxCrossEntropy<T>& a, int64_t row) {
    const int64_t label = a.labels[row];
    const T* x = a.logits + row * a.classes;
    a.out[row] = label == a.ignore_index ? T(0) : cross_entropy_at(softmax_row(x, a.classes), x[label]);
}

template <class T>
void cross_entropy_backward_row(const SoftmaxCrossEntropy<T>& a, int64_t row) {
    constexpr int lanes = Vec<T>::lanes;
    const int64_t label = a.labels[row];
    const T* x = a.logits + row * a.classes;
    T* out = a.out + row * a.classes;
    if (label == a.ignore_index) {
        for (int64_t c = 0; c < a.classes; ++c) out[c] = 0;
        return;
    }
    const SoftmaxSum<T> s = softmax_row(x, a.classes);
    const Vec<T> top = Vec<T>::broadcast(s.largest), sum = Vec<T>::broadcast(1 + s.rest);
    const Vec<T> dloss = Vec<T>::broadcast(a.dloss[row]);
    int64_t c = 0;
    for (; c + lanes <= a.classes; c += lanes)
        (dloss * (math_exp(Vec<T>::load(x + c) - top) / sum)).store(out + c);
    if (const int n = int(a.classes - c))
        (dloss * (math_exp(Vec<T>::load(x + c, n) - top) / sum)).store(out + c, n);
    out[label] = a.dloss[row] * label_gradient(s, x[label]);
}

// ---- columns: vectors of positions ----

// `width` positions of an example, the first of them `start`.
template <class T>
struct SoftmaxColumn {
    const SoftmaxCrossEntropy<T>& a;
    int64_t example, start;
    int width;

    int64_t offset(int64_t c) const { return (example * a.classes + c) * a.positions + start; }
    TINYGRAD_NM_INLINE Vec<T> logits(int64_t c) const {
        const T* p = a.logits + offset(c);
        return width == Vec<T>::lanes ? Vec<T>::load(p) : Vec<T>::load(p, width);
    }
};

template <class T>
SoftmaxSum<Vec<T>> softmax_column(const SoftmaxColumn<T>& column) {
    constexpr int64_t block = 128;
    const int64_t classes = column.a.classes;
    Vec<T> top = Vec<T>::broadcast(T(-HUGE_VAL));
    for (int64_t c = 0; c < classes; ++c) top = max(top, column.logits(c));
    const Vec<T> zero = Vec<T>::zero(), one = Vec<T>::broadcast(1);
    Vec<T> ties = zero, others = zero;
    for (int64_t start = 0; start < classes; start += block) {
        const int64_t end = classes - start < block ? classes : start + block;
        Vec<T> block_others = zero;
        for (int64_t c = start; c < end; ++c) {
            const Vec<T> v = column.logits(c);
            ties = ties + select(v == top, one, zero);
            block_others = block_others + select(v == top, zero, math_exp(v - top));
        }
        others = others + block_others;
    }
    return softmax_sum(top, ties, others);
}

template <class T>
void cross_entropy_column(const SoftmaxColumn<T>& column) {
    const SoftmaxCrossEntropy<T>& a = column.a;
    const SoftmaxSum<Vec<T>> s = softmax_column(column);
    const int64_t first = column.example * a.positions + column.start;
    for (int i = 0; i < column.width; ++i) {
        const int64_t label = a.labels[first + i];
        a.out[first + i] = label == a.ignore_index
                               ? T(0)
                               : cross_entropy_at(SoftmaxSum<T>{s.largest.v[i], s.rest.v[i]},
                                                  a.logits[column.offset(label) + i]);
    }
}

template <class T>
void cross_entropy_backward_column(const SoftmaxColumn<T>& column) {
    const SoftmaxCrossEntropy<T>& a = column.a;
    const SoftmaxSum<Vec<T>> s = softmax_column(column);
    const int64_t first = column.example * a.positions + column.start;
    const int64_t* labels = a.labels + first;
    const Vec<T> zero = Vec<T>::zero(), dloss = Vec<T>::load(a.dloss + first, column.width);
    T flags[Vec<T>::lanes] = {};
    for (int i = 0; i < column.width; ++i) flags[i] = labels[i] == a.ignore_index;
    const Int<T> ignored = Vec<T>::load(flags) != zero;
    for (int64_t c = 0; c < a.classes; ++c) {
        const Vec<T> p = math_exp(column.logits(c) - s.largest) / (Vec<T>::broadcast(1) + s.rest);
        select(ignored, zero, dloss * p).store(a.out + column.offset(c), column.width);
    }
    for (int i = 0; i < column.width; ++i) {
        if (labels[i] == a.ignore_index) continue;
        const int64_t at = column.offset(labels[i]) + i;
        a.out[at] =
            a.dloss[first + i] * label_gradient(SoftmaxSum<T>{s.largest.v[i], s.rest.v[i]}, a.logits[at]);
    }
}

constexpr int64_t softmax_task = 64;  // positions

template <class T, class Body>
void softmax_columns(const SoftmaxCrossEntropy<T>& a, const Body& body) {
    constexpr int lanes = Vec<T>::lanes;
    const int64_t tasks = (a.positions + softmax_task - 1) / softmax_task;
    parallel_for(a.examples * tasks, double(a.classes) * softmax_task * 20, [&](int64_t task) {
        const int64_t start = task % tasks * softmax_task;
        const int64_t end = a.positions - start < softmax_task ? a.positions : start + softmax_task;
        for (int64_t p = start; p < end; p += lanes)
            body(SoftmaxColumn<T>{a, task / tasks, p, int(end - p < lanes ? end - p : lanes)});
    });
}

template <class T>
void softmax_cross_entropy_forward_kernel(const SoftmaxCrossEntropy<T>& a) {
    if (a.positions == 1) return softmax_rows(a, [&](int64_t row) { cross_entropy_row(a, row); });
    softmax_columns(a, [](const SoftmaxColumn<T>& column) { cross_entropy_column(column); });
}

template <class T>
void softmax_cross_entropy_backward_kernel(const SoftmaxCrossEntropy<T>& a) {
    if (a.positions == 1) return softmax_rows(a, [&](int64_t row) { cross_entropy_backward_row(a, row); });
    softmax_columns(a, [](const SoftmaxColumn<T>& column) { cross_entropy_backward_column(column); });
}

}  // namespace
}  // namespace tinygrad_nm
