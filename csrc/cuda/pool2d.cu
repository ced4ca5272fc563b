// 2-D pooling; shapes and sums in shared/pool2d.h.
//
// A thread has a place in the planes of the result, and goes through the planes. Forward it asks the taps of
// a window; backward the windows that have a tap at its number, in the order of dy, so that each sum has one
// order and one writer.
#include "cuda/kernels.cuh"
#include "cuda/planes.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// The numbers of one axis of any pooling.
struct AnyWindows {
    using Place = int64_t;
    static constexpr bool fixed = false;
    int64_t size, windows, pad, pad_after, taps, stride, dilation;
};
// The windows of the networks, in planes whose places fit into 32 bits.
template <int K>
struct Stride2Windows {
    using Place = int;
    static constexpr bool fixed = true;
    static constexpr int taps = K, stride = 2, dilation = 1;
    int size, windows, pad, pad_after;
};

template <class Place>
struct Range {
    Place first, end;
    __device__ __forceinline__ bool holds(Place i) const { return i >= first && i < end; }
};

// Window o, tap i lies at o * stride - pad + i * dilation.
template <class Numbers>
struct Axis : Numbers {
    using Place = typename Numbers::Place;
    using Numbers::dilation, Numbers::pad, Numbers::pad_after, Numbers::size, Numbers::stride, Numbers::taps,
        Numbers::windows;

    __device__ __forceinline__ Place position(Place window, Place tap) const {
        return window * stride - pad + tap * dilation;
    }
    __device__ __forceinline__ bool inside(Place position) const { return position >= 0 && position < size; }
    // Taps from `start` on that lie before `end`.
    __device__ __forceinline__ Place reached(Place start, Place end) const {
        const Place all = (end - start + dilation - 1) / dilation;
        return all < taps ? all : taps;
    }
    // The taps inside: the shape's builder has made sure that there is one.
    __device__ __forceinline__ Range<Place> taps_inside(Place window) const {
        const Place start = position(window, 0);
        return {start >= 0 ? 0 : (dilation - 1 - start) / dilation, reached(start, size)};
    }
    // How many the divisor of a mean counts.
    __device__ __forceinline__ Place counted(Place window, bool include_pad) const {
        const Range<Place> in = taps_inside(window);
        return include_pad ? reached(position(window, 0), size + pad_after) : in.end - in.first;
    }
    // Windows with a tap at a position, that of a dilated one perhaps between its taps.
    __device__ __forceinline__ Range<Place> windows_at(Place position) const {
        const Place place = position + pad, reach = (taps - 1) * dilation, newest = place / stride;
        return {place <= reach ? 0 : (place - reach - 1) / stride + 1,
                newest < windows ? newest + 1 : windows};
    }
    // The tap of such a window there, -1 if it lies between two.
    __device__ __forceinline__ Place tap_at(Place window, Place position) const {
        const Place offset = position + pad - window * stride;
        if (dilation == 1) return offset;
        const Place tap = offset / dilation;
        return tap * dilation == offset ? tap : -1;
    }
};

// use(value, tap) for the taps of a window in order: those inside, or all of them with `outside` on the
// padding, so that all loads can be under way at once. x: the plane.
template <class T, class Axis, class Place, class Use>
__device__ __forceinline__ void for_taps(const T* x, const Axis& rows, const Axis& columns, Place oh,
                                         Place ow, T outside, const Use& use) {
    const Range<Place> in_column = rows.taps_inside(oh), in_row = columns.taps_inside(ow);
    if constexpr (Axis::fixed) {
        constexpr int taps = Axis::taps;
        const Place corner = rows.position(oh, 0) * columns.size + columns.position(ow, 0);
        T value[taps][taps];
#pragma unroll
        for (int i = 0; i < taps; ++i)
#pragma unroll
            for (int j = 0; j < taps; ++j)
                value[i][j] =
                    in_column.holds(i) && in_row.holds(j) ? x[corner + i * columns.size + j] : outside;
#pragma unroll
        for (int i = 0; i < taps; ++i)
#pragma unroll
            for (int j = 0; j < taps; ++j) use(value[i][j], Place(i * taps + j));
    } else {
        for (Place i = in_column.first; i < in_column.end; ++i) {
            const T* const row = x + rows.position(oh, i) * columns.size;
            for (Place j = in_row.first; j < in_row.end; ++j)
                use(row[columns.position(ow, j)], i * columns.taps + j);
        }
    }
}

