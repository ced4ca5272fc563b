// Pooling in windows of 2 x 2 or 3 x 3 at stride 2 without padding, as the networks have it. Vectors run
// along a row of windows: the columns of a tap are every second number, so two loads are taken apart into
// even and odd ones, and put together again on the way back.
//
// A vector at the end of a row may read what follows in the array and write into the rows after it, which are
// written later: rows go upwards within a task. Only at the end of the array or the task is it cut.
#pragma once
#include "cpu/arena.h"
#include "cpu/isa/vector.h"
#include "shared/pool2d.h"

namespace tinygrad_nm {
namespace {

// 2 or 3 if these kernels can do it, else 0.
static inline int stride2_kernel(const Pool2dShape& s) {
    const int64_t k = s.kernel_h;
    const bool fits = (k == 2 || k == 3) && s.kernel_w == k && s.stride_h == 2 && s.stride_w == 2 &&
                      s.pad_top == 0 && s.pad_left == 0 && s.dilation_h == 1 && s.dilation_w == 1 &&
                      (s.out_h - 1) * 2 + k <= s.height && (s.out_w - 1) * 2 + k <= s.width;
    return fits ? int(k) : 0;
}

template <class T>
TINYGRAD_NM_INLINE int at_most_lanes(int64_t n) {
    return n < Vec<T>::lanes ? int(n < 0 ? 0 : n) : Vec<T>::lanes;
}

// Columns 2 o + j, j < K, of a row for a vector of windows o; p points to column 2 o of the first, `room`
// numbers may be read from there.
template <class T, int K>
struct TapRow {
    Vec<T> tap[K];

