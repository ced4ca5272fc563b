// How threads go over n numbers in a row: each takes four at a time, a quad.
//
// Where all arrays begin on a multiple of 16 bytes, the four are neighbours, loaded and stored at once: 16
// bytes of float, 32 of double. Elsewhere they are as far apart as there are threads in a block, so that
// neighbouring threads still have neighbours in memory. A body is the same in both cases:
//
//   for_quads(n, aligned, [&](const Quad& q) {
//       QuadOf<T> x = load(a.x, q);
//       for (int k = 0; k < 4; ++k) x.v[k] = ...;
//       store(a.out, q, x);
//   });
//
// What it loads before it stores may be what it stores to.
#pragma once
#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

constexpr int quad_threads = 256;
constexpr int quad_tile = 4 * quad_threads;  // numbers of a block at a time

// The numbers first + k step of an array, k < count <= 4; `whole`: four neighbours that begin on 16 bytes.
struct Quad {
    int64_t first;
    int step, count;
    bool whole;
};

template <class T>
struct alignas(16) QuadOf {
    T v[4];
};

// Zero where the quad has no number.
template <class T>
__device__ __forceinline__ QuadOf<T> load(const T* p, const Quad& q) {
    if (q.whole) return *reinterpret_cast<const QuadOf<T>*>(p + q.first);
    QuadOf<T> x;
#pragma unroll
    for (int k = 0; k < 4; ++k) x.v[k] = k < q.count ? p[q.first + k * q.step] : T(0);
    return x;
}

template <class T>
__device__ __forceinline__ void store(T* p, const Quad& q, const QuadOf<T>& x) {
    if (q.whole) {
        *reinterpret_cast<QuadOf<T>*>(p + q.first) = x;
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
        if (k < q.count) p[q.first + k * q.step] = x.v[k];
}

// Whether all of these begin on a multiple of 16 bytes; null does.
template <class... Pointers>
__host__ __device__ __forceinline__ bool all_aligned(Pointers... p) {
    return ((reinterpret_cast<uintptr_t>(p) | ...) & 15) == 0;
}

// body(quad) for the numbers [begin, end) that fall to this thread of a block of quad_threads, which goes on
// in steps of `stride`; begin and stride are multiples of four. A second loop for whole tiles, without a
// question in it, would only cost registers: memory is what these kernels wait for.
template <class Body>
__device__ __forceinline__ void for_quads(int64_t begin, int64_t end, int64_t stride, bool aligned,
                                          const Body& body) {
    const int step = aligned ? 1 : quad_threads, offset = int(threadIdx.x) * (aligned ? 4 : 1);
    for (int64_t tile = begin; tile < end; tile += stride) {
        const int left =
            (end - tile < quad_tile ? int(end - tile) : quad_tile) - offset;  // from its first number on
        const int count = left > 3 * step ? 4 : aligned ? left : (left + quad_threads - 1) / quad_threads;
        if (left > 0) body(Quad{tile + offset, step, count, aligned && count == 4});
    }
}

// The numbers [0, n) by all blocks of the grid: blocks_for(n, quad_tile).
template <class Body>
__device__ __forceinline__ void for_quads(int64_t n, bool aligned, const Body& body) {
    for_quads(int64_t(blockIdx.x) * quad_tile, n, int64_t(gridDim.x) * quad_tile, aligned, body);
}

// a / b for a >= 0, b > 0. Most sizes fit 32 bits, where a division takes a fifth of the time.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
    return (uint64_t(a) | uint64_t(b)) >> 32 == 0 ? int64_t(uint32_t(a) / uint32_t(b)) : a / b;
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
