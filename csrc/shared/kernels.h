// The kernels of one instruction set or device: a table of function pointers for each element type.
#pragma once
#include "shared/activation_arguments.h"
#include "shared/bias.h"
#include "shared/conv2d.h"
#include "shared/conv2d_pool2d.h"
#include "shared/dropout.h"
#include "shared/gemm.h"
#include "shared/loss.h"
#include "shared/normalisation.h"
#include "shared/peak.h"
#include "shared/pool2d.h"
#include "shared/sgd.h"

namespace tinygrad_nm {

template <class T>
struct KernelTable {
    void (*gemm)(const Gemm<T>&);
    void (*conv2d_forward)(const Conv2dForward<T>&);
    void (*conv2d_backward_input)(const Conv2dBackwardInput<T>&);
    void (*conv2d_backward_weight)(const Conv2dBackwardWeight<T>&);
    int64_t (*conv2d_pool2d_kept)(const Conv2dShape&, Activation, const PoolWindows&);
    void (*conv2d_pool2d_forward)(const Conv2dPool2dForward<T>&);
    void (*conv2d_pool2d_backward)(const Conv2dPool2dBackward<T>&);
    void (*max_pool2d_forward)(const MaxPool2dForward<T>&);
    bool (*max_pool2d_backward)(const MaxPool2dAtTaps<T>&);
    bool (*max_pool2d_gather)(const MaxPool2dAtTaps<T>&);
    void (*avg_pool2d_forward)(const AvgPool2dForward<T>&);
    void (*avg_pool2d_backward)(const AvgPool2dBackward<T>&);
    void (*bias_backward)(const BiasBackward<T>&);
    void (*activation_forward)(const ActivationForward<T>&);
    void (*activation_backward)(const ActivationBackward<T>&);
    void (*local_response_norm_forward)(const LocalResponseNorm<T>&);
    void (*local_response_norm_backward)(const LocalResponseNorm<T>&);
    void (*softmax_cross_entropy_forward)(const SoftmaxCrossEntropy<T>&);
    void (*softmax_cross_entropy_backward)(const SoftmaxCrossEntropy<T>&);
    void (*dropout)(const Dropout<T>&);
    void (*sgd_update)(const SgdUpdate<T>&);
    void (*peak_arithmetic)(const PeakArithmetic<T>&);
    void (*peak_memory)(const PeakMemory<T>&);
    void (*peak_read)(const PeakRead<T>&);
};

struct Kernels {
    const char* name;
    bool on_host;  // the arrays lie in memory that the processor reads
    KernelTable<float> f32;
    KernelTable<double> f64;
};

}  // namespace tinygrad_nm
