// The three passes of a 2-D convolution; conv2d_shape.h holds the definition of y. All arrays are contiguous.
#pragma once
#include "shared/conv2d_shape.h"
#include "shared/gemm.h"

namespace tinygrad_nm {

// Whether the passes may run by Winograd's minimal filtering with the points 0, +-1, +-2 and infinity: on
// CUDA F(4x4, 3x3), for 3x3 filters at stride 1 and dilation 1; on the CPU F(2x2, 5x5) as well, for 5x5
// filters, and, but for the gradient in x, for those of few channels at stride 2 to 4 that have such filters
// on the phases of the image (conv2d_phases_body.h). The kernels of conv2d_pool2d.h have the second
// (conv2d_interleaved_winograd_body.h). `where_it_pays` decides by the shape; `always`, wherever it can be
// used, is for tests. The sums below are then rounded differently:
// - In float32 with numbers drawn from N(0, 1) and up to 384 channels, errors against float64 are 1e-6 to
//   4e-6 (root mean square, relative to that of the results), some ten times those of the plain sums, and at
//   the most 3e-5 of the largest result (plain: 5e-7). Where all numbers have one sign: 3e-7 and 3e-6.
// - Whole numbers give the plain sums bit for bit where w, or in the gradient of w dy, are multiples of 576,
//   as long as no intermediate sum needs more bits than a number has.
// - A NaN or infinity in x (forward) or dy (backward-input) may make NaN of any result of the tiles that read
//   it, 4x4 or 2x2 results which read 6x6 numbers (of every phase), where the plain sums reach KH x KW, or in
//   the gradient of x the 6x6 that a tile of 2x2 numbers of dy reaches; one
//   in w, of all results of its filter or channel; one in x or dy, of all weights of its channel or filter.
// - Intermediate sums are up to 100 times larger than x and 225 times larger than dy: beyond 1e36 in float32
//   they may overflow where the results would not.
enum class Winograd { never, where_it_pays, always };

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
    Winograd winograd = Winograd::never;
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
    Winograd winograd = Winograd::never;
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
    Winograd winograd = Winograd::never;
};

}  // namespace tinygrad_nm