    TINYGRAD_NM_INLINE TapRow(const T* p, int64_t room) {
        constexpr int lanes = Vec<T>::lanes;
        const auto load = [&](int64_t at) TINYGRAD_NM_INLINE_LAMBDA {
            return load_up_to(p + at, at_most_lanes<T>(room - at));
        };
        const Halves<T> columns = deinterleave(load(0), load(lanes));
        tap[0] = columns.first, tap[1] = columns.second;
        if constexpr (K == 3) tap[2] = deinterleave(load(2), load(2 + lanes)).first;
    }
};

// The first n lanes.
template <class T>
TINYGRAD_NM_INLINE void store_bytes(Int<T> taps, uint8_t* p, int n) {
    if (n == Vec<T>::lanes) return store_bytes<T>(taps, p);
    uint8_t bytes[Vec<T>::lanes];
    store_bytes<T>(taps, bytes);
    for (int i = 0; i < n; ++i) p[i] = bytes[i];
}
// Windows from column o on of one row of them. x: K rows of `width` numbers.
template <class T, int K>
TINYGRAD_NM_INLINE void max_of_windows(T* out, uint8_t* taps, int n, const T* x, int64_t width,
                                       int64_t room) {
    Vec<T> best = Vec<T>::zero();
    Int<T> tap = {};
#pragma GCC unroll 3
    for (int i = 0; i < K; ++i) {
        const TapRow<T, K> row(x + i * width, room - i * width);
#pragma GCC unroll 3
        for (int j = 0; j < K; ++j) {
            if (i + j == 0) {
                best = row.tap[0];
                continue;
            }
            // larger, or the first NaN
            const Int<T> wins = ~(row.tap[j] <= best) & (best == best);
            best = select(wins, row.tap[j], best);
            tap = wins ? Int<T>{} + (i * K + j) : tap;
        }
    }
    store_up_to(best, out, n);
    store_bytes<T>(tap, taps, n);
}

template <class T, int K>
TINYGRAD_NM_INLINE void mean_of_windows(T* out, int n, const T* x, int64_t width, int64_t room) {
    Vec<T> sum = Vec<T>::zero();
#pragma GCC unroll 3
    for (int i = 0; i < K; ++i) {
        const TapRow<T, K> row(x + i * width, room - i * width);
#pragma GCC unroll 3
        for (int j = 0; j < K; ++j) sum = sum + row.tap[j];
    }
    store_up_to(sum / Vec<T>::broadcast(K * K), out, n);
}

// windows(result, results that may be written from there, its source, numbers that may be read from there)
// for planes [first, last).
template <class T, class Windows>
TINYGRAD_NM_INLINE void for_stride2_windows(const Pool2dShape& s, int64_t first, int64_t last,
                                            const Windows& windows) {
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    const int64_t out_end = last * out_plane, end = s.batch * s.channels * plane;
    for (int64_t index = first; index < last; ++index)
        for (int64_t oh = 0; oh < s.out_h; ++oh) {
            const int64_t out = index * out_plane + oh * s.out_w, from = index * plane + 2 * oh * s.width;
            for (int64_t o = 0; o < s.out_w; o += Vec<T>::lanes)
                windows(out + o, at_most_lanes<T>(out_end - out - o), from + 2 * o, end - from - 2 * o);
        }
}

template <class T, int K>
void max_pool2d_stride2(const MaxPool2dForward<T>& a, int64_t first, int64_t last) {
    for_stride2_windows<T>(a.shape, first, last, [&](int64_t out, int n, int64_t from, int64_t room) {
        max_of_windows<T, K>(a.out + out, static_cast<uint8_t*>(a.taps) + out, n, a.x + from, a.shape.width,
                             room);
    });
}

template <class T, int K>
void avg_pool2d_stride2(const AvgPool2dForward<T>& a, int64_t first, int64_t last) {
    for_stride2_windows<T>(a.shape, first, last, [&](int64_t out, int n, int64_t from, int64_t room) {
        mean_of_windows<T, K>(a.out + out, n, a.x + from, a.shape.width, room);
    });
}

// Windows hit a number or two of every nine or four: adding at the places is faster than asking every number,
// vectors or not. False if a tap is none of the window.
template <class T, int K>
bool max_pool2d_stride2_backward(const MaxPool2dAtTaps<T>& a, int64_t first, int64_t last) {
    const Pool2dShape& s = a.shape;
    int32_t place[256] = {};  // of a tap, from the window's first number
    for (int t = 0; t < K * K; ++t) place[t] = int32_t(t / K * s.width + t % K);
    const int64_t windows = first * s.out_h * s.out_w, plane = s.height * s.width;
    const T* dy = a.in + windows;
    const uint8_t* taps = static_cast<const uint8_t*>(a.taps) + windows;
    int largest = 0;
    for (int64_t index = first; index < last; ++index) {
        T* out = a.out + index * plane;
        for (int64_t p = 0; p < plane; ++p) out[p] = 0;
        for (int64_t oh = 0; oh < s.out_h; ++oh, out += 2 * s.width)
            for (int64_t ow = 0; ow < s.out_w; ++ow) {
                const int tap = *taps++;
                largest = tap > largest ? tap : largest;
                out[2 * ow + place[tap]] += *dy++;
            }
    }
    return largest < K * K;
}

// ---- the mean's backward: what windows give to the numbers under them ----

// Which of windows o, o + 1 ... are in a row of them: for every vector of numbers at even columns, the
// windows that begin there and those one before. In scratch memory, computed once for all rows.
template <class T>
struct WindowMasks {
    Scratch memory;
    Int<T>*beginning, *before, none = {};

