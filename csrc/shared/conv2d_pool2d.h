// A convolution, its activation and a pooling in windows that tile the result, as one kernel each way.
//
// conv2d_pool2d_kept tells the size of `y`: 0 where the kernels have no advantage and must not be called.
// Between the three nothing leaves the second-level cache but the activation's values, which the way back
// needs (and the gradient of z, where few images are cut into strips and dx is wanted); they stay in the
// layout that the kernel works in. All other arrays are contiguous.
#pragma once
#include "shared/conv2d.h"

namespace tinygrad_nm {

// Windows (height, width) side by side; what does not fill one at the bottom and the right is left out.
struct PoolWindows {
    bool maximum;  // else the mean
    int64_t height, width;
};

// z = conv2d(x, w) + bias (null: none), y = activation(z), out (N, O, OH / height, OW / width) = pool(y).
template <class T>
struct Conv2dPool2dForward {
    T* out;
    T* y;  // conv2d_pool2d_kept numbers, kept for the way back, in a layout of the instruction set; null: not
           // kept
    Conv2dForward<T> conv;  // its `out` is not used
    PoolWindows pool;
};

// From dout (N, O, OH / height, OW / width): the gradients dx (N, C, H, W), dw (O, C/groups, KH, KW), db
// (O,); each may be null. The maximum's gradient goes to the first of equal values.
template <class T>
struct Conv2dPool2dBackward {
    T *dx, *dw, *db;
    const T* dout;
    const T* y;
    Conv2dForward<T> conv;  // x, w, shape, activation
    PoolWindows pool;
    bool zeros_stay;  // a gradient of 0 of y stays 0, though the activation's derivative be infinite or NaN
};

}  // namespace tinygrad_nm
