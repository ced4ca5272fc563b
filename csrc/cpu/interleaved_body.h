// Images interleaved: as many images as a vector has lanes, stored as (channel, row, column, lane).
//
// One vector then holds one pixel of each of these images, so that small planes, few channels and borders
// leave no lane idle. What it costs is a transposition on the way in and out, some 0.2 cycles a number.
#pragma once
#include "cpu/isa/vector.h"

namespace tinygrad_nm {
namespace {

// Lane indices as a list of template arguments, for shuffles of the compiler.
template <int... index>
struct LaneList {};
template <int count, int... index>
struct LanesUpTo : LanesUpTo<count - 1, count - 1, index...> {};
template <int... index>
struct LanesUpTo<0, index...> {
    using List = LaneList<index...>;
};

// Exchanges the lanes k of b and k + step of a, for every k without the bit `step`.
template <class T, int step, int... k>
TINYGRAD_NM_INLINE void exchange_lanes(Vec<T>& a, Vec<T>& b, LaneList<k...>) {
    constexpr int lanes = Vec<T>::lanes;
    const auto low = __builtin_shufflevector(a.v, b.v, ((k & step) ? lanes + k - step : k)...);
    const auto high = __builtin_shufflevector(a.v, b.v, ((k & step) ? lanes + k : k + step)...);
    a.v = low;
    b.v = high;
}

template <class T, int step = Vec<T>::lanes / 2>
TINYGRAD_NM_INLINE void transpose(Vec<T> (&row)[Vec<T>::lanes]) {
    constexpr int lanes = Vec<T>::lanes;
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r)
        if (!(r & step)) exchange_lanes<T, step>(row[r], row[r + step], typename LanesUpTo<lanes>::List());
    if constexpr (step > 1) transpose<T, step / 2>(row);
}

// block[p * lanes + n] = images[n * stride + p] for p < count, n < used; the other lanes become 0.
template <class T>
void interleave(T* block, const T* images, int64_t stride, int used, int64_t count) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t p = 0; p < count; p += lanes) {
        const int n = int(count - p < lanes ? count - p : lanes);
        Vec<T> row[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            row[r] = r < used ? load_up_to(images + r * stride + p, n) : Vec<T>::zero();
        transpose<T>(row);
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            if (r < n) row[r].store(block + (p + r) * lanes);
    }
}

// images[n * stride + p] = block[p * lanes + n] for p < count, n < used.
template <class T>
void deinterleave(T* images, int64_t stride, int used, const T* block, int64_t count) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t p = 0; p < count; p += lanes) {
        const int n = int(count - p < lanes ? count - p : lanes);
        Vec<T> row[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            row[r] = r < n ? Vec<T>::load(block + (p + r) * lanes) : Vec<T>::zero();
        transpose<T>(row);
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            if (r < used) store_up_to(row[r], images + r * stride + p, n);
    }
}

}  // namespace
}  // namespace tinygrad_nm
