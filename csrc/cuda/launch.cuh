// How kernels declare shared memory, copy asynchronously, take scratch memory and are launched: for CUDA, and
// for the emulated device. Everything in a .cu file lies in namespace tinygrad_nm::TINYGRAD_NM_DEVICE, so
// that the emulated device can hold the code paths of several architectures.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/memory.h"

#ifdef TINYGRAD_NM_EMULATED
#include "cuda/emulation/device.h"

#if __CUDA_ARCH__ >= 800
#define TINYGRAD_NM_DEVICE sm_80
#else
#define TINYGRAD_NM_DEVICE sm_75
#endif

// T name[dimensions], one for the block.
#define SHARED(T, name, ...)                                                                \
    static const char name##_variable = 0;                                                  \
    T(&name)                                                                                \
    __VA_ARGS__ = *static_cast<T(*) __VA_ARGS__>(::tinygrad_nm::emulation::static_shared(   \
        {&name##_variable, #name, sizeof(T __VA_ARGS__), alignof(T) < 16 ? 16 : alignof(T), \
         ::tinygrad_nm::emulation::record_size<T>},                                         \
        {nullptr, ::tinygrad_nm::emulation::Line::here()}))
#define DYNAMIC_SHARED(T, name)                                               \
    T* const name = static_cast<T*>(::tinygrad_nm::emulation::dynamic_shared( \
        ::tinygrad_nm::emulation::record_size<T>, {nullptr, ::tinygrad_nm::emulation::Line::here()}))
#define COPY_ASYNC(bytes, shared, global)                                             \
    [](void* to, const void* from) __attribute__((noinline)) TINYGRAD_NM_UNWATCHED {  \
        ::tinygrad_nm::emulation::copy_async(to, from, bytes, {TINYGRAD_NM_ADDRESS}); \
    }                                                                                 \
    (shared, global)
#define COMMIT_COPIES() ::tinygrad_nm::emulation::commit_copies()
#define WAIT_COPIES(newest_left) ::tinygrad_nm::emulation::wait_copies(newest_left)
#define LAUNCH(kernel, grid, block, shared, ...)                       \
    ::tinygrad_nm::launch_kernel(#kernel, kernel, grid, block, shared, \
                                 __CUDA_ARCH__ / 10 __VA_OPT__(, ) __VA_ARGS__)
#else
#include <cuda_pipeline.h>
#include <cuda_runtime.h>

#include "cuda/runtime.h"

#define TINYGRAD_NM_DEVICE cuda
// The launch and the check of it. Kernels whose dynamic shared memory exceeds 48 KiB ask for it
// (allow_shared).
#define LAUNCH(kernel, grid, block, shared, ...)                                       \
    do {                                                                               \
        ::tinygrad_nm::allow_shared(reinterpret_cast<const void*>(+kernel), shared);   \
        kernel<<<grid, block, shared, ::tinygrad_nm::current_stream()>>>(__VA_ARGS__); \
        ::tinygrad_nm::check_launch(#kernel);                                          \
    } while (0)
#define SHARED(T, name, ...) __shared__ alignas(alignof(T) < 16 ? 16 : alignof(T)) T name __VA_ARGS__
#define DYNAMIC_SHARED(T, name)                                   \
    extern __shared__ __align__(16) unsigned char name##_bytes[]; \
    T* const name = reinterpret_cast<T*>(name##_bytes)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define COPY_ASYNC(bytes, shared, global) __pipeline_memcpy_async(shared, global, bytes)
#define COMMIT_COPIES() __pipeline_commit()
#define WAIT_COPIES(newest_left) __pipeline_wait_prior(newest_left)
#endif
#endif

namespace tinygrad_nm {

// Scratch memory for one call.
template <class T>
class Scratch {
  public:
    explicit Scratch(int64_t count)
        : data_(count > 0 ? static_cast<T*>(memory_of_device(size_t(count) * sizeof(T), sizeof(T)))
                          : nullptr) {}
    ~Scratch() {
        if (data_) return_memory(data_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* data() const { return data_; }

  private:
    T* data_;
};

namespace TINYGRAD_NM_DEVICE {

// Blocks for `count` items, `per_block` each, in kernels whose blocks go on to the next items (a grid-stride
// loop).
inline unsigned blocks_for(int64_t count, int64_t per_block) {
    constexpr int64_t most = 1 << 20;
    const int64_t blocks = (count + per_block - 1) / per_block;
    return unsigned(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

// `bytes` (4, 8 or 16) to shared memory: behind the caller's back where the device can, and then not there
// before the wait. Both addresses must be multiples of `bytes`.
template <int bytes>
__device__ __forceinline__ void copy_bytes(void* shared, const void* global) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    COPY_ASYNC(bytes, shared, global);
#else
    if constexpr (bytes == 4) *static_cast<float*>(shared) = *static_cast<const float*>(global);
    if constexpr (bytes == 8) *static_cast<float2*>(shared) = *static_cast<const float2*>(global);
    if constexpr (bytes == 16) *static_cast<float4*>(shared) = *static_cast<const float4*>(global);
#endif
}
template <class T>
__device__ __forceinline__ void copy_number(T* shared, const T* global) {
    copy_bytes<sizeof(T)>(shared, global);
}
__device__ __forceinline__ void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    COMMIT_COPIES();
#endif
}
template <int newest_left>
__device__ __forceinline__ void wait_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    WAIT_COPIES(newest_left);
#endif
}

}  // namespace TINYGRAD_NM_DEVICE
}  // namespace tinygrad_nm
