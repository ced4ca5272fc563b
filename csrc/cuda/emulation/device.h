// What a kernel sees of CUDA, on the host. A .cu file includes launch.cuh, which includes this in place of
// CUDA's own headers.
#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/vector_types.h"
#include "cuda/emulation/watch.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __constant__ static const
#define __align__(n) alignas(n)

#define threadIdx (::tinygrad_nm::emulation::place.thread)
#define blockIdx (::tinygrad_nm::emulation::place.block)
#define blockDim (::tinygrad_nm::emulation::place.block_size)
#define gridDim (::tinygrad_nm::emulation::place.grid_size)
constexpr int warpSize = int(::tinygrad_nm::emulation::warp_size);

// The device's functions are not watched. They are not inlined: what they return to is the kernel, for
// messages.
#define TINYGRAD_NM_UNWATCHED \
    __attribute__((no_sanitize("thread", "alignment", "bounds", "integer-divide-by-zero")))
#define TINYGRAD_NM_INTRINSIC inline __attribute__((noinline)) TINYGRAD_NM_UNWATCHED
#define TINYGRAD_NM_ADDRESS __builtin_extract_return_addr(__builtin_return_address(0))

namespace tinygrad_nm::emulation {

// What shared memory of this type is watched by: its numbers, if it is a struct of them.
template <class T>
constexpr size_t record_size = std::is_arithmetic_v<T> ? sizeof(T)
                               : alignof(T) < 4        ? alignof(T)
                                                       : 4;

template <class T, class... Types>
concept one_of = (std::same_as<T, Types> || ...);

TINYGRAD_NM_UNWATCHED inline int own_lane() {
    const Place& p = place;
    return int((p.thread.x + p.block_size.x * (p.thread.y + p.block_size.y * p.thread.z)) % warp_size);
}

// The value of lane `from`, or the thread's own where that lies outside of its group of `width` lanes.
template <class T>
TINYGRAD_NM_UNWATCHED T shuffled(unsigned mask, T value, int from, bool inside, int width, const Site& site) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                  "CUDA shuffles 4 or 8 bytes");
    if (width < 1 || width > int(warp_size) || (width & (width - 1)))
        fail("shuffles groups of lanes whose number is no power of two up to 32", site);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    const WarpValues& values = exchange(mask, bits, site);
    if (!inside) return value;
    if (!(values.mask >> from & 1)) fail("reads a lane that is not in the mask", site);
    memcpy(&value, &values.lane[from], sizeof(T));
    return value;
}

TINYGRAD_NM_UNWATCHED inline unsigned ballot(unsigned mask, int predicate, const Site& site) {
    const WarpValues& values = exchange(mask, predicate != 0, site);
    unsigned lanes = 0;
    for (unsigned lane = 0; lane < warp_size; ++lane)
        lanes |= unsigned(mask >> lane & 1 & values.lane[lane]) << lane;
    return lanes;
}

template <class T, class Change>
TINYGRAD_NM_UNWATCHED T atomic(T* p, const Site& site, Change&& change) {
    if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) fail("updates a number at a misaligned address", site);
    watch_atomic(p, sizeof(T), site.address);
    const T before = *p;
    *p = change(before);
    return before;
}

}  // namespace tinygrad_nm::emulation

// Last argument of a device function: the line that calls it.
#define TINYGRAD_NM_LINE ::tinygrad_nm::emulation::Line line = ::tinygrad_nm::emulation::Line::here()
#define TINYGRAD_NM_SITE \
    { TINYGRAD_NM_ADDRESS, line }

TINYGRAD_NM_INTRINSIC void __syncthreads(TINYGRAD_NM_LINE) {
    tinygrad_nm::emulation::barrier(TINYGRAD_NM_SITE);
}
TINYGRAD_NM_INTRINSIC int __syncthreads_count(int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::barrier(TINYGRAD_NM_SITE, predicate);
}
TINYGRAD_NM_INTRINSIC int __syncthreads_or(int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::barrier(TINYGRAD_NM_SITE, predicate) != 0;
}
TINYGRAD_NM_INTRINSIC int __syncthreads_and(int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::barrier(TINYGRAD_NM_SITE, !predicate) == 0;
}

