// A convolution's shape from the arrays and the geometry that Python passes.
#pragma once
#include <array>

#include "bindings/arguments.h"
#include "shared/conv2d.h"

namespace tinygrad_nm {

// (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups)
using ConvGeometry = Integers<9>;

template <class A>
std::array<int64_t, 4> four_sizes(const Operation& op, const char* argument, const A& array,
                                  const char* names) {
    op.expect_ndim(argument, array.shape, 4, names);
    return {array.shape[0], array.shape[1], array.shape[2], array.shape[3]};
}

template <class X, class W>
Conv2dShape conv2d_shape_of(const Operation& op, const char* x_name, const X& x, const W& w,
                            const ConvGeometry& g) {
    const std::array<int64_t, 4> x_shape = four_sizes(op, x_name, x, "(N, C, H, W)");
    return conv2d_shape(op.name(), x_shape, four_sizes(op, "w", w, "(O, C/groups, KH, KW)"),
                        {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8]});
}

inline Shape conv2d_result(const Conv2dShape& s) {
    return {s.batch, s.filters, s.out_h, s.out_w};
}

inline double conv2d_work(const Conv2dShape& s) {
    return 2.0 * double(s.batch * s.out_h * s.out_w) *
           double(s.filters * s.group_channels * s.kernel_h * s.kernel_w);
}

// What the process, and this thread, allow of Winograd's algorithm for convolutions of this type.
template <class T>
Winograd winograd_choice();

}  // namespace tinygrad_nm
