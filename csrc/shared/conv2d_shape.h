// The geometry of a 2-D convolution, checked once; the CPU and the CUDA kernels read nothing else about
// shapes.
//
//   y[n, o, oh, ow] = sum over c < C/groups, i < KH, j < KW of
//       w[o, c, i, j] * x[n, group(o) * C/groups + c, oh*stride_h - pad_top + i*dilation_h,
//                                                     ow*stride_w - pad_left + j*dilation_w]
//   with group(o) = o / (O/groups) and x = 0 outside its plane.
//
// Those zeros are values like any other: a NaN or infinite weight over the padding gives NaN, as it does
// where the padded image is stored. The same holds in the gradient of w.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "shared/checked.h"

namespace tinygrad_nm {

// Plain numbers only: the struct is passed by value to kernels, on a device too.
struct Conv2dShape {
    int64_t batch, channels, height, width;  // x (N, C, H, W)
    int64_t filters, kernel_h, kernel_w;     // w (O, C/groups, KH, KW)
    int64_t out_h, out_w;                    // y (N, O, OH, OW)
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_bottom, pad_left, pad_right;
    int64_t dilation_h, dilation_w;
    int64_t groups, group_channels, group_filters;  // group_channels = C/groups, group_filters = O/groups
};

// "(1, 3, 28, 28)"
inline std::string sizes_text(std::initializer_list<int64_t> sizes) {
    std::string text = "(";
    for (const int64_t* size = sizes.begin(); size != sizes.end(); ++size) {
        if (size != sizes.begin()) text += ", ";
        text += std::to_string(*size);
    }
    return text + (sizes.size() == 1 ? ",)" : ")");
}

// What a convolution and a pooling window have in common along one axis.
struct WindowAxis {
    int64_t size, kernel, stride, pad_before, pad_after, dilation;

    int64_t padded(const char* operation) const {
        return checked_add(operation, checked_add(operation, size, pad_before), pad_after);
    }
    int64_t extent(const char* operation) const {
        return checked_add(operation, checked_product(operation, {dilation, kernel - 1}), 1);
    }
};

// Throws std::invalid_argument unless kernel, stride and dilation are positive, the padding is not negative
// and the kernel fits into the padded input; `height` and `width` are the two axes.
inline void check_window(const char* operation, const WindowAxis& height, const WindowAxis& width) {
    auto positive = [&](const char* what, int64_t h, int64_t w) {
        if (h < 1 || w < 1)
            throw std::invalid_argument(std::string(operation) + ": " + what + " must be positive, got " +
                                        sizes_text({h, w}));
    };
    positive("kernel size", height.kernel, width.kernel);
    positive("stride", height.stride, width.stride);
    positive("dilation", height.dilation, width.dilation);
    const bool negative =
        height.pad_before < 0 || height.pad_after < 0 || width.pad_before < 0 || width.pad_after < 0;
    if (negative)
        throw std::invalid_argument(std::string(operation) + ": padding must not be negative, got (" +
                                    sizes_text({height.pad_before, height.pad_after}) + ", " +
                                    sizes_text({width.pad_before, width.pad_after}) + ")");
    if (height.extent(operation) > height.padded(operation) ||
        width.extent(operation) > width.padded(operation)) {
        const bool dilated = height.dilation > 1 || width.dilation > 1;
        const std::string with_dilation =
            dilated ? " with dilation " + sizes_text({height.dilation, width.dilation}) : std::string();
        throw std::invalid_argument(std::string(operation) + ": kernel " +
                                    sizes_text({height.kernel, width.kernel}) + with_dilation +
                                    " is larger than the padded input " +
                                    sizes_text({height.padded(operation), width.padded(operation)}));
    }
}

// The axis with a stride of 1 where there is one result, and a dilation of 1 where there is one tap: neither
// is ever taken, and so every later sum of them stays within the padded input.
inline WindowAxis settled(WindowAxis axis, int64_t results) {
    if (results == 1) axis.stride = 1;
    if (axis.kernel == 1) axis.dilation = 1;
    return axis;
}

// The geometry as the bindings pass it.
struct Conv2dGeometry {
    int64_t stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups;
};

// Builds the shape from x (N, C, H, W), w (O, C/groups, KH, KW) and the geometry. N = 0 is allowed, every
// other size must be positive. Throws std::invalid_argument (what, where, how to mend) or
// std::overflow_error.
inline Conv2dShape conv2d_shape(const char* operation, const std::array<int64_t, 4>& x,
                                const std::array<int64_t, 4>& w, const Conv2dGeometry& geometry) {
    const Conv2dGeometry& g = geometry;
    const std::string x_text = sizes_text({x[0], x[1], x[2], x[3]});
    const std::string w_text = sizes_text({w[0], w[1], w[2], w[3]});
    auto fail = [&](const std::string& what) {
        throw std::invalid_argument(std::string(operation) + ": " + what);
    };
    if (x[0] < 0 || x[1] < 1 || x[2] < 1 || x[3] < 1)
        fail("input " + x_text + " (N, C, H, W) must have positive sizes; only the batch may be 0");
    if (w[0] < 1 || w[1] < 1 || w[2] < 1 || w[3] < 1)
        fail("weight " + w_text + " (O, C/groups, KH, KW) must have positive sizes");
    if (g.groups < 1) fail("groups must be positive, got " + std::to_string(g.groups));
    if (x[1] % g.groups != 0)
        fail("input has " + std::to_string(x[1]) + " channels, shape " + x_text +
             ", not a multiple of groups=" + std::to_string(g.groups));
    if (w[0] % g.groups != 0)
        fail("weight " + w_text + " has " + std::to_string(w[0]) +
             " filters, not a multiple of groups=" + std::to_string(g.groups));
    if (x[1] / g.groups != w[1])
        fail("input has " + std::to_string(x[1]) + " channels, shape " + x_text + ", but weight " + w_text +
             " expects " + std::to_string(checked_product(operation, {w[1], g.groups})) +
             " (groups=" + std::to_string(g.groups) + ")");
    WindowAxis height{x[2], w[2], g.stride_h, g.pad_top, g.pad_bottom, g.dilation_h};
    WindowAxis width{x[3], w[3], g.stride_w, g.pad_left, g.pad_right, g.dilation_w};
    check_window(operation, height, width);
    Conv2dShape s{};
    s.batch = x[0], s.channels = x[1], s.height = x[2], s.width = x[3];
    s.filters = w[0], s.kernel_h = w[2], s.kernel_w = w[3];
    s.out_h = (height.padded(operation) - height.extent(operation)) / g.stride_h + 1;
    s.out_w = (width.padded(operation) - width.extent(operation)) / g.stride_w + 1;
    height = settled(height, s.out_h), width = settled(width, s.out_w);
    s.stride_h = height.stride, s.stride_w = width.stride;
    s.pad_top = g.pad_top, s.pad_bottom = g.pad_bottom, s.pad_left = g.pad_left, s.pad_right = g.pad_right;
    s.dilation_h = height.dilation, s.dilation_w = width.dilation;
    s.groups = g.groups, s.group_channels = x[1] / g.groups, s.group_filters = w[0] / g.groups;
    checked_product(operation, {s.batch, s.channels, height.padded(operation), width.padded(operation),
                                8});  // bytes of the padded input
    checked_product(operation, {s.batch, s.filters, s.out_h, s.out_w, 8});
    checked_product(operation, {s.filters, s.group_channels, s.kernel_h, s.kernel_w, 8});
    return s;
}

}  // namespace tinygrad_nm
