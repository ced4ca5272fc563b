// 2-D pooling; pool2d_shape.h holds the definitions. All arrays are contiguous; planes = N * C.
#pragma once
#include "shared/pool2d_shape.h"

namespace tinygrad_nm {

// out, taps (N, C, OH, OW) from x (N, C, H, W): the maximum of each window and where it lies in the window,
// as i * KW + j: a byte where the window has at most 256 taps, else an int32. The first maximum wins, in the
// order of rows, then columns; the first NaN wins over everything.
template <class T>
struct MaxPool2dForward {
    T* out;
    void* taps;
    const T* x;
    Pool2dShape shape;
};

// Kernels over remembered taps. They return false, with `out` undefined, if a tap is none of its window or
// lies on the padding; on a device, where to return it would be to wait, true and NaN where such a tap leads.
//   backward: out (N, C, H, W) = sum of the dy (N, C, OH, OW) whose tap it is, in the order of dy
//   gather:   out (N, C, OH, OW) = x (N, C, H, W) at the taps
template <class T>
struct MaxPool2dAtTaps {
    T* out;
    const T* in;
    const void* taps;  // (N, C, OH, OW), as above
    Pool2dShape shape;
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
