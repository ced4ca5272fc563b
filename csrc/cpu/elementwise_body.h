// How loops over contiguous numbers are cut into tasks, and how results too large for the caches are written.
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/parallel.h"

namespace tinygrad_nm {
namespace {

// Numbers of a task: few enough to share small arrays out, enough in large ones for the processor's
// prefetching.
static inline int64_t elementwise_task(int64_t n) {
    const int64_t small = 4096, large = 65536, share = n / 32 / small * small;
    return share < small ? small : share > large ? large : share;
}

// body(start, count) for all of n numbers; work for one of them as in parallel_for.
template <class Body>
static inline void for_elements(int64_t n, double work, const Body& body) {
    const int64_t task = elementwise_task(n);
    parallel_for((n + task - 1) / task, double(task) * work, [&](int64_t index) {
        const int64_t start = index * task;
        body(start, n - start < task ? n - start : task);
    });
}

// Results from here on, in bytes, bypass the caches. Measured, those of one array gain 1.1 to 1.4 times at 32
// MiB where the last cache holds no more than that, nothing where it holds more, and 1.4 to 1.6 times at 64
// MiB; those of two arrays, which wait for reading, lose a tenth at 32 MiB.
constexpr int64_t streaming_bytes = int64_t(32) << 20, streaming_bytes_of_two = int64_t(48) << 20;

// make(to, first, count) writes results first .. first + count - 1 to `to`. Streamed, they go by way of a
// block in the innermost cache: one code for both.
template <class T, class Make>
static inline void write_range(T* out, int64_t count, bool streaming, const Make& make) {
    constexpr int lanes = Vec<T>::lanes, bytes = TINYGRAD_NM_VECTOR_BYTES;
    constexpr int64_t block = 1024;
    if (!streaming) return make(out, int64_t(0), count);
    int64_t first = int64_t(-reinterpret_cast<uintptr_t>(out) % bytes / sizeof(T));  // up to the alignment
    if (first > count) first = count;
    make(out, int64_t(0), first);
    alignas(64) T buffer[block];
    while (count - first >= lanes) {
        const int64_t n = count - first < block ? (count - first) / lanes * lanes : block;
        make(buffer, first, n);
        for (int64_t i = 0; i < n; i += lanes) Vec<T>::load(buffer + i).stream(out + first + i);
        first += n;
    }
    streamed();
    make(out + first, first, count - first);
}

}  // namespace
}  // namespace tinygrad_nm
