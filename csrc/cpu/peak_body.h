// The loops behind the roofline, for one instruction set; shapes and formulas in peak.h.
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/parallel.h"
#include "shared/peak.h"

namespace tinygrad_nm {
namespace {

// Chains of dependent fma: more than latency times issue width (4 x 2 or 4 x 3 on processors of today), and
// with the two constants no more than the 16 registers of AVX2.
constexpr int peak_chains = 12;
constexpr int64_t peak_task = 16384;  // numbers

// out = y_repeats of whole vectors x, all chains at once.
template <class T>
void peak_chain(const PeakArithmetic<T>& a, const T* x, T* out) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> scale = in_register(Vec<T>::broadcast(a.scale));
    const Vec<T> shift = in_register(Vec<T>::broadcast(a.shift));
    Vec<T> y[peak_chains];
#pragma GCC unroll 12
    for (int c = 0; c < peak_chains; ++c) y[c] = Vec<T>::load(x + c * lanes);
    for (int64_t j = 0; j < a.repeats; ++j)
#pragma GCC unroll 12
        for (int c = 0; c < peak_chains; ++c) y[c] = fma(y[c], scale, shift);
#pragma GCC unroll 12
    for (int c = 0; c < peak_chains; ++c) y[c].store(out + c * lanes);
}

template <class T>
void peak_arithmetic(const PeakArithmetic<T>& a) {
    constexpr int64_t block = peak_chains * Vec<T>::lanes;
    parallel_for(a.rows, 2.0 * double(a.n) * double(a.repeats), [&](int64_t row) {
        const T* x = a.x + row * a.n;
        T* out = a.out + row * a.n;
        int64_t i = 0;
        for (; i + block <= a.n; i += block) peak_chain(a, x + i, out + i);
        if (i == a.n) return;
        T rest[block] = {};
        memcpy(rest, x + i, size_t(a.n - i) * sizeof(T));
        peak_chain(a, rest, rest);
        memcpy(out + i, rest, size_t(a.n - i) * sizeof(T));
    });
}

template <class T>
void peak_memory(const PeakMemory<T>& a) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> scale = Vec<T>::broadcast(a.scale);
    const T* base = a.x ? a.x : a.out;
    parallel_for((a.n + peak_task - 1) / peak_task, double(peak_task) * 3 * sizeof(T), [&](int64_t task) {
        const int64_t start = task * peak_task;
        const int64_t end = a.n - start < peak_task ? a.n : start + peak_task;
        for (int64_t i = start; i < end; i += lanes) {
            const int width = int(end - i < lanes ? end - i : lanes);
            Vec<T> y = load_up_to(base + i, width);
            if (a.z) y = y + scale * load_up_to(a.z + i, width);
            store_up_to(y, a.out + i, width);
        }
    });
}

template <class T>
void peak_read(const PeakRead<T>& a) {
    constexpr int lanes = Vec<T>::lanes, chains = 8;
    parallel_for(a.rows, double(a.n) * sizeof(T), [&](int64_t row) {
        const T* x = a.x + row * a.n;
        Vec<T> total[chains];
        for (int c = 0; c < chains; ++c) total[c] = Vec<T>::zero();
        int64_t i = 0;
        for (; i + chains * lanes <= a.n; i += chains * lanes)
#pragma GCC unroll 8
            for (int c = 0; c < chains; ++c) total[c] = total[c] + Vec<T>::load(x + i + c * lanes);
        for (; i < a.n; i += lanes)
            total[0] = total[0] + load_up_to(x + i, int(a.n - i < lanes ? a.n - i : lanes));
        for (int c = 1; c < chains; ++c) total[0] = total[0] + total[c];
        a.out[row] = sum(total[0]);
    });
}

}  // namespace
}  // namespace tinygrad_nm
