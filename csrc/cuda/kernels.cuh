// Every operation of the device: what kernels.cu puts into its table, and what one file uses of another.
#pragma once
#include "cuda/launch.cuh"
#include "shared/kernels.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <class T>
void gemm(const Gemm<T>&);  // gemm.cu
template <class T>
void conv2d_forward(const Conv2dForward<T>&);  // conv2d.cu
template <class T>
void conv2d_backward_input(const Conv2dBackwardInput<T>&);
template <class T>
void conv2d_backward_weight(const Conv2dBackwardWeight<T>&);
template <class T>
void max_pool2d_forward(const MaxPool2dForward<T>&);  // pool2d.cu
template <class T>
bool max_pool2d_backward(const MaxPool2dAtTaps<T>&);
template <class T>
bool max_pool2d_gather(const MaxPool2dAtTaps<T>&);
template <class T>
void avg_pool2d_forward(const AvgPool2dForward<T>&);
template <class T>
void avg_pool2d_backward(const AvgPool2dBackward<T>&);
template <class T>
void bias_backward(const BiasBackward<T>&);  // bias.cu
template <class T>
void activation_forward(const ActivationForward<T>&);  // activation.cu
template <class T>
void activation_backward(const ActivationBackward<T>&);
template <class T>
void local_response_norm_forward(const LocalResponseNorm<T>&);  // normalisation.cu
template <class T>
void local_response_norm_backward(const LocalResponseNorm<T>&);
template <class T>
void softmax_cross_entropy_forward(const SoftmaxCrossEntropy<T>&);  // loss.cu
template <class T>
void softmax_cross_entropy_backward(const SoftmaxCrossEntropy<T>&);
template <class T>
void dropout(const Dropout<T>&);  // dropout.cu
template <class T>
void sgd_update(const SgdUpdate<T>&);  // sgd.cu
template <class T>
void peak_arithmetic(const PeakArithmetic<T>&);  // peak.cu
template <class T>
void peak_memory(const PeakMemory<T>&);
template <class T>
void peak_read(const PeakRead<T>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
