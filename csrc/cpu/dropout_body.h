// The dropout kernel of one instruction set; shapes and formula in dropout.h.
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/parallel.h"
#include "shared/dropout.h"
#include "shared/philox.h"

namespace tinygrad_nm {
namespace {

constexpr int dropout_lanes = 16;                 // counters at a time
constexpr int dropout_group = 4 * dropout_lanes;  // elements that they decide
constexpr int64_t dropout_task = 64 * dropout_group;

// The words of the elements first .. first + dropout_group - 1 of an example; first is a multiple of 4.
template <class T>
static inline void dropout_words(const Dropout<T>& a, int64_t example, int64_t first, uint32_t* words) {
    Philox4x32<dropout_lanes> state;
    for (int lane = 0; lane < dropout_lanes; ++lane) {
        state.word[0][lane] = uint32_t(first / 4) + uint32_t(lane);
        state.word[1][lane] = uint32_t(a.first_example + example);
        state.word[2][lane] = uint32_t(a.stream);
        state.word[3][lane] = uint32_t(a.stream >> 32);
    }
    philox4x32_10(state, uint32_t(a.seed), uint32_t(a.seed >> 32));
    for (int lane = 0; lane < dropout_lanes; ++lane)
        for (int w = 0; w < 4; ++w) words[4 * lane + w] = state.word[w][lane];
}

// Free of branches, which would be mispredicted every other time: the product is made for all.
template <class T>
static inline void keep_or_zero(T* __restrict out, const T* __restrict x, const uint32_t* words, int count,
                                uint32_t threshold, T scale) {
    for (int i = 0; i < count; ++i) {
        const T kept = x[i] * scale;
        out[i] = dropout_keeps(words[i], threshold) ? kept : T(0);
    }
}

template <class T>
void dropout_kernel(const Dropout<T>& a) {
    const uint32_t threshold = dropout_threshold(a.p);
    const T scale = T(a.p < 1 ? 1 / (1 - a.p) : 0);
    const int64_t tasks = (a.elements + dropout_task - 1) / dropout_task;
    const double work = 20.0 * double(a.elements < dropout_task ? a.elements : dropout_task);
    parallel_for(a.examples * tasks, work, [&](int64_t task) {
        const int64_t example = task / tasks, start = task % tasks * dropout_task;
        const int64_t end = a.elements - start < dropout_task ? a.elements : start + dropout_task;
        for (int64_t first = start; first < end; first += dropout_group) {
            uint32_t words[dropout_group];
            dropout_words(a, example, first, words);
            const int64_t at = example * a.elements + first;
            const int count = int(end - first < dropout_group ? end - first : dropout_group);
            keep_or_zero(a.out + at, a.x + at, words, count, threshold, scale);
        }
    });
}

}  // namespace
}  // namespace tinygrad_nm