// use(what load(window's place among those of its plane) gives, oh, ow, tap) for the windows with a tap at
// (h, w), in the order of dy. Where there are few of them, all loads come first.
template <class Axis, class Place, class Load, class Use>
__device__ __forceinline__ void for_windows_at(const Axis& rows, const Axis& columns, Place h, Place w,
                                               const Load& load, const Use& use) {
    const Range<Place> down = rows.windows_at(h), across = columns.windows_at(w);
    if constexpr (Axis::fixed) {
        constexpr int most = (Axis::taps + Axis::stride - 1) / Axis::stride;
        decltype(load(Place())) loaded[most][most];
#pragma unroll
        for (int a = 0; a < most; ++a)
#pragma unroll
            for (int b = 0; b < most; ++b)
                if (down.first + a < down.end && across.first + b < across.end)
                    loaded[a][b] = load((down.first + a) * columns.windows + across.first + b);
#pragma unroll
        for (int a = 0; a < most; ++a)
#pragma unroll
            for (int b = 0; b < most; ++b) {
                const Place oh = down.first + a, ow = across.first + b;
                if (oh < down.end && ow < across.end)
                    use(loaded[a][b], oh, ow, rows.tap_at(oh, h) * Axis::taps + columns.tap_at(ow, w));
            }
    } else {
        for (Place oh = down.first; oh < down.end; ++oh) {
            const Place i = rows.tap_at(oh, h);
            for (Place ow = across.first; ow < across.end && i >= 0; ++ow) {
                const Place j = columns.tap_at(ow, w);
                if (j >= 0) use(load(oh * columns.windows + ow), oh, ow, i * columns.taps + j);
            }
        }
    }
}

// The place in the plane of a window's tap, -1 if it is none of the window or on the padding.
template <class Axis, class Place>
__device__ __forceinline__ Place place_of_tap(const Axis& rows, const Axis& columns, Place oh, Place ow,
                                              Place tap) {
    const Place i = tap / columns.taps, j = tap % columns.taps;
    if (tap < 0 || i >= rows.taps) return -1;
    const Place h = rows.position(oh, i), w = columns.position(ow, j);
    return rows.inside(h) && columns.inside(w) ? h * columns.size + w : -1;
}

// Remembered taps are bytes where `bytes` says so, and those of Stride2Windows always, else int32.
template <class Axis>
__device__ __forceinline__ typename Axis::Place remembered_tap(const void* taps, int64_t o, bool bytes) {
    return Axis::fixed || bytes ? static_cast<const uint8_t*>(taps)[o] : static_cast<const int32_t*>(taps)[o];
}

template <class Axis>
__device__ __forceinline__ int64_t places(const Axis& rows, const Axis& columns) {
    return int64_t(rows.size) * columns.size;
}
template <class Axis>
__device__ __forceinline__ int64_t windows(const Axis& rows, const Axis& columns) {
    return int64_t(rows.windows) * columns.windows;
}

// out, taps (N, C, OH, OW) from x (N, C, H, W): the maximum of each window and its tap. A window full of -inf
// has its first tap inside.
template <class T, class Axis>
__global__ void __launch_bounds__(plane_threads, 1)
    max_pool2d_windows(const MaxPool2dForward<T> a, const Axis rows, const Axis columns, const bool bytes) {
    using Place = typename Axis::Place;
    for_places(rows.windows, columns.windows, [&](Place oh, Place ow) {
        const Place first = rows.taps_inside(oh).first * columns.taps + columns.taps_inside(ow).first;
        for_planes(a.shape.batch * a.shape.channels, [&](int64_t plane) {
            T best = T(-INFINITY);
            Place chosen = first;
            for_taps(a.x + plane * places(rows, columns), rows, columns, oh, ow, T(-INFINITY),
                     [&](T value, Place tap) {
                         const bool wins = !(value <= best) & (best == best);  // larger, or the first NaN
                         best = wins ? value : best;
                         chosen = wins ? tap : chosen;
                     });
            const int64_t o = plane * windows(rows, columns) + oh * columns.windows + ow;
            a.out[o] = best;
            if (Axis::fixed || bytes)
                static_cast<uint8_t*>(a.taps)[o] = uint8_t(chosen);
            else
                static_cast<int32_t*>(a.taps)[o] = int32_t(chosen);
        });
    });
}

template <class T, class Place>
struct Remembered {
    T value;
    Place tap;
};

// out (N, C, H, W) = sum of the dy (N, C, OH, OW) whose tap it is; NaN under a window whose tap is wrong.
// `whole`: no window reaches beyond the plane.
template <class T, class Axis>
__global__ void __launch_bounds__(plane_threads, 1)
    max_pool2d_gradient(const MaxPool2dAtTaps<T> a, const Axis rows, const Axis columns, const bool bytes,
                        const bool whole) {
    using Place = typename Axis::Place;
    for_places(rows.size, columns.size, [&](Place h, Place w) {
        for_planes(a.shape.batch * a.shape.channels, [&](int64_t plane) {
            const int64_t first = plane * windows(rows, columns);
            T sum = 0;
            const auto load = [&](Place o) {
                return Remembered<T, Place>{a.in[first + o], remembered_tap<Axis>(a.taps, first + o, bytes)};
            };
            for_windows_at(rows, columns, h, w, load,
                           [&](const Remembered<T, Place>& dy, Place oh, Place ow, Place own) {
                               const bool wrong = whole ? dy.tap < 0 || dy.tap >= rows.taps * columns.taps
                                                        : place_of_tap(rows, columns, oh, ow, dy.tap) < 0;
                               if (dy.tap == own) sum += dy.value;
                               if (wrong) sum = T(NAN);
                           });
            a.out[plane * places(rows, columns) + h * columns.size + w] = sum;
        });
    });
}

