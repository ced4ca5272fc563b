// Pooling of any shape, plane by plane; the shapes of pool2d_stride2_body.h go there. For each row of windows
// and each tap, one loop along the row. So every window meets its taps in the order of rows, then columns, on
// every instruction set.
#pragma once
#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "cpu/pool2d_stride2_body.h"
#include "shared/pool2d.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t pool_task = 1 << 14;  // elements of a task at least

// body(first, last) for all planes, several small ones in a task.
template <class Body>
void for_plane_ranges(int64_t planes, int64_t elements, double work_per_element, const Body& body) {
    const int64_t together = 1 + pool_task / (elements + 1), tasks = (planes + together - 1) / together;
    parallel_for(tasks, double(together * elements) * work_per_element, [&](int64_t task) {
        const int64_t first = task * together;
        body(first, planes - first < together ? planes : first + together);
    });
}
template <class Body>
void for_planes(int64_t planes, int64_t elements, double work_per_element, const Body& body) {
    for_plane_ranges(planes, elements, work_per_element, [&](int64_t first, int64_t last) {
        for (int64_t plane = first; plane < last; ++plane) body(plane);
    });
}

// Windows [first, last) have tap j inside of [0, size).
struct TapRange {
    int64_t first, last;
};

// One axis of a pooling: window o, tap i lies at o * stride - pad + i * dilation.
struct PoolAxis {
    int64_t size, windows, taps, stride, pad, pad_after, dilation;

    int64_t position(int64_t window, int64_t tap) const { return window * stride - pad + tap * dilation; }
    bool inside(int64_t position) const { return position >= 0 && position < size; }
    // The first tap inside: the shape's builder has made sure that there is one.
    int64_t first_tap(int64_t window) const {
        const int64_t start = position(window, 0);
        return start >= 0 ? 0 : (-start + dilation - 1) / dilation;
    }
    TapRange windows_of(int64_t tap) const {
        const int64_t before = pad - tap * dilation,
                      room = size - 1 + before;  // o * stride in [before, room]
        const int64_t first = before <= 0 ? 0 : (before + stride - 1) / stride;
        const int64_t last = room < 0 ? 0 : room / stride + 1;
        return {first, last < windows ? last : windows};
    }
    // Taps that the divisor of a mean counts: those inside, or those not beyond the padding.
    int64_t counted(int64_t window, bool include_pad) const {
        const int64_t end = size + (include_pad ? pad_after : 0), start = position(window, 0);
        const int64_t skipped = include_pad ? 0 : first_tap(window);
        const int64_t reached = (end - start + dilation - 1) / dilation;
        return (reached < taps ? reached : taps) - skipped;
    }
};

PoolAxis rows_of(const Pool2dShape& s) {
    return {s.height, s.out_h, s.kernel_h, s.stride_h, s.pad_top, s.pad_bottom, s.dilation_h};
}
PoolAxis columns_of(const Pool2dShape& s) {
    return {s.width, s.out_w, s.kernel_w, s.stride_w, s.pad_left, s.pad_right, s.dilation_w};
}

// What all planes share along a row, computed once before the parallel region.
struct PoolRow {
    Scratch ranges_memory, first_memory;
    TapRange* ranges;  // of each tap
    int32_t* first;    // of each window: its first tap inside

    explicit PoolRow(const PoolAxis& x)
        : ranges_memory(x.taps, sizeof(TapRange)),
          first_memory(x.windows, sizeof(int32_t)),
          ranges(static_cast<TapRange*>(ranges_memory.data)),
          first(static_cast<int32_t*>(first_memory.data)) {
        for (int64_t j = 0; j < x.taps; ++j) ranges[j] = x.windows_of(j);
        for (int64_t ow = 0; ow < x.windows; ++ow) first[ow] = int32_t(x.first_tap(ow));
    }
};

// tap(source row, tap column, tap, windows) for every tap of row `window` of the windows that is inside.
template <class Tap>
inline void for_taps(const PoolAxis& y, const PoolAxis& x, const PoolRow& row, int64_t window,
                     const Tap& tap) {
    for (int64_t i = 0; i < y.taps; ++i) {
        const int64_t iy = y.position(window, i);
        if (!y.inside(iy)) continue;
        for (int64_t j = 0; j < x.taps; ++j) tap(iy, x.position(0, j), i * x.taps + j, row.ranges[j]);
    }
}

template <int64_t value>
struct Constant {
    constexpr operator int64_t() const { return value; }
};
// Calls f with the common strides as constants: the compiler then vectorises the loop.
template <class F>
inline void with_stride(int64_t stride, const F& f) {
    if (stride == 1)
        f(Constant<1>());
    else if (stride == 2)
        f(Constant<2>());
    else
        f(stride);
}

