// The table of this device's kernels.
#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// There is no fused kernel here: convolution, activation and pooling run one after the other.
int64_t no_conv2d_pool2d(const Conv2dShape&, Activation, const PoolWindows&) {
    return 0;
}

template <class T>
constexpr KernelTable<T> table = {
    .gemm = gemm<T>,
    .conv2d_forward = conv2d_forward<T>,
    .conv2d_backward_input = conv2d_backward_input<T>,
    .conv2d_backward_weight = conv2d_backward_weight<T>,
    .conv2d_pool2d_kept = no_conv2d_pool2d,
    .conv2d_pool2d_forward = nullptr,
    .conv2d_pool2d_backward = nullptr,
    .max_pool2d_forward = max_pool2d_forward<T>,
    .max_pool2d_backward = max_pool2d_backward<T>,
    .max_pool2d_gather = max_pool2d_gather<T>,
    .avg_pool2d_forward = avg_pool2d_forward<T>,
    .avg_pool2d_backward = avg_pool2d_backward<T>,
    .bias_backward = bias_backward<T>,
    .activation_forward = activation_forward<T>,
    .activation_backward = activation_backward<T>,
    .local_response_norm_forward = local_response_norm_forward<T>,
    .local_response_norm_backward = local_response_norm_backward<T>,
    .softmax_cross_entropy_forward = softmax_cross_entropy_forward<T>,
    .softmax_cross_entropy_backward = softmax_cross_entropy_backward<T>,
    .dropout = dropout<T>,
    .sgd_update = sgd_update<T>,
    .peak_arithmetic = peak_arithmetic<T>,
    .peak_memory = peak_memory<T>,
    .peak_read = peak_read<T>,
};

#define TINYGRAD_NM_TEXT_(a) #a
#define TINYGRAD_NM_TEXT(a) TINYGRAD_NM_TEXT_(a)

}  // namespace

extern const Kernels device_kernels;
const Kernels device_kernels = {.name = TINYGRAD_NM_TEXT(TINYGRAD_NM_DEVICE),
                                .on_host = false,
                                .f32 = table<float>,
                                .f64 = table<double>};

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
