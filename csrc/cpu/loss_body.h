// The softmax-cross-entropy kernels of one instruction set; shapes and sums in loss.h.
//
// Vectors run along the positions. With one position an example is a contiguous row of classes: short rows
// are transposed, as many as a vector has lanes, into positions in scratch memory; long ones have vectors
// along the row. Long sums are added in blocks, so that a million classes cost few digits.
#pragma once
#include "cpu/arena.h"
#include "cpu/isa/vector_math.h"
#include "cpu/parallel.h"
#include "shared/loss.h"

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

template <class V>
TINYGRAD_NM_INLINE V cross_entropy_at(const SoftmaxSum<V>& s, V label_logit) {
    return math_log1p(s.rest) + (s.largest - label_logit);
}

// softmax - 1 at the label, from the sum over the other classes where that has more digits.
template <class T>
static inline T label_gradient(const SoftmaxSum<T>& s, T label_logit) {
    const T sum = 1 + s.rest;
    if (label_logit == s.largest) return -(s.rest / sum);
    return (math_exp(Vec<T>::broadcast(label_logit - s.largest)).v[0] - sum) / sum;
}

// ---- rows: one position an example ----

template <class T>
TINYGRAD_NM_INLINE Vec<T> load_or_lowest(const T* p, int64_t n) {
    if (n >= Vec<T>::lanes) return Vec<T>::load(p);
    T lane[Vec<T>::lanes];
    for (int i = 0; i < Vec<T>::lanes; ++i) lane[i] = i < n ? p[i] : T(-HUGE_VAL);
    return Vec<T>::load(lane);
}

// A NaN may be passed over: the sum of exponentials has it. Four at a time, not to wait for each comparison.
template <class T>
T largest_of_row(const T* x, int64_t classes) {
    constexpr int lanes = Vec<T>::lanes;
    Vec<T> most[4];
    for (Vec<T>& m : most) m = Vec<T>::broadcast(T(-HUGE_VAL));
    int64_t c = 0;
    for (; c + 4 * lanes <= classes; c += 4 * lanes)
        for (int i = 0; i < 4; ++i) most[i] = at_least(most[i], Vec<T>::load(x + c + i * lanes));
    for (; c < classes; c += lanes) most[0] = at_least(most[0], load_or_lowest(x + c, classes - c));
    const Vec<T> largest = at_least(at_least(most[0], most[1]), at_least(most[2], most[3]));
    T m = largest.v[0];
    for (int i = 1; i < lanes; ++i)
        if (largest.v[i] > m) m = largest.v[i];
    return m;
}

// Also, unless `exps` is null, exp(x - largest) to exps (classes).
template <class T>
SoftmaxSum<T> softmax_row(const T* x, int64_t classes, T* exps) {
    constexpr int lanes = Vec<T>::lanes;
    constexpr int64_t block = 64 * lanes;
    const T m = largest_of_row(x, classes);
    const Vec<T> top = Vec<T>::broadcast(m), zero = Vec<T>::zero(), one = Vec<T>::broadcast(1);
    T ties = 0, others = 0;
    for (int64_t start = 0; start < classes; start += block) {
        const int64_t end = classes - start < block ? classes : start + block;
        Vec<T> block_ties = zero, block_others = zero;
        const auto add = [&](Vec<T> v, Vec<T> e) TINYGRAD_NM_INLINE_LAMBDA {
            const Int<T> tie = v == top;
            block_ties = block_ties + select(tie, one, zero);
            block_others = block_others + select(tie, zero, e);
        };
        int64_t c = start;
        for (; c + lanes <= end; c += lanes) {
            const Vec<T> v = Vec<T>::load(x + c), e = math_exp(v - top);
            add(v, e);
            if (exps) e.store(exps + c);
        }
        if (c < end) {
            const Vec<T> v = load_or_lowest(x + c, end - c), e = math_exp(v - top);
            add(v, e);
            if (exps) e.store(exps + c, int(end - c));
        }
        ties += sum(block_ties);
        others += sum(block_others);
    }
    return softmax_sum(m, ties, others);
}

