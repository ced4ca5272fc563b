// The three passes of a 2-D convolution; conv2d_shape.h holds the definition of y. All arrays are contiguous.
#pragma once
#include "cpu/gemm.h"
#include "shared/conv2d_shape.h"

namespace tinygrad_nm {

// out (N, O, OH, OW) = activation(y + bias[o]) from x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or
// null.
template <class T>
struct Conv2dForward {
    T* out;
    const T* x;
    const T* w;
    const T* bias;
    Conv2dShape shape;
    Activation activation = Activation::identity;
    T parameter = 0;
};

// The adjoint in x: out (N, C, H, W) from dy (N, O, OH, OW), w (O, C/groups, KH, KW),
//   out[n, c, ih, iw] = sum over o in the group of c, i, j of w[o, c, i, j] * dy[n, o, oh, ow]
// over the (oh, ow) inside of dy with oh*stride_h = ih + pad_top - i*dilation_h, ow*stride_w = iw + pad_left
// - j*dilation_w. Every element is written. An infinite or NaN weight may reach results whose (oh, ow) would
// lie outside of dy too, as a product with zero: the two algorithms behind this differ there, and only there.
template <class T>
struct Conv2dBackwardInput {
    T* out;
    const T* dy;
    const T* w;
    Conv2dShape shape;
};

// The adjoint in w: out (O, C/groups, KH, KW) from x (N, C, H, W), dy (N, O, OH, OW),
//   out[o, c, i, j] = sum over n, oh, ow of dy[n, o, oh, ow] * x[n, c, oh*stride_h - pad_top + i*dilation_h,
//                                                                      ow*stride_w - pad_left + j*dilation_w]
// with c in the group of o and x = 0 outside of its plane. Zero for an empty batch.
template <class T>
struct Conv2dBackwardWeight {
    T* out;
    const T* x;
    const T* dy;
    Conv2dShape shape;
};

}  // namespace tinygrad_nm