// out (N, C, OH, OW) = x (N, C, H, W) at the taps, NaN where one is wrong.
template <class T, class Axis>
__global__ void __launch_bounds__(plane_threads, 1)
    max_pool2d_at_taps(const MaxPool2dAtTaps<T> a, const Axis rows, const Axis columns, const bool bytes) {
    using Place = typename Axis::Place;
    for_places(rows.windows, columns.windows, [&](Place oh, Place ow) {
        for_planes(a.shape.batch * a.shape.channels, [&](int64_t plane) {
            const int64_t o = plane * windows(rows, columns) + oh * columns.windows + ow;
            const Place from = place_of_tap(rows, columns, oh, ow, remembered_tap<Axis>(a.taps, o, bytes));
            a.out[o] = from < 0 ? T(NAN) : a.in[plane * places(rows, columns) + from];
        });
    });
}

// out (N, C, OH, OW) = (sum of the taps of x (N, C, H, W) inside) / divisor.
template <class T, class Axis>
__global__ void __launch_bounds__(plane_threads, 1)
    avg_pool2d_windows(const AvgPool2dForward<T> a, const Axis rows, const Axis columns) {
    using Place = typename Axis::Place;
    for_places(rows.windows, columns.windows, [&](Place oh, Place ow) {
        const T divisor =
            T(rows.counted(oh, a.count_include_pad)) * T(columns.counted(ow, a.count_include_pad));
        for_planes(a.shape.batch * a.shape.channels, [&](int64_t plane) {
            T sum = 0;
            for_taps(a.x + plane * places(rows, columns), rows, columns, oh, ow, T(0),
                     [&](T value, Place) { sum += value; });
            a.out[plane * windows(rows, columns) + oh * columns.windows + ow] = sum / divisor;
        });
    });
}

// out (N, C, H, W) = sum of dy (N, C, OH, OW) / divisor over the windows that hold it: one division where the
// divisor is `all_taps` in every window, which is 0 where it is not.
template <class T, class Axis>
__global__ void __launch_bounds__(plane_threads, 1)
    avg_pool2d_gradient(const AvgPool2dBackward<T> a, const Axis rows, const Axis columns, const T all_taps) {
    using Place = typename Axis::Place;
    for_places(rows.size, columns.size, [&](Place h, Place w) {
        for_planes(a.shape.batch * a.shape.channels, [&](int64_t plane) {
            const T* const dy = a.dy + plane * windows(rows, columns);
            T sum = 0;
            const auto load = [&](Place o) { return dy[o]; };
            for_windows_at(rows, columns, h, w, load, [&](T share, Place oh, Place ow, Place) {
                sum += all_taps != 0 ? share
                                     : share / (T(rows.counted(oh, a.count_include_pad)) *
                                                T(columns.counted(ow, a.count_include_pad)));
            });
            a.out[plane * places(rows, columns) + h * columns.size + w] =
                all_taps != 0 ? sum / all_taps : sum;
        });
    });
}

// Whether every window ends before the plane does, or, with its padding counted, before that does.
bool ends_inside(const Pool2dShape& s, int64_t pad_bottom, int64_t pad_right) {
    return (s.out_h - 1) * s.stride_h - s.pad_top + (s.kernel_h - 1) * s.dilation_h < s.height + pad_bottom &&
           (s.out_w - 1) * s.stride_w - s.pad_left + (s.kernel_w - 1) * s.dilation_w < s.width + pad_right;
}
bool whole_windows(const Pool2dShape& s) {
    return s.pad_top == 0 && s.pad_left == 0 && ends_inside(s, 0, 0);
}

// 2 or 3 if Stride2Windows can be used, else 0. One window has no stride.
int stride2_kernel(const Pool2dShape& s) {
    constexpr int64_t most = 1 << 30;
    const int64_t k = s.kernel_h;
    const bool fits = (k == 2 || k == 3) && s.kernel_w == k && (s.stride_h == 2 || s.out_h == 1) &&
                      (s.stride_w == 2 || s.out_w == 1) && s.dilation_h == 1 && s.dilation_w == 1;
    const bool small = s.height < most / s.width && s.pad_top + s.pad_bottom + s.height < most &&
                       s.pad_left + s.pad_right + s.width < most && s.out_h < most / s.out_w;
    return fits && small ? int(k) : 0;
}

