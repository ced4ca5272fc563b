// What the card can do at most; arguments and formulas in shared/peak.h.
#include "cuda/elementwise.cuh"
#include "cuda/kernels.cuh"
#include "cuda/team.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr int peak_steps = 64;  // without a question in between: the loop's own instructions are 4 in 100

// out, x (rows n): out = y_repeats of y_0 = x, y_{j+1} = scale y_j + shift. Four chains a thread.
template <class T>
__global__ void __launch_bounds__(quad_threads)
    peak_arithmetic_kernel(const PeakArithmetic<T> a, bool aligned) {
    for_quads(a.rows * a.n, aligned, [&](const Quad& q) {
        QuadOf<T> y = load(a.x, q);
        const auto step = [&] {
#pragma unroll
            for (int k = 0; k < 4; ++k) y.v[k] = fma(y.v[k], a.scale, a.shift);
        };
        int64_t j = 0;
        for (; j + peak_steps <= a.repeats; j += peak_steps)
#pragma unroll
            for (int s = 0; s < peak_steps; ++s) step();
        for (; j < a.repeats; ++j) step();
        store(a.out, q, y);
    });
}

// out, x, z (n): out = base + scale z, the base x or, where that is null, out; without z out = x.
template <class T>
__global__ void __launch_bounds__(quad_threads) peak_memory_kernel(const PeakMemory<T> a, bool aligned) {
    const T* const base = a.x ? a.x : a.out;
    for_quads(a.n, aligned, [&](const Quad& q) {
        QuadOf<T> y = load(base, q);
        if (a.z) {
            const QuadOf<T> z = load(a.z, q);
#pragma unroll
            for (int k = 0; k < 4; ++k) y.v[k] = y.v[k] + a.scale * z.v[k];
        }
        store(a.out, q, y);
    });
}

constexpr int64_t peak_chunk = 16 * quad_tile;  // numbers that a block adds up

// out (rows, chunks), x (rows, n): sums of the rows' chunks.
template <class T>
__global__ void __launch_bounds__(quad_threads) peak_read_kernel(const PeakRead<T> a, int64_t chunks) {
    for (int64_t i = blockIdx.x; i < a.rows * chunks; i += gridDim.x) {
        const int64_t row = quotient(i, chunks), begin = (i - row * chunks) * peak_chunk;
        const int64_t end = a.n - begin < peak_chunk ? a.n : begin + peak_chunk;
        const T* const x = a.x + row * a.n;
        T sum[4] = {};
        for_quads(begin, end, quad_tile, all_aligned(x), [&](const Quad& q) {
            const QuadOf<T> v = load(x, q);
#pragma unroll
            for (int k = 0; k < 4; ++k) sum[k] += v.v[k];
        });
        const T total = BlockTeam<quad_threads>::combine((sum[0] + sum[1]) + (sum[2] + sum[3]), Sum{});
        if (threadIdx.x == 0) a.out[i] = total;
    }
}

}  // namespace

template <class T>
void peak_arithmetic(const PeakArithmetic<T>& a) {
    if (a.rows == 0 || a.n == 0) return;
    LAUNCH(peak_arithmetic_kernel<T>, blocks_for(a.rows * a.n, quad_tile), quad_threads, 0, a,
           all_aligned(a.out, a.x));
}
template void peak_arithmetic<float>(const PeakArithmetic<float>&);
template void peak_arithmetic<double>(const PeakArithmetic<double>&);

template <class T>
void peak_memory(const PeakMemory<T>& a) {
    if (a.n == 0) return;
    LAUNCH(peak_memory_kernel<T>, blocks_for(a.n, quad_tile), quad_threads, 0, a,
           all_aligned(a.out, a.x, a.z));
}
template void peak_memory<float>(const PeakMemory<float>&);
template void peak_memory<double>(const PeakMemory<double>&);

// Rows too long for one block: first the sums of their chunks, then those sums' rows.
template <class T>
void peak_read(const PeakRead<T>& a) {
    if (a.rows == 0) return;
    const int64_t chunks = a.n > peak_chunk ? (a.n + peak_chunk - 1) / peak_chunk : 1;
    const unsigned blocks = blocks_for(a.rows * chunks, 1);
    if (chunks == 1) {
        LAUNCH(peak_read_kernel<T>, blocks, quad_threads, 0, a, chunks);
        return;
    }
    const Scratch<T> sums(a.rows * chunks);
    LAUNCH(peak_read_kernel<T>, blocks, quad_threads, 0, (PeakRead<T>{sums.data(), a.x, a.rows, a.n}),
           chunks);
    peak_read(PeakRead<T>{a.out, sums.data(), a.rows, chunks});
}
template void peak_read<float>(const PeakRead<float>&);
template void peak_read<double>(const PeakRead<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