// best and taps of windows [range) against `tap`; x points to that tap of window 0.
template <class T, class Stride>
void max_pool2d_tap(T* __restrict best, int32_t* __restrict taps, const T* __restrict x, int32_t tap,
                    TapRange range, Stride stride) {
    for (int64_t o = range.first; o < range.last; ++o) {
        const T value = x[o * stride];
        const bool wins = (value > best[o]) | ((value != value) & (best[o] == best[o]));
        best[o] = wins ? value : best[o];
        taps[o] = wins ? tap : taps[o];
    }
}

// Planes [first, last), with Index the type of the taps.
template <class T, class Index>
void max_pool2d_planes(const MaxPool2dForward<T>& a, const PoolRow& row, int64_t first, int64_t last) {
    const Pool2dShape& s = a.shape;
    const PoolAxis y = rows_of(s), x = columns_of(s);
    const Scratch memory(s.out_w, sizeof(int32_t));
    int32_t* taps = static_cast<int32_t*>(memory.data);
    T* best = a.out + first * s.out_h * s.out_w;
    Index* chosen = static_cast<Index*>(a.taps) + first * s.out_h * s.out_w;
    for (int64_t index = first; index < last; ++index)
        for (int64_t oh = 0; oh < s.out_h; ++oh, best += s.out_w, chosen += s.out_w) {
            const T* source = a.x + index * s.height * s.width;
            const int32_t first_row = int32_t(y.first_tap(oh) * x.taps);
            for (int64_t ow = 0; ow < s.out_w; ++ow) {  // so a window full of -inf has a tap too
                best[ow] = T(-__builtin_inf());
                taps[ow] = first_row + row.first[ow];
            }
            with_stride(s.stride_w, [&](auto stride) {
                for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, int64_t tap, TapRange range) {
                    // ix may lie before the plane, range then starts later
                    max_pool2d_tap(best, taps, source + iy * s.width + ix, int32_t(tap), range, stride);
                });
            });
            for (int64_t ow = 0; ow < s.out_w; ++ow) chosen[ow] = Index(taps[ow]);
        }
}

// out[o] = max over i, j of x[o*stride - pad + i*dilation, ..] with its tap: out, taps (N, C, OH, OW),
// x (N, C, H, W).
template <class T>
void max_pool2d_forward(const MaxPool2dForward<T>& a) {
    const Pool2dShape& s = a.shape;
    const PoolRow row(columns_of(s));
    const double work = double(s.kernel_h * s.kernel_w) + 8;
    auto planes = [&](int64_t first, int64_t last) {
        taps_are_bytes(s) ? max_pool2d_planes<T, uint8_t>(a, row, first, last)
                          : max_pool2d_planes<T, int32_t>(a, row, first, last);
    };
    for_plane_ranges(s.batch * s.channels, s.out_h * s.out_w, work, [&](int64_t first, int64_t last) {
        const int kernel = stride2_kernel(s);
        kernel == 2   ? max_pool2d_stride2<T, 2>(a, first, last)
        : kernel == 3 ? max_pool2d_stride2<T, 3>(a, first, last)
                      : planes(first, last);
    });
}

// body(window in the array, place in the plane it remembers), window by window; false if a tap is wrong.
template <class Index, class Body>
bool for_remembered(const Pool2dShape& s, const void* taps, int64_t index, const Body& body) {
    const PoolAxis y = rows_of(s), x = columns_of(s);
    int64_t o = index * s.out_h * s.out_w;
    for (int64_t oh = 0; oh < s.out_h; ++oh)
        for (int64_t ow = 0; ow < s.out_w; ++ow, ++o) {
            const int64_t tap = static_cast<const Index*>(taps)[o];
            const int64_t iy = y.position(oh, tap / x.taps), ix = x.position(ow, tap % x.taps);
            if (tap < 0 || tap >= y.taps * x.taps || !y.inside(iy) || !x.inside(ix)) return false;
            body(o, iy * s.width + ix);
        }
    return true;
}
template <class Body>
bool for_remembered(const Pool2dShape& s, const void* taps, int64_t index, const Body& body) {
    return taps_are_bytes(s) ? for_remembered<uint8_t>(s, taps, index, body)
                             : for_remembered<int32_t>(s, taps, index, body);
}

// out[p] = sum of dy[o] with tap[o] at p, in each plane: out (N, C, H, W), dy, taps (N, C, OH, OW).
template <class T>
bool max_pool2d_backward(const MaxPool2dAtTaps<T>& a) {
    const Pool2dShape& s = a.shape;
    const int64_t plane = s.height * s.width;
    auto planes = [&](int64_t first, int64_t last) {
        for (int64_t p = first * plane; p < last * plane; ++p) a.out[p] = 0;
        bool ok = true;
        for (int64_t index = first; index < last && ok; ++index)
            ok = for_remembered(s, a.taps, index,
                                [&](int64_t o, int64_t p) { a.out[index * plane + p] += a.in[o]; });
        return ok;
    };
    bool failed = false;
    for_plane_ranges(s.batch * s.channels, plane + s.out_h * s.out_w, 2, [&](int64_t first, int64_t last) {
        const int kernel = stride2_kernel(s);
        const bool ok = kernel == 2   ? max_pool2d_stride2_backward<T, 2>(a, first, last)
                        : kernel == 3 ? max_pool2d_stride2_backward<T, 3>(a, first, last)
                                      : planes(first, last);
        if (!ok) __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
    });
    return !failed;
}