template <int K, class Launch>
void with_stride2(const Pool2dShape& s, const Launch& launch) {
    using Numbers = Stride2Windows<K>;
    launch(Axis<Numbers>{{int(s.height), int(s.out_h), int(s.pad_top), int(s.pad_bottom)}},
           Axis<Numbers>{{int(s.width), int(s.out_w), int(s.pad_left), int(s.pad_right)}});
}
template <class Launch>
void with_any(const Pool2dShape& s, const Launch& launch) {
    launch(
        Axis<AnyWindows>{{s.height, s.out_h, s.pad_top, s.pad_bottom, s.kernel_h, s.stride_h, s.dilation_h}},
        Axis<AnyWindows>{{s.width, s.out_w, s.pad_left, s.pad_right, s.kernel_w, s.stride_w, s.dilation_w}});
}

// launch(rows, columns) with the axes of this pooling.
template <class Launch>
void with_axes(const Pool2dShape& s, const Launch& launch) {
    if (s.batch == 0) return;
    const int kernel = stride2_kernel(s);
    kernel == 2 ? with_stride2<2>(s, launch) : kernel == 3 ? with_stride2<3>(s, launch) : with_any(s, launch);
}

PlaneBlocks over_windows(const Pool2dShape& s) {
    return blocks_over(s.batch * s.channels, s.out_h, s.out_w);
}
PlaneBlocks over_places(const Pool2dShape& s) {
    return blocks_over(s.batch * s.channels, s.height, s.width);
}

}  // namespace

template <class T>
void max_pool2d_forward(const MaxPool2dForward<T>& a) {
    const bool bytes = taps_are_bytes(a.shape);
    with_axes(a.shape, [&](auto rows, auto columns) {
        const PlaneBlocks b = over_windows(a.shape);
        LAUNCH((max_pool2d_windows<T, decltype(rows)>), b.grid, b.block, 0, a, rows, columns, bytes);
    });
}
template void max_pool2d_forward<float>(const MaxPool2dForward<float>&);
template void max_pool2d_forward<double>(const MaxPool2dForward<double>&);

template <class T>
bool max_pool2d_backward(const MaxPool2dAtTaps<T>& a) {
    const bool bytes = taps_are_bytes(a.shape), whole = whole_windows(a.shape);
    with_axes(a.shape, [&](auto rows, auto columns) {
        const PlaneBlocks b = over_places(a.shape);
        LAUNCH((max_pool2d_gradient<T, decltype(rows)>), b.grid, b.block, 0, a, rows, columns, bytes, whole);
    });
    return true;
}
template bool max_pool2d_backward<float>(const MaxPool2dAtTaps<float>&);
template bool max_pool2d_backward<double>(const MaxPool2dAtTaps<double>&);

template <class T>
bool max_pool2d_gather(const MaxPool2dAtTaps<T>& a) {
    const bool bytes = taps_are_bytes(a.shape);
    with_axes(a.shape, [&](auto rows, auto columns) {
        const PlaneBlocks b = over_windows(a.shape);
        LAUNCH((max_pool2d_at_taps<T, decltype(rows)>), b.grid, b.block, 0, a, rows, columns, bytes);
    });
    return true;
}
template bool max_pool2d_gather<float>(const MaxPool2dAtTaps<float>&);
template bool max_pool2d_gather<double>(const MaxPool2dAtTaps<double>&);

template <class T>
void avg_pool2d_forward(const AvgPool2dForward<T>& a) {
    with_axes(a.shape, [&](auto rows, auto columns) {
        const PlaneBlocks b = over_windows(a.shape);
        LAUNCH((avg_pool2d_windows<T, decltype(rows)>), b.grid, b.block, 0, a, rows, columns);
    });
}
template void avg_pool2d_forward<float>(const AvgPool2dForward<float>&);
template void avg_pool2d_forward<double>(const AvgPool2dForward<double>&);

template <class T>
void avg_pool2d_backward(const AvgPool2dBackward<T>& a) {
    const Pool2dShape& s = a.shape;
    const bool same = a.count_include_pad ? ends_inside(s, s.pad_bottom, s.pad_right) : whole_windows(s);
    const T all_taps = same ? T(s.kernel_h) * T(s.kernel_w) : T(0);
    with_axes(s, [&](auto rows, auto columns) {
        const PlaneBlocks b = over_places(a.shape);
        LAUNCH((avg_pool2d_gradient<T, decltype(rows)>), b.grid, b.block, 0, a, rows, columns, all_taps);
    });
}
template void avg_pool2d_backward<float>(const AvgPool2dBackward<float>&);
template void avg_pool2d_backward<double>(const AvgPool2dBackward<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
