// The gradient of a bias: dy summed over everything but its channels.
//
//   out[o] = sum over n, p of dy[n, o, p]        out (channels), dy (examples, channels, plane)
// plane = OH * OW of a convolution, 1 of a fully connected layer. The order of the sum depends on the shape
// alone.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct BiasBackward {
    T* out;
    const T* dy;
    int64_t examples, channels, plane;
};

}  // namespace tinygrad_nm
