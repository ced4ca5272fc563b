// Pooling, plane by plane: for each row of windows and each tap, one loop along the row. So every window
// meets its taps in the order of rows, then columns, on every instruction set.
#pragma once
#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "cpu/pool2d.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t pool_task = 1 << 14;  // elements of a task at least

// body(plane) for all planes, several small ones in a task.
template <class Body>
void for_planes(int64_t planes, int64_t elements, double work_per_element, const Body& body) {
    const int64_t together = 1 + pool_task / (elements + 1), tasks = (planes + together - 1) / together;
    parallel_for(tasks, double(together * elements) * work_per_element, [&](int64_t task) {
        for (int64_t plane = task * together; plane < planes && plane < (task + 1) * together; ++plane)
            body(plane);
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
    int32_t* first;    // of each window: the column of its first tap inside

    explicit PoolRow(const PoolAxis& x)
        : ranges_memory(x.taps, sizeof(TapRange)),
          first_memory(x.windows, sizeof(int32_t)),
          ranges(static_cast<TapRange*>(ranges_memory.data)),
          first(static_cast<int32_t*>(first_memory.data)) {
        for (int64_t j = 0; j < x.taps; ++j) ranges[j] = x.windows_of(j);
        for (int64_t ow = 0; ow < x.windows; ++ow) first[ow] = int32_t(x.position(ow, x.first_tap(ow)));
    }
};

// tap(source row, tap column, windows) for every tap of row `window` of the windows that is inside.
template <class Tap>
inline void for_taps(const PoolAxis& y, const PoolAxis& x, const PoolRow& row, int64_t window,
                     const Tap& tap) {
    for (int64_t i = 0; i < y.taps; ++i) {
        const int64_t iy = y.position(window, i);
        if (!y.inside(iy)) continue;
        for (int64_t j = 0; j < x.taps; ++j) tap(iy, x.position(0, j), row.ranges[j]);
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

// best and positions of windows [range) against one tap; x points to the tap of window 0, its position is
// `position`.
template <class T, class Stride>
void max_pool2d_tap(T* __restrict best, int32_t* __restrict positions, const T* __restrict x,
                    int32_t position, TapRange range, Stride stride) {
    for (int64_t o = range.first; o < range.last; ++o) {
        const T value = x[o * stride];
        const bool wins = (value > best[o]) | ((value != value) & (best[o] == best[o]));
        best[o] = wins ? value : best[o];
        positions[o] = wins ? int32_t(position + o * stride) : positions[o];
    }
}

// out[o] = max over i, j of x[o*stride - pad + i*dilation, ..] with its position in the plane:
// out, positions (N, C, OH, OW), x (N, C, H, W).
template <class T>
void max_pool2d_forward(const MaxPool2dForward<T>& a) {
    const Pool2dShape& s = a.shape;
    const PoolAxis y = rows_of(s), x = columns_of(s);
    const PoolRow row(x);
    const int64_t plane = s.height * s.width, out_plane = s.out_h * s.out_w;
    const double work = double(2 * s.kernel_h * s.kernel_w) + 8;
    for_planes(s.batch * s.channels, out_plane, work, [&](int64_t index) {
        const T* source = a.x + index * plane;
        for (int64_t oh = 0; oh < s.out_h; ++oh) {
            T* best = a.out + index * out_plane + oh * s.out_w;
            int32_t* positions = a.positions + index * out_plane + oh * s.out_w;
            const int32_t first_row = int32_t(y.position(oh, y.first_tap(oh)) * s.width);
            for (int64_t ow = 0; ow < s.out_w; ++ow) {  // so a window full of -inf has a position too
                best[ow] = T(-__builtin_inf());
                positions[ow] = first_row + row.first[ow];
            }
            with_stride(s.stride_w, [&](auto stride) {
                for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, TapRange range) {
                    const int64_t at =
                        iy * s.width + ix;  // may lie before the plane, range then starts later
                    max_pool2d_tap(best, positions, source + at, int32_t(at), range, stride);
                });
            });
        }
    });
}

template <class T>
bool positions_inside(const MaxPool2dAtPositions<T>& a, int64_t index) {
    const int32_t* positions = a.positions + index * a.out_plane;
    bool inside = true;
    for (int64_t o = 0; o < a.out_plane; ++o) inside &= positions[o] >= 0 && positions[o] < a.plane;
    return inside;
}

// out[p] = sum of dy[o] with positions[o] = p, in each plane: out (planes, plane), dy, positions (planes,
// out_plane).
template <class T>
bool max_pool2d_backward(const MaxPool2dAtPositions<T>& a) {
    bool failed = false;
    for_planes(a.planes, a.plane + a.out_plane, 2, [&](int64_t index) {
        if (!positions_inside(a, index)) return __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
        T* out = a.out + index * a.plane;
        const T* dy = a.in + index * a.out_plane;
        const int32_t* positions = a.positions + index * a.out_plane;
        for (int64_t p = 0; p < a.plane; ++p) out[p] = 0;
        for (int64_t o = 0; o < a.out_plane; ++o) out[positions[o]] += dy[o];
    });
    return !failed;
}

// out[o] = x[positions[o]] in each plane: out, positions (planes, out_plane), x (planes, plane).
template <class T>
bool max_pool2d_gather(const MaxPool2dAtPositions<T>& a) {
    bool failed = false;
    for_planes(a.planes, a.out_plane, 4, [&](int64_t index) {
        if (!positions_inside(a, index)) return __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
        const T* x = a.in + index * a.plane;
        const int32_t* positions = a.positions + index * a.out_plane;
        for (int64_t o = 0; o < a.out_plane; ++o) a.out[index * a.out_plane + o] = x[positions[o]];
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
                for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, TapRange range) {
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
                           for_taps(y, x, row, oh, [&](int64_t iy, int64_t ix, TapRange range) {
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
