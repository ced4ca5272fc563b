// Dropout by the CPU's counter-based stream; arguments and formula in shared/dropout.h.
#include "cuda/elementwise.cuh"
#include "cuda/kernels.cuh"
#include "shared/philox.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

struct DropoutRule {
    uint32_t threshold;
    bool aligned;  // every quad of every example begins on 16 bytes
};

// out, x (examples, elements): out = x scale where the word of the element keeps it, else 0. A thread draws
// the four words of one counter, which decide four neighbours.
template <class T>
__global__ void __launch_bounds__(quad_threads)
    dropout_kernel(const Dropout<T> a, T scale, const DropoutRule rule) {
    const int64_t quads = (a.elements + 3) / 4, all = a.examples * quads;
    const int64_t stride = int64_t(gridDim.x) * quad_threads;
    for (int64_t i = int64_t(blockIdx.x) * quad_threads + threadIdx.x; i < all; i += stride) {
        const int64_t example = quotient(i, quads), quad = i - example * quads, left = a.elements - 4 * quad;
        const int count = left < 4 ? int(left) : 4;
        const Quad q{example * a.elements + 4 * quad, 1, count, rule.aligned && count == 4};
        Philox4x32<1> random = {{{uint32_t(quad)},
                                 {uint32_t(a.first_example + example)},
                                 {uint32_t(a.stream)},
                                 {uint32_t(a.stream >> 32)}}};
        philox4x32_10(random, uint32_t(a.seed), uint32_t(a.seed >> 32));
        QuadOf<T> x = load(a.x, q);
#pragma unroll
        for (int k = 0; k < 4; ++k)
            x.v[k] = dropout_keeps(random.word[k][0], rule.threshold) ? x.v[k] * scale : T(0);
        store(a.out, q, x);
    }
}

}  // namespace

template <class T>
void dropout(const Dropout<T>& a) {
    if (a.examples == 0 || a.elements == 0) return;
    const DropoutRule rule{dropout_threshold(a.p),
                           all_aligned(a.out, a.x) && (a.elements % 4 == 0 || a.examples == 1)};
    const int64_t quads = a.examples * ((a.elements + 3) / 4);
    LAUNCH(dropout_kernel<T>, blocks_for(quads, quad_threads), quad_threads, 0, a,
           T(a.p < 1 ? 1 / (1 - a.p) : 0), rule);
}
template void dropout<float>(const Dropout<float>&);
template void dropout<double>(const Dropout<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
