// The three passes of a convolution of 3x3 filters by Winograd's algorithm: see conv2d_winograd.cu.
#pragma once
#include "cuda/launch.cuh"
#include "shared/conv2d.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// Whether the passes of a convolution are computed so, all three of them: by its shape alone. Only then may
// the functions below be called.
bool winograd_applies(const Conv2dShape&, Winograd);

template <class T>
void conv2d_winograd_forward(const Conv2dForward<T>&);
template <class T>
void conv2d_winograd_backward_input(const Conv2dBackwardInput<T>&);
template <class T>
void conv2d_winograd_backward_weight(const Conv2dBackwardWeight<T>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