TINYGRAD_NM_INTRINSIC void __syncwarp(unsigned mask = 0xffffffffu, TINYGRAD_NM_LINE) {
    tinygrad_nm::emulation::exchange(mask, 0, TINYGRAD_NM_SITE, true);
}
template <class T>
TINYGRAD_NM_INTRINSIC T __shfl_sync(unsigned mask, T value, int lane, int width = 32, TINYGRAD_NM_LINE) {
    const int from = (tinygrad_nm::emulation::own_lane() & -width) | (lane & (width - 1));
    return tinygrad_nm::emulation::shuffled(mask, value, from, true, width, TINYGRAD_NM_SITE);
}
// Another lane of the own group or of one before it.
template <class T>
TINYGRAD_NM_INTRINSIC T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, TINYGRAD_NM_LINE) {
    const int own = tinygrad_nm::emulation::own_lane(), from = own ^ lanes;
    const bool inside = from >= 0 && from <= (own | (width - 1));
    return tinygrad_nm::emulation::shuffled(mask, value, from, inside, width, TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_INTRINSIC T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                                         TINYGRAD_NM_LINE) {
    const int own = tinygrad_nm::emulation::own_lane(), from = own + int(by);
    const bool inside = by < 32 && from <= (own | (width - 1));
    return tinygrad_nm::emulation::shuffled(mask, value, from, inside, width, TINYGRAD_NM_SITE);
}
template <class T>
TINYGRAD_NM_INTRINSIC T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                                       TINYGRAD_NM_LINE) {
    const int own = tinygrad_nm::emulation::own_lane(), from = own - int(by);
    const bool inside = by < 32 && from >= (own & -width);
    return tinygrad_nm::emulation::shuffled(mask, value, from, inside, width, TINYGRAD_NM_SITE);
}
TINYGRAD_NM_INTRINSIC unsigned __ballot_sync(unsigned mask, int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::ballot(mask, predicate, TINYGRAD_NM_SITE);
}
TINYGRAD_NM_INTRINSIC int __any_sync(unsigned mask, int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::ballot(mask, predicate, TINYGRAD_NM_SITE) != 0;
}
TINYGRAD_NM_INTRINSIC int __all_sync(unsigned mask, int predicate, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::ballot(mask, predicate, TINYGRAD_NM_SITE) == mask;
}

// Atomics of the types that CUDA has them for. One thread runs at a time, so that plain code is atomic.
template <tinygrad_nm::emulation::one_of<int, unsigned, unsigned long long, float, double> T>
TINYGRAD_NM_INTRINSIC T atomicAdd(T* p, std::type_identity_t<T> value, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::atomic(p, TINYGRAD_NM_SITE, [=](T before) { return T(before + value); });
}
template <tinygrad_nm::emulation::one_of<int, unsigned, long long, unsigned long long> T>
TINYGRAD_NM_INTRINSIC T atomicMax(T* p, std::type_identity_t<T> value, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::atomic(p, TINYGRAD_NM_SITE,
                                          [=](T before) { return before < value ? value : before; });
}
template <tinygrad_nm::emulation::one_of<int, unsigned, long long, unsigned long long> T>
TINYGRAD_NM_INTRINSIC T atomicMin(T* p, std::type_identity_t<T> value, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::atomic(p, TINYGRAD_NM_SITE,
                                          [=](T before) { return value < before ? value : before; });
}
template <tinygrad_nm::emulation::one_of<int, unsigned, unsigned long long, float> T>
TINYGRAD_NM_INTRINSIC T atomicExch(T* p, std::type_identity_t<T> value, TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::atomic(p, TINYGRAD_NM_SITE, [=](T) { return value; });
}
template <tinygrad_nm::emulation::one_of<int, unsigned, unsigned long long, unsigned short> T>
TINYGRAD_NM_INTRINSIC T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> value,
                                  TINYGRAD_NM_LINE) {
    return tinygrad_nm::emulation::atomic(p, TINYGRAD_NM_SITE,
                                          [=](T before) { return before == compare ? value : before; });
}
#undef TINYGRAD_NM_SITE
#undef TINYGRAD_NM_LINE

namespace tinygrad_nm {

// A launch as <<<grid, block, shared>>> has it; the arguments are copied, like a kernel's.
template <class... Parameters, class... Arguments>
TINYGRAD_NM_UNWATCHED void launch_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid,
                                         dim3 block, size_t shared, int capability,
                                         Arguments&&... arguments) {
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    } call{kernel, {std::forward<Arguments>(arguments)...}};
    const auto run_thread = +[](void* context) TINYGRAD_NM_UNWATCHED {
        const Call& c = *static_cast<Call*>(context);
        std::apply(c.kernel, c.arguments);
    };
    emulation::run_grid({name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, capability},
                        run_thread, &call, sizeof call);
}

}  // namespace tinygrad_nm
