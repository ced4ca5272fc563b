// The geometry of 2-D pooling, checked once; the CPU and the CUDA kernels read nothing else about shapes.
//
//   y[n, c, oh, ow] = max or mean over i < KH, j < KW of
//       x[n, c, oh*stride_h - pad_top + i*dilation_h, ow*stride_w - pad_left + j*dilation_w]
//
// Maximum: taps outside of the plane never win. Mean: they count as zeros; the divisor is the number of taps,
// those on the padding included (count_include_pad) or not; taps beyond the padding, which ceil_mode can
// reach, never count.
#pragma once

#include "shared/conv2d_shape.h"

namespace tinygrad_nm {

// Plain numbers only: the struct is passed by value to kernels, on a device too.
struct Pool2dShape {
    int64_t batch, channels, height, width;  // x (N, C, H, W)
    int64_t out_h, out_w;                    // y (N, C, OH, OW)
    int64_t kernel_h, kernel_w, stride_h, stride_w;
    int64_t pad_top, pad_bottom, pad_left, pad_right;
    int64_t dilation_h, dilation_w;
};

// The geometry as the bindings pass it.
struct Pool2dGeometry {
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h,
        dilation_w;
    bool ceil_mode;
};

// Number of windows. ceil_mode keeps a last window that the padded input covers in part, then drops the last
// one if it starts in the padding behind the input (PyTorch's rule).
inline int64_t window_count(const char* operation, const WindowAxis& axis, bool ceil_mode) {
    const int64_t room = axis.padded(operation) - axis.extent(operation);
    const int64_t count = room / axis.stride + 1;
    if (!ceil_mode) return count;
    const int64_t with_partial = count + (room % axis.stride != 0);
    const bool last_starts_behind = (with_partial - 1) * axis.stride >= axis.size + axis.pad_before;
    return with_partial - last_starts_behind;
}

// Whether each of the first `count` windows has a tap inside [0, size).
inline bool every_window_has_an_element(const WindowAxis& axis, int64_t count) {
    auto has_an_element = [&](int64_t window) {
        const int64_t start = window * axis.stride - axis.pad_before;
        const int64_t skipped = start >= 0 ? 0 : (-start + axis.dilation - 1) / axis.dilation;
        return skipped < axis.kernel && start + skipped * axis.dilation < axis.size;
    };
    for (int64_t window = 0; window < count && window * axis.stride < axis.pad_before; ++window)
        if (!has_an_element(window)) return false;
    return has_an_element(count - 1);  // windows that start inside have their first tap there
}

// Builds the shape from x (N, C, H, W) and the geometry. N = 0 is allowed, every other size must be positive,
// and every window must hold an element of the input. Throws std::invalid_argument (what, where, how to mend)
// or overflow_error.
inline Pool2dShape pool2d_shape(const char* operation, const std::array<int64_t, 4>& x,
                                const Pool2dGeometry& geometry) {
    const Pool2dGeometry& g = geometry;
    if (x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
        throw std::invalid_argument(std::string(operation) + ": input " +
                                    sizes_text({x[0], x[1], x[2], x[3]}) +
                                    " (N, C, H, W) must have positive sizes; only the batch may be 0");
    WindowAxis height{x[2], g.kernel_h, g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h};
    WindowAxis width{x[3], g.kernel_w, g.stride_w, g.pad_left, g.pad_right, g.dilation_w};
    check_window(operation, height, width);
    Pool2dShape s{};
    s.batch = x[0], s.channels = x[1], s.height = x[2], s.width = x[3];
    s.out_h = window_count(operation, height, g.ceil_mode),
    s.out_w = window_count(operation, width, g.ceil_mode);
    height = settled(height, s.out_h), width = settled(width, s.out_w);
    s.kernel_h = g.kernel_h, s.kernel_w = g.kernel_w, s.stride_h = height.stride, s.stride_w = width.stride;
    s.pad_top = g.pad_top, s.pad_bottom = g.pad_bottom, s.pad_left = g.pad_left, s.pad_right = g.pad_right;
    s.dilation_h = height.dilation, s.dilation_w = width.dilation;
    if (!every_window_has_an_element(height, s.out_h) || !every_window_has_an_element(width, s.out_w))
        throw std::invalid_argument(
            std::string(operation) + ": padding (" + sizes_text({g.pad_top, g.pad_bottom}) + ", " +
            sizes_text({g.pad_left, g.pad_right}) + ") leaves a window of kernel " +
            sizes_text({g.kernel_h, g.kernel_w}) + " without any element of the input " +
            sizes_text({x[0], x[1], x[2], x[3]}) + "; pad less");
    checked_product(operation, {s.batch, s.channels, height.padded(operation), width.padded(operation), 8});
    checked_product(operation, {s.batch, s.channels, s.out_h, s.out_w, 8});
    return s;
}

// Whether the number of a tap in its window fits into a byte; else it is an int32, which check_taps_fit makes
// sure of.
inline bool taps_are_bytes(const Pool2dShape& s) {
    return s.kernel_h <= 256 && s.kernel_w <= 256 && s.kernel_h * s.kernel_w <= 256;
}
inline void check_taps_fit(const char* operation, int64_t kernel_h, int64_t kernel_w) {
    if (checked_product(operation, {kernel_h, kernel_w}) > INT32_MAX)
        throw std::invalid_argument(std::string(operation) + ": a window of " +
                                    sizes_text({kernel_h, kernel_w}) +
                                    " elements is too large for 32-bit positions; use a smaller kernel");
}

}  // namespace tinygrad_nm
