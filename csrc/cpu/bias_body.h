// The bias gradient of one instruction set; shapes and sum in bias.h.
//
// A task sums some whole examples, dy in the order of memory, into sums of its own; those are then added in
// the order of the tasks.
#pragma once
#include "cpu/arena.h"
#include "cpu/isa/vector.h"
#include "cpu/parallel.h"
#include "shared/bias.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t bias_task = 1 << 15;  // numbers at least

// The sum of n contiguous numbers, in four running sums so that one addition need not wait for another.
template <class T>
TINYGRAD_NM_INLINE Vec<T> sum_of_plane(const T* p, int64_t n) {
    constexpr int lanes = Vec<T>::lanes;
    Vec<T> a = Vec<T>::zero(), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
        a = a + Vec<T>::load(p + i);
        b = b + Vec<T>::load(p + i + lanes);
        c = c + Vec<T>::load(p + i + 2 * lanes);
        d = d + Vec<T>::load(p + i + 3 * lanes);
    }
    for (; i + lanes <= n; i += lanes) a = a + Vec<T>::load(p + i);
    if (i < n) b = b + Vec<T>::load(p + i, int(n - i));
    return (a + b) + (c + d);
}

// sums[o] += dy[o] for the channels of one example of a fully connected layer.
template <class T>
TINYGRAD_NM_INLINE void add_row(T* sums, const T* dy, int64_t channels) {
    constexpr int lanes = Vec<T>::lanes;
    int64_t o = 0;
    for (; o + lanes <= channels; o += lanes) (Vec<T>::load(sums + o) + Vec<T>::load(dy + o)).store(sums + o);
    if (const int n = int(channels - o))
        (Vec<T>::load(sums + o, n) + Vec<T>::load(dy + o, n)).store(sums + o, n);
}

// out (channels) = the sum of examples [first, last).
template <class T>
void bias_of_examples(const BiasBackward<T>& a, T* out, int64_t first, int64_t last) {
    constexpr int lanes = Vec<T>::lanes;
    if (a.plane == 1) {
        for (int64_t o = 0; o < a.channels; ++o) out[o] = 0;
        for (int64_t n = first; n < last; ++n) add_row(out, a.dy + n * a.channels, a.channels);
        return;
    }
    const Scratch memory(a.channels * lanes, sizeof(T));
    T* sums = static_cast<T*>(memory.data);
    for (int64_t i = 0; i < a.channels * lanes; ++i) sums[i] = 0;
    const T* dy = a.dy + first * a.channels * a.plane;
    for (int64_t n = first; n < last; ++n)
        for (int64_t o = 0; o < a.channels; ++o, dy += a.plane)
            (Vec<T>::load(sums + o * lanes) + sum_of_plane(dy, a.plane)).store(sums + o * lanes);
    for (int64_t o = 0; o < a.channels; ++o) out[o] = sum(Vec<T>::load(sums + o * lanes));
}

template <class T>
void bias_backward(const BiasBackward<T>& a) {
    const int64_t example = a.channels * a.plane;
    const int64_t together = example < bias_task ? (bias_task + example - 1) / (example ? example : 1) : 1;
    const int64_t tasks = (a.examples + together - 1) / together;
    if (tasks <= 1) return bias_of_examples(a, a.out, 0, a.examples);
    const Scratch memory(tasks * a.channels, sizeof(T));
    T* parts = static_cast<T*>(memory.data);
    parallel_for(tasks, double(together * example) * sizeof(T) / 2, [&](int64_t task) {
        const int64_t first = task * together;
        bias_of_examples(a, parts + task * a.channels, first,
                         a.examples - first < together ? a.examples : first + together);
    });
    for (int64_t o = 0; o < a.channels; ++o) a.out[o] = 0;
    for (int64_t task = 0; task < tasks; ++task) add_row(a.out, parts + task * a.channels, a.channels);
}

}  // namespace
}  // namespace tinygrad_nm