template <class T>
void cross_entropy_row(const SoftmaxCrossEntropy<T>& a, int64_t row) {
    const int64_t label = a.labels[row];
    const T* x = a.logits + row * a.classes;
    if (label == a.ignore_index) {
        a.out[row] = 0;
        return;
    }
    const SoftmaxSum<T> s = softmax_row<T>(x, a.classes, nullptr);
    a.out[row] = cross_entropy_at(SoftmaxSum<Vec<T>>{Vec<T>::broadcast(s.largest), Vec<T>::broadcast(s.rest)},
                                  Vec<T>::broadcast(x[label]))
                     .v[0];
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
    const SoftmaxSum<T> s = softmax_row(x, a.classes, out);
    const Vec<T> share = Vec<T>::broadcast(1 / (1 + s.rest)), dloss = Vec<T>::broadcast(a.dloss[row]);
    int64_t c = 0;
    for (; c + lanes <= a.classes; c += lanes) (dloss * (Vec<T>::load(out + c) * share)).store(out + c);
    if (const int n = int(a.classes - c)) (dloss * (Vec<T>::load(out + c, n) * share)).store(out + c, n);
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

// Also, unless `exps` is null, exp(x - largest) to exps (classes, lanes).
template <class T>
SoftmaxSum<Vec<T>> softmax_column(const SoftmaxColumn<T>& column, T* exps) {
    constexpr int64_t block = 128;
    const int64_t classes = column.a.classes;
    Vec<T> top = Vec<T>::broadcast(T(-HUGE_VAL));
    for (int64_t c = 0; c < classes; ++c) top = at_least(top, column.logits(c));  // passes a NaN over
    const Vec<T> zero = Vec<T>::zero(), one = Vec<T>::broadcast(1);
    Vec<T> ties = zero, others = zero;
    for (int64_t start = 0; start < classes; start += block) {
        const int64_t end = classes - start < block ? classes : start + block;
        Vec<T> block_others = zero;
        for (int64_t c = start; c < end; ++c) {
            const Vec<T> v = column.logits(c), e = math_exp(v - top);
            const Int<T> tie = v == top;
            ties = ties + select(tie, one, zero);
            block_others = block_others + select(tie, zero, e);
            if (exps) e.store(exps + c * Vec<T>::lanes);
        }
        others = others + block_others;
    }
    return softmax_sum(top, ties, others);
}

// The logits of the labels, 0 for those ignored.
template <class T>
TINYGRAD_NM_INLINE Vec<T> label_logits(const SoftmaxColumn<T>& column, const int64_t* labels) {
    T lane[Vec<T>::lanes] = {};
    for (int i = 0; i < column.width; ++i)
        if (labels[i] != column.a.ignore_index) lane[i] = column.a.logits[column.offset(labels[i]) + i];
    return Vec<T>::load(lane);
}

template <class T>
void cross_entropy_column(const SoftmaxColumn<T>& column) {
    const SoftmaxCrossEntropy<T>& a = column.a;
    const SoftmaxSum<Vec<T>> s = softmax_column<T>(column, nullptr);
    const int64_t first = column.example * a.positions + column.start;
    const int64_t* labels = a.labels + first;
    cross_entropy_at(s, label_logits(column, labels)).store(a.out + first, column.width);
    for (int i = 0; i < column.width; ++i)
        if (labels[i] == a.ignore_index) a.out[first + i] = 0;
}

template <class T>
void cross_entropy_backward_column(const SoftmaxColumn<T>& column) {
    constexpr int lanes = Vec<T>::lanes;
    const SoftmaxCrossEntropy<T>& a = column.a;
    const Scratch memory(a.classes * lanes, sizeof(T));
    T* exps = static_cast<T*>(memory.data);
    const SoftmaxSum<Vec<T>> s = softmax_column(column, exps);
    const int64_t first = column.example * a.positions + column.start;
    const int64_t* labels = a.labels + first;
    const Vec<T> zero = Vec<T>::zero(), dloss = Vec<T>::load(a.dloss + first, column.width);
    T flags[lanes] = {};
    for (int i = 0; i < column.width; ++i) flags[i] = labels[i] == a.ignore_index;
    const Int<T> ignored = Vec<T>::load(flags) != zero;
    const Vec<T> one = Vec<T>::broadcast(1), sum = one + s.rest, share = one / sum;
    for (int64_t c = 0; c < a.classes; ++c)
        select(ignored, zero, dloss * (Vec<T>::load(exps + c * lanes) * share))
            .store(a.out + column.offset(c), column.width);
    const Vec<T> at_label = label_logits(column, labels);
    const Vec<T> slope =
        dloss * (select(at_label == s.largest, -s.rest, math_exp(at_label - s.largest) - sum) / sum);
    for (int i = 0; i < column.width; ++i)
        if (labels[i] != a.ignore_index) a.out[column.offset(labels[i]) + i] = slope.v[i];
}

// ---- short rows: transposed into columns ----

constexpr int64_t short_row = 64;  // classes at most

// `count` rows of logits from row `first` on, at most as many as a vector has lanes: as positions of one
// example.
template <class T>
void cross_entropy_of_short_rows(const SoftmaxCrossEntropy<T>& a, int64_t first, int count, bool backward) {
    constexpr int lanes = Vec<T>::lanes;
    T logits[short_row * lanes], out[short_row * lanes];
    const T* from = a.logits + first * a.classes;
    for (int64_t c = 0; c < a.classes; ++c)
        for (int i = 0; i < lanes; ++i) logits[c * lanes + i] = i < count ? from[i * a.classes + c] : T(0);
    const SoftmaxCrossEntropy<T> tile{.out = backward ? out : a.out + first,
                                      .dloss = a.dloss + first,
                                      .logits = logits,
                                      .labels = a.labels + first,
                                      .examples = 1,
                                      .classes = a.classes,
                                      .positions = lanes,
                                      .ignore_index = a.ignore_index};
    const SoftmaxColumn<T> column{tile, 0, 0, count};
    if (!backward) return cross_entropy_column(column);
    cross_entropy_backward_column(column);
    T* to = a.out + first * a.classes;
    for (int i = 0; i < count; ++i)
        for (int64_t c = 0; c < a.classes; ++c) to[i * a.classes + c] = out[c * lanes + i];
}

// One position an example: several rows to a task where they are short.
template <class T>
void softmax_rows(const SoftmaxCrossEntropy<T>& a, bool backward) {
    constexpr int lanes = Vec<T>::lanes;
    const bool is_short = a.classes <= short_row;
    int64_t rows = a.classes < 2048 ? 1 + 2048 / (a.classes + 1) : 1;
    if (is_short) rows = (rows + lanes - 1) / lanes * lanes;
    parallel_for((a.examples + rows - 1) / rows, double(rows) * double(a.classes) * 10, [&](int64_t task) {
        const int64_t start = task * rows, end = a.examples - start < rows ? a.examples : start + rows;
        if (is_short)
            for (int64_t row = start; row < end; row += lanes)
                cross_entropy_of_short_rows(a, row, int(end - row < lanes ? end - row : lanes), backward);
        else
            for (int64_t row = start; row < end; ++row)
                backward ? cross_entropy_backward_row(a, row) : cross_entropy_row(a, row);
    });
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
    if (a.positions == 1) return softmax_rows(a, false);
    softmax_columns(a, [](const SoftmaxColumn<T>& column) { cross_entropy_column(column); });
}

template <class T>
void softmax_cross_entropy_backward_kernel(const SoftmaxCrossEntropy<T>& a) {
    if (a.positions == 1) return softmax_rows(a, true);
    softmax_columns(a, [](const SoftmaxColumn<T>& column) { cross_entropy_backward_column(column); });
}

}  // namespace
}  // namespace tinygrad_nm
