// What a kernel sees of CUDA, on the host. A .cu file includes launch.cuh, which includes this in place of
// CUDA's own headers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __constant__ static const
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define TINYGRAD_NM_VECTOR(T, name)                               \
    struct alignas(2 * sizeof(T)) name##2 {                       \
        T x, y;                                                   \
    };                                                            \
    struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) name##4 { \
        T x, y, z, w;                                             \
    };
TINYGRAD_NM_VECTOR(float, float)
TINYGRAD_NM_VECTOR(double, double)
TINYGRAD_NM_VECTOR(int, int)
TINYGRAD_NM_VECTOR(unsigned, uint)
#undef TINYGRAD_NM_VECTOR
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline double2 make_double2(double x, double y) {
    return {x, y};
}

#define threadIdx (::tinygrad_nm::emulation::place.thread)
#define blockIdx (::tinygrad_nm::emulation::place.block)
#define blockDim (::tinygrad_nm::emulation::place.block_size)
#define gridDim (::tinygrad_nm::emulation::place.grid_size)
constexpr int warpSize = 32;

namespace tinygrad_nm::emulation {

// The place in the kernel that asks, for messages. Not inlined into: it must be the kernel's.
#define TINYGRAD_NM_SITE __builtin_extract_return_addr(__builtin_return_address(0))
#define TINYGRAD_NM_DEVICE_FUNCTION inline __attribute__((noinline, no_sanitize("thread", "alignment")))

#define TINYGRAD_NM_UNWATCHED __attribute__((no_sanitize("thread", "alignment")))
template <class T>
TINYGRAD_NM_UNWATCHED uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T>
TINYGRAD_NM_UNWATCHED T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof(T));
    return value;
}
// The value of lane `from`, or the thread's own where that is outside of its group of `width`.
template <class T>
TINYGRAD_NM_UNWATCHED T shuffled(unsigned mask, T value, int from, bool inside, const void* site) {
    const WarpValues& w = exchange(mask, to_bits(value), site);
    if (!inside) return value;
    if (!(w.present >> from & 1)) fail("reads a lane that is not in the mask", site);
    return from_bits<T>(w.lane[from]);
}
TINYGRAD_NM_UNWATCHED inline unsigned lane_of_thread() {
    const Place& p = place;
    return (p.thread.x + p.block_size.x * (p.thread.y + p.block_size.y * p.thread.z)) % warp_size;
}

}  // namespace tinygrad_nm::emulation

TINYGRAD_NM_DEVICE_FUNCTION void __syncthreads(int line = __builtin_LINE()) {
    tinygrad_nm::emulation::barrier(TINYGRAD_NM_SITE, line);
}
TINYGRAD_NM_DEVICE_FUNCTION void __syncwarp(unsigned mask = 0xffffffffu) {
    tinygrad_nm::emulation::exchange(mask, 0, TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    const int own = int(tinygrad_nm::emulation::lane_of_thread());
    return tinygrad_nm::emulation::shuffled(mask, value, own / width * width + (lane & (width - 1)), true,
                                            TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const int own = int(tinygrad_nm::emulation::lane_of_thread()), from = own ^ lanes;
    return tinygrad_nm::emulation::shuffled(mask, value, from, from / width <= own / width, TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = int(tinygrad_nm::emulation::lane_of_thread()), from = own + int(by);
    return tinygrad_nm::emulation::shuffled(mask, value, from, from / width == own / width, TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = int(tinygrad_nm::emulation::lane_of_thread()), from = own - int(by);
    return tinygrad_nm::emulation::shuffled(mask, value, from, from >= own / width * width, TINYGRAD_NM_SITE);
}
TINYGRAD_NM_DEVICE_FUNCTION unsigned __ballot_sync(unsigned mask, int predicate) {
    const auto& w = tinygrad_nm::emulation::exchange(mask, predicate != 0, TINYGRAD_NM_SITE);
    unsigned votes = 0;
    for (unsigned l = 0; l < 32; ++l)
        if (w.present >> l & 1) votes |= unsigned(w.lane[l]) << l;
    return votes;
}
TINYGRAD_NM_DEVICE_FUNCTION int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
TINYGRAD_NM_DEVICE_FUNCTION int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) == mask;
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T atomicAdd(T* p, T value) {
    tinygrad_nm::emulation::watch_atomic(p, sizeof(T), TINYGRAD_NM_SITE);
    const T before = *p;
    *p = before + value;
    return before;
}
template <class T>
TINYGRAD_NM_DEVICE_FUNCTION T atomicMax(T* p, T value) {
    tinygrad_nm::emulation::watch_atomic(p, sizeof(T), TINYGRAD_NM_SITE);
    const T before = *p;
    if (before < value) *p = value;
    return before;
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}

namespace tinygrad_nm {

// A launch as <<<grid, block, shared>>> has it; the arguments are copied, like a kernel's.
template <class... Parameters, class... Arguments>
__attribute__((no_sanitize("thread", "alignment"))) void launch_kernel(const char* name,
                                                                       void (*kernel)(Parameters...),
                                                                       dim3 grid, dim3 block, size_t shared,
                                                                       int capability,
                                                                       Arguments&&... arguments) {
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    } call{kernel, {std::forward<Arguments>(arguments)...}};
    const auto body = +[](void* context) __attribute__((no_sanitize("thread"))) {
        const Call& c = *static_cast<Call*>(context);
        std::apply(c.kernel, c.arguments);
    };
    emulation::run_grid({name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, capability},
                        body, &call, sizeof call);
}

}  // namespace tinygrad_nm
