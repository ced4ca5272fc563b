// One step of stochastic gradient descent; arguments and formulas in shared/sgd.h.
#include "cuda/elementwise.cuh"
#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// One number's step. No product is fused with its sum, as on the CPU, for the same bits.
template <class T>
__device__ __forceinline__ void sgd_step(const SgdUpdate<T>& a, T& weight, T gradient, T& velocity) {
    const T d = a.weight_decay != 0 ? gradient + a.weight_decay * weight : gradient;
    if (!a.velocity) {
        weight = weight - a.lr * d;
        return;
    }
    const T push = a.lr_in_velocity ? a.lr * d : d;
    velocity = a.momentum * velocity + push;
    const T step = a.nesterov ? a.momentum * velocity + push : velocity;
    weight = weight - (a.lr_in_velocity ? step : a.lr * step);
}

// weight, gradient, velocity (n): weight and velocity (if there is one) after a step, in one pass over
// memory.
template <class T>
__global__ void __launch_bounds__(quad_threads) sgd_update_kernel(const SgdUpdate<T> a, bool aligned) {
    for_quads(a.n, aligned, [&](const Quad& q) {
        QuadOf<T> weight = load(a.weight, q), velocity = {};
        const QuadOf<T> gradient = load(a.gradient, q);
        if (a.velocity) velocity = load(a.velocity, q);
#pragma unroll
        for (int k = 0; k < 4; ++k) sgd_step(a, weight.v[k], gradient.v[k], velocity.v[k]);
        store(a.weight, q, weight);
        if (a.velocity) store(a.velocity, q, velocity);
    });
}

}  // namespace

template <class T>
void sgd_update(const SgdUpdate<T>& a) {
    if (a.n == 0) return;
    LAUNCH(sgd_update_kernel<T>, blocks_for(a.n, quad_tile), quad_threads, 0, a,
           all_aligned(a.weight, a.gradient, a.velocity));
}
template void sgd_update<float>(const SgdUpdate<float>&);
template void sgd_update<double>(const SgdUpdate<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