// out[o] = x at tap[o] in each plane: out, taps (N, C, OH, OW), x (N, C, H, W).
template <class T>
bool max_pool2d_gather(const MaxPool2dAtTaps<T>& a) {
    const Pool2dShape& s = a.shape;
    bool failed = false;
    for_planes(s.batch * s.channels, s.out_h * s.out_w, 4, [&](int64_t index) {
        const T* x = a.in + index * s.height * s.width;
        if (!for_remembered(s, a.taps, index, [&](int64_t o, int64_t p) { a.out[o] = x[p]; }))
            __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
    });
    return !failed;
}

// The divisors along a row, as far as they do not depend on the row.
template <class T>
struct Divisors {
    Scratch memory;
    T* columns;

    Divisors(const PoolAxis& x, bool include_pad)
        : memory(x.windows, sizeof(T)), columns(static_cast<T*>(memory.data)) {
        for (int64_t ow = 0; ow < x.windows; ++ow) columns[ow] = T(x.counted(ow, include_pad));
    }
};

// out[o] = (sum over i, j of x[o*stride - pad + i*dilation, ..]) / divisor: out (N, C, OH, OW), x (N, C, H,
// W).
template <class T>
void avg_pool2d_forward(const AvgPool2dForward<T>& a) {
    const Pool2dShape& s = a.shape;
    if (const int kernel = stride2_kernel(s))
        return for_plane_ranges(s.batch * s.channels, s.height * s.width, 2,
                                [&](int64_t first, int64_t last) {
                                    kernel == 2 ? avg_pool2d_stride2<T, 2>(a, first, last)
                                                : avg_pool2d_stride2<T, 3>(a, first, last);
                                });
    const PoolAxis y = rows_of(s), x = columns_of(s);
    const PoolRow row(x);
    const Divisors<T> divisors(x, a.count_include_pad);
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    for_planes(s.batch * s.channels, out_plane, double(s.kernel_h * s.kernel_w) + 8, [&](int64_t index) {
        const T* source = a.x + index * plane;
        for (int64_t oh = 0; oh < s.out_h; ++oh) {
            T* __restrict out = a.out + index * out_plane + oh * s.out_w;
            for (int64_t ow = 0; ow < s.out_w; ++ow) out[ow] = 0;
            with_stride(s.stride_w, [&](auto stride) {
                for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, int64_t, TapRange range) {
                    const T* from = source + iy * s.width + ix;
                    for (int64_t ow = range.first; ow < range.last; ++ow) out[ow] += from[ow * stride];
                });
            });
            const T in_column = T(y.counted(oh, a.count_include_pad));
            for (int64_t ow = 0; ow < s.out_w; ++ow) out[ow] /= in_column * divisors.columns[ow];
        }
    });
}

// out[p] = sum over the windows o that hold p of dy[o] / divisor: out (N, C, H, W), dy (N, C, OH, OW).
template <class T>
void avg_pool2d_backward(const AvgPool2dBackward<T>& a) {
    const Pool2dShape& s = a.shape;
    if (const int kernel = stride2_kernel(s))
        return for_plane_ranges(s.batch * s.channels, s.height * s.width, 2,
                                [&](int64_t first, int64_t last) {
                                    kernel == 2 ? avg_pool2d_stride2_backward<T, 2>(a, first, last)
                                                : avg_pool2d_stride2_backward<T, 3>(a, first, last);
                                });
    const PoolAxis y = rows_of(s), x = columns_of(s);
    const PoolRow row(x);
    const Divisors<T> divisors(x, a.count_include_pad);
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    for_planes(s.batch * s.channels, plane + out_plane, double(s.kernel_h * s.kernel_w) + 8,
               [&](int64_t index) {
                   T* out = a.out + index * plane;
                   for (int64_t p = 0; p < plane; ++p) out[p] = 0;
                   Scratch memory(s.out_w, sizeof(T));
                   T* __restrict share = static_cast<T*>(memory.data);
                   for (int64_t oh = 0; oh < s.out_h; ++oh) {
                       const T* dy = a.dy + index * out_plane + oh * s.out_w;
                       const T in_column = T(y.counted(oh, a.count_include_pad));
                       for (int64_t ow = 0; ow < s.out_w; ++ow)
                           share[ow] = dy[ow] / (in_column * divisors.columns[ow]);
                       with_stride(s.stride_w, [&](auto stride) {
                           for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, int64_t, TapRange range) {
                               T* __restrict to = out + iy * s.width + ix;
                               for (int64_t ow = range.first; ow < range.last; ++ow)
                                   to[ow * stride] += share[ow];
                           });
                       });
                   }
               });
}

}  // namespace
}  // namespace tinygrad_nm
