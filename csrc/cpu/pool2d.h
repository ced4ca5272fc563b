// 2-D pooling; pool2d_shape.h holds the definitions. All arrays are contiguous; planes = N * C.
#pragma once
#include "shared/pool2d_shape.h"

namespace tinygrad_nm {

// out, positions (N, C, OH, OW) from x (N, C, H, W): the maximum of each window and where it lies, as an
// index into the H * W plane. The first maximum wins, in the order of rows, then columns; the first NaN wins
// over everything.
template <class T>
struct MaxPool2dForward {
    T* out;
    int32_t* positions;
    const T* x;
    Pool2dShape shape;
};

// Kernels over remembered positions. They return false, with `out` undefined, if a position lies outside of
// the plane.
//   backward: out (planes, plane) = sum of the dy (planes, out_plane) whose position it is, in the order of
//   dy gather:   out (planes, out_plane) = x (planes, plane) at the positions
template <class T>
struct MaxPool2dAtPositions {
    T* out;
    const T* in;
    const int32_t* positions;  // (planes, out_plane)
    int64_t planes, plane, out_plane;
};

// out (N, C, OH, OW) from x (N, C, H, W): the sum of a window over its divisor.
template <class T>
struct AvgPool2dForward {
    T* out;
    const T* x;
    Pool2dShape shape;
    bool count_include_pad;
};

// The adjoint: out (N, C, H, W) = sum over the windows that hold an element of dy (N, C, OH, OW) over its
// divisor.
template <class T>
struct AvgPool2dBackward {
    T* out;
    const T* dy;
    Pool2dShape shape;
    bool count_include_pad;
};

}  // namespace tinygrad_nm
