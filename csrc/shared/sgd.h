// One step of stochastic gradient descent on n numbers, in place, in one pass over memory.
//
// weight, gradient, velocity (n). With d = gradient + weight_decay * weight:
//   no velocity:        weight -= lr d
//   lr_in_velocity:     v = momentum v + lr d,  weight -= v          (nesterov: momentum v + lr d)
//   otherwise:          v = momentum v + d,     weight -= lr v       (nesterov: lr (d + momentum v))
// The first form with its sign turned is AlexNet's (Krizhevsky et al. 2012, section 5), the second PyTorch's:
// they differ once lr changes. Without weight decay d is the gradient itself.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct SgdUpdate {
    T* weight;
    const T* gradient;
    T* velocity;  // or null
    int64_t n;
    T lr, momentum, weight_decay;
    bool nesterov, lr_in_velocity;
};

}  // namespace tinygrad_nm