    WindowMasks(int64_t windows, int64_t width)
        : memory((width / 2 + Vec<T>::lanes) / Vec<T>::lanes, 2 * sizeof(Int<T>)),
          beginning(static_cast<Int<T>*>(memory.data)),
          before(beginning + (width / 2 + Vec<T>::lanes) / Vec<T>::lanes) {
        for (int64_t c = 0; 2 * c < width; c += Vec<T>::lanes)
            for (int i = 0; i < Vec<T>::lanes; ++i) {
                beginning[c / Vec<T>::lanes][i] = -(c + i < windows);
                before[c / Vec<T>::lanes][i] = -(c + i > 0 && c + i - 1 < windows);
            }
    }
};

// dy of windows at, at + 1 ... of the array, 0 where `there` is not set.
template <class T>
TINYGRAD_NM_INLINE Vec<T> given(const T* dy, int64_t at, int64_t end, Int<T> there) {
    constexpr int lanes = Vec<T>::lanes;
    if (at >= 0) return select(there, load_up_to(dy + at, at_most_lanes<T>(end - at)), Vec<T>::zero());
    T from[lanes] = {};  // before the first of all
    for (int64_t i = -at; i < lanes && at + i < end; ++i) from[i] = dy[at + i];
    return select(there, Vec<T>::load(from), Vec<T>::zero());
}

// Rows 2 q and 2 q + 1 of a plane; the windows of row q are first, first + 1 ... Of out, `room` numbers may
// be written from the first row on: none beyond that row's own, because the second is written at the same
// time. The sum at a number is in the order of the windows.
template <class T, int K>
TINYGRAD_NM_INLINE void give_back(T* out, int64_t room, const T* dy, int64_t first, int64_t q,
                                  const Pool2dShape& s, const WindowMasks<T>& masks) {
    constexpr int lanes = Vec<T>::lanes;
    const int64_t end = s.batch * s.channels * s.out_h * s.out_w, width = s.width;
    const bool current = q < s.out_h, previous = K == 3 && q > 0;
    const int64_t at = current ? first : 0, at_previous = previous ? first - s.out_w : 0;
    const Vec<T> share = Vec<T>::broadcast(T(1) / (K * K)), divisor = Vec<T>::broadcast(K * K);
    for (int64_t c = 0; 2 * c < width; c += lanes) {
        const Int<T> beginning = masks.beginning[c / lanes], before = masks.before[c / lanes];
        const Vec<T> here = given(dy, at + c, end, current ? beginning : masks.none);
        Vec<T> even[2] = {here, here}, odd[2] = {here, here};
        if constexpr (K == 3) {
            const Vec<T> left = given(dy, at + c - 1, end, current ? before : masks.none);
            const Vec<T> above = given(dy, at_previous + c, end, previous ? beginning : masks.none);
            const Vec<T> above_left = given(dy, at_previous + c - 1, end, previous ? before : masks.none);
            even[0] = ((above_left + above) + left) + here;
            odd[0] = above + here;
            even[1] = left + here;
        }
        for (int row = 0; row < 2; ++row) {
            const auto mean = [&](Vec<T> sum) TINYGRAD_NM_INLINE_LAMBDA {
                return K == 2 ? sum * share : sum / divisor;  // a quarter is exact
            };
            const Halves<T> columns = interleave(mean(even[row]), mean(odd[row]));
            const int64_t to = row * width + 2 * c, n = row ? room - to : width - to;
            store_up_to(columns.first, out + to, at_most_lanes<T>(n));
            store_up_to(columns.second, out + to + lanes, at_most_lanes<T>(n - lanes));
        }
    }
}

// Planes [first, last).
template <class T, int K>
void avg_pool2d_stride2_backward(const AvgPool2dBackward<T>& a, int64_t first, int64_t last) {
    const Pool2dShape& s = a.shape;
    const int64_t plane = s.height * s.width;
    const WindowMasks<T> masks(s.out_w, s.width);
    for (int64_t index = first; index < last; ++index)
        for (int64_t q = 0; 2 * q < s.height; ++q) {
            const int64_t at = index * plane + 2 * q * s.width;
            const bool both = 2 * q + 1 < s.height;  // else the second row is that of the next plane, or none
            give_back<T, K>(a.out + at, both ? last * plane - at : s.width, a.dy,
                            (index * s.out_h + q) * s.out_w, q, s, masks);
        }
}

}  // namespace
}  // namespace tinygrad_nm
