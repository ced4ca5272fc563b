// Softmax-cross-entropy; arguments, formulas and conventions in shared/loss.h.
//
// A row is a position of an example: `classes` logits, `positions` apart in memory. A team of threads
// (team.cuh) has a row. With one position or a few, a row's classes are near one another, and a team is a
// part of a warp, a warp or a block; with many, neighbouring threads have neighbouring positions.
#include "cuda/elementwise.cuh"
#include "cuda/kernels.cuh"
#include "cuda/team.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// Threads of a multiprocessor at least: 64 registers each, where the compiler, left alone, makes do with 32
// and spills.
constexpr int loss_threads = 1024;

// Where a row begins in the logits, and its label. A team beyond the last row has no classes to look at, like
// the rows whose label is ignored or is no class, whose results follow from the label alone.
template <class T>
struct Row {
    bool exists, ignored, valid;
    int64_t begin, label;

    __device__ __forceinline__ Row(const SoftmaxCrossEntropy<T>& a, int64_t row) {
        exists = row < a.examples * a.positions;
        const int64_t example = exists ? quotient(row, a.positions) : 0;
        begin = example * a.classes * a.positions + (row - example * a.positions);
        label = exists ? a.labels[row] : a.ignore_index;
        ignored = label == a.ignore_index;
        valid = !ignored && label >= 0 && label < a.classes;
    }
    __device__ __forceinline__ T without_logits() const { return ignored ? T(0) : T(NAN); }
};

// Of a row's logits the largest, and the sum of exp(x - largest) less the 1 of a largest one: NaN where the
// largest is not finite. A NaN among them is passed over by the first and found by the second.
template <class T>
struct SoftmaxSum {
    T largest, rest;
};

// x[c step] for the classes c; 0 classes give no number of use. Long sums are added in blocks, so that many
// classes cost few digits.
template <class T, class Team>
__device__ __forceinline__ SoftmaxSum<T> softmax_of_row(const T* x, int64_t classes, int64_t step) {
    constexpr int64_t block = 64 * Team::lanes;
    T largest = T(-INFINITY);
    for (int64_t c = Team::lane(); c < classes; c += Team::lanes) largest = Larger{}(largest, x[c * step]);
    largest = Team::combine(largest, Larger{});
    T ties = 0, others = 0;
    for (int64_t start = Team::lane(); start < classes; start += block) {
        const int64_t end = classes - start < block ? classes : start + block;
        T block_others = 0;
        for (int64_t c = start; c < end; c += Team::lanes) {
            const T v = x[c * step];
            if (v == largest)
                ties += 1;
            else
                block_others += math_exp(v - largest);
        }
        others += block_others;
    }
    ties = Team::combine(ties, Sum{});
    others = Team::combine(others, Sum{});
    return {largest, (ties - 1) + others + (largest - largest)};
}

// out, labels (examples, positions), logits (examples, classes, positions):
// out = log1p(rest) + largest - the label's logit.
template <class T, class Team>
__global__ void __launch_bounds__(Team::threads, loss_threads / Team::threads)
    cross_entropy_forward_kernel(const SoftmaxCrossEntropy<T> a) {
    const int64_t rows = a.examples * a.positions;
    for (int64_t first = int64_t(blockIdx.x) * Team::rows; first < rows;
         first += int64_t(gridDim.x) * Team::rows) {
        const Row<T> row(a, first + Team::row());
        const T* const x = a.logits + row.begin;
        const SoftmaxSum<T> s = softmax_of_row<T, Team>(x, row.valid ? a.classes : 0, a.positions);
        if (!row.exists || Team::lane() != 0) continue;
        a.out[first + Team::row()] =
            row.valid ? math_log1p(s.rest) + (s.largest - x[row.label * a.positions]) : row.without_logits();
    }
}

// softmax - 1 at the label, from the sum over the other classes where that has more digits.
template <class T>
__device__ __forceinline__ T label_gradient(const SoftmaxSum<T>& s, T label_logit) {
    const T sum = 1 + s.rest;
    if (label_logit == s.largest) return -(s.rest / sum);
    return (math_exp(label_logit - s.largest) - sum) / sum;
}

// out, logits (examples, classes, positions), dloss, labels (examples, positions):
// out = dloss (exp(x - largest) / (1 + rest) - [class == label]).
template <class T, class Team>
__global__ void __launch_bounds__(Team::threads, loss_threads / Team::threads)
    cross_entropy_backward_kernel(const SoftmaxCrossEntropy<T> a) {
    const int64_t rows = a.examples * a.positions;
    for (int64_t first = int64_t(blockIdx.x) * Team::rows; first < rows;
         first += int64_t(gridDim.x) * Team::rows) {
        const Row<T> row(a, first + Team::row());
        const T* const x = a.logits + row.begin;
        T* const out = a.out + row.begin;
        const SoftmaxSum<T> s = softmax_of_row<T, Team>(x, row.valid ? a.classes : 0, a.positions);
        if (!row.exists) continue;
        const T dloss = a.dloss[first + Team::row()], share = 1 / (1 + s.rest);
        for (int64_t c = Team::lane(); c < a.classes; c += Team::lanes) {
            const int64_t at = c * a.positions;
            if (!row.valid)
                out[at] = row.without_logits();
            else if (c == row.label)
                out[at] = dloss * label_gradient(s, x[at]);
            else
                out[at] = dloss * (math_exp(x[at] - s.largest) * share);
        }
    }
}

template <class T, class Team>
void run(const SoftmaxCrossEntropy<T>& a, bool backward) {
    const unsigned blocks = blocks_for(a.examples * a.positions, Team::rows);
    if (backward)
        LAUNCH((cross_entropy_backward_kernel<T, Team>), blocks, Team::threads, 0, a);
    else
        LAUNCH((cross_entropy_forward_kernel<T, Team>), blocks, Team::threads, 0, a);
}

// The teams for each shape: the first row of the table that a shape fits into.
template <class T>
struct Choice {
    int64_t least_positions, most_classes;
    void (*run)(const SoftmaxCrossEntropy<T>&, bool backward);
};
constexpr int64_t any = INT64_MAX;
template <class T>
constexpr Choice<T> choices[] = {
    {16, 64, run<T, ColumnTeam<128, 1>>}, {16, any, run<T, ColumnTeam<32, 8>>},
    {1, 16, run<T, WarpTeam<8>>},         {1, 512, run<T, WarpTeam<32>>},
    {1, 8192, run<T, BlockTeam<256>>},    {1, any, run<T, BlockTeam<1024>>},
};

template <class T>
void cross_entropy(const SoftmaxCrossEntropy<T>& a, bool backward) {
    if (a.examples == 0 || a.positions == 0) return;
    for (const Choice<T>& choice : choices<T>)
        if (a.positions >= choice.least_positions && a.classes <= choice.most_classes)
            return choice.run(a, backward);
}

}  // namespace

template <class T>
void softmax_cross_entropy_forward(const SoftmaxCrossEntropy<T>& a) {
    cross_entropy(a, false);
}
template void softmax_cross_entropy_forward<float>(const SoftmaxCrossEntropy<float>&);
template void softmax_cross_entropy_forward<double>(const SoftmaxCrossEntropy<double>&);
template <class T>
void softmax_cross_entropy_backward(const SoftmaxCrossEntropy<T>& a) {
    cross_entropy(a, true);
}
template void softmax_cross_entropy_backward<float>(const SoftmaxCrossEntropy<float>&);
template void softmax_cross_entropy_backward<double>(const SoftmaxCrossEntropy<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
