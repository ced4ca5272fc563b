// The body of every instruction set: included once by each file of this folder, after its macros
//   TINYGRAD_NM_ISA           name
//   TINYGRAD_NM_VECTOR_BYTES  bytes of a vector register
//   TINYGRAD_NM_TILE_ROWS     rows of the GEMM register tile (its columns are two vectors)
// Nothing here may leave a weak symbol in the object file: the linker would keep one copy for all instruction
// sets, perhaps the one that older processors cannot run. So: everything in anonymous namespaces (or static),
// C functions (expf, sqrt) rather than their std:: overloads, no std containers, algorithms or std::function.
#pragma once
#include "cpu/isa/vector.h"
#include "shared/kernels.h"
//
#include "cpu/activation_body.h"
#include "cpu/bias_body.h"
#include "cpu/conv2d_body.h"
#include "cpu/conv2d_pool2d_body.h"
#include "cpu/dropout_body.h"
#include "cpu/gemm_body.h"
#include "cpu/loss_body.h"
#include "cpu/normalisation_body.h"
#include "cpu/peak_body.h"
#include "cpu/pool2d_body.h"
#include "cpu/sgd_body.h"

namespace tinygrad_nm {
namespace {

template <class T>
constexpr KernelTable<T> kernel_table = {
    .gemm = gemm<T>,
    .conv2d_forward = conv2d_forward<T>,
    .conv2d_backward_input = conv2d_backward_input<T>,
    .conv2d_backward_weight = conv2d_backward_weight<T>,
    .conv2d_pool2d_kept = conv2d_pool2d_kept<T>,
    .conv2d_pool2d_forward = conv2d_pool2d_forward<T>,
    .conv2d_pool2d_backward = conv2d_pool2d_backward<T>,
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
    .softmax_cross_entropy_forward = softmax_cross_entropy_forward_kernel<T>,
    .softmax_cross_entropy_backward = softmax_cross_entropy_backward_kernel<T>,
    .dropout = dropout_kernel<T>,
    .sgd_update = sgd_update<T>,
    .peak_arithmetic = peak_arithmetic<T>,
    .peak_memory = peak_memory<T>,
    .peak_read = peak_read<T>,
};

}  // namespace

#define TINYGRAD_NM_JOIN_(a, b) a##b
#define TINYGRAD_NM_JOIN(a, b) TINYGRAD_NM_JOIN_(a, b)
#define TINYGRAD_NM_TEXT_(a) #a
#define TINYGRAD_NM_TEXT(a) TINYGRAD_NM_TEXT_(a)

extern const Kernels TINYGRAD_NM_JOIN(kernels_, TINYGRAD_NM_ISA) = {
    .name = TINYGRAD_NM_TEXT(TINYGRAD_NM_ISA),
    .on_host = true,
    .f32 = kernel_table<float>,
    .f64 = kernel_table<double>,
};

}  // namespace tinygrad_nm
