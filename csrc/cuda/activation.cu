// Activations, elementwise; arguments in shared/activation_arguments.h, formulas in shared/activation.h.
//
// exp, tanh, erfc and their like are the CUDA library's, with the errors that its programming guide states,
// where the CPU's vectors have our own; the formulas without them give the same bits on both.
#include "cuda/elementwise.cuh"
#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// out (n), x (n): out[i] = sigma(x[i]).
template <class T, class Formula>
__global__ void __launch_bounds__(quad_threads)
    activation_forward_kernel(const ActivationForward<T> a, bool aligned) {
    for_quads(a.n, aligned, [&](const Quad& q) {
        QuadOf<T> x = load(a.x, q);
#pragma unroll
        for (int k = 0; k < 4; ++k) x.v[k] = Formula::forward(x.v[k], a.parameter);
        store(a.out, q, x);
    });
}

// out (n), dy (n), saved (n): out[i] = dy[i] sigma'(.) from saved[i].
template <class T, class Formula>
__global__ void __launch_bounds__(quad_threads)
    activation_backward_kernel(const ActivationBackward<T> a, bool aligned) {
    for_quads(a.n, aligned, [&](const Quad& q) {
        QuadOf<T> dy = load(a.dy, q);
        const QuadOf<T> saved = load(a.saved, q);
#pragma unroll
        for (int k = 0; k < 4; ++k) dy.v[k] = Formula::backward(dy.v[k], saved.v[k], a.parameter);
        store(a.out, q, dy);
    });
}

}  // namespace

template <class T>
void activation_forward(const ActivationForward<T>& a) {
    if (a.n == 0) return;
    with_activation(a.kind, [&](auto formula) {
        LAUNCH((activation_forward_kernel<T, decltype(formula)>), blocks_for(a.n, quad_tile), quad_threads, 0,
               a, all_aligned(a.out, a.x));
    });
}
template void activation_forward<float>(const ActivationForward<float>&);
template void activation_forward<double>(const ActivationForward<double>&);

template <class T>
void activation_backward(const ActivationBackward<T>& a) {
    if (a.n == 0) return;
    with_activation(a.kind, [&](auto formula) {
        LAUNCH((activation_backward_kernel<T, decltype(formula)>), blocks_for(a.n, quad_tile), quad_threads,
               0, a, all_aligned(a.out, a.dy, a.saved));
    });
}
template void activation_backward<float>(const ActivationBackward<float>&);
template void activation_backward<double>(const ActivationBackward<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
