// Activations, elementwise over n numbers in contiguous memory.
//   forward:   out[i] = sigma(x[i])                    out (n), x (n)
//   backward:  out[i] = dy[i] sigma'(.)                out (n), dy (n), saved (n)
// sigma and what `saved` is (the output, or for some kinds the input): shared/activation.h. out may be x or
// dy.
#pragma once
#include <cstdint>

#include "shared/activation.h"

namespace tinygrad_nm {

template <class T>
struct ActivationForward {
    T* out;
    const T* x;
    int64_t n;
    Activation kind;
    T parameter;
};

template <class T>
struct ActivationBackward {
    T* out;
    const T* dy;
    const T* saved;
    int64_t n;
    Activation kind;
    T parameter;
};

}  // namespace tinygrad_nm
