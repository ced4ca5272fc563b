// What kernels need of the CUDA runtime: the stream of this thread, and errors as exceptions.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <string>

namespace tinygrad_nm {

extern thread_local const char* current_operation;  // that runs on this thread; null: none

cudaStream_t current_stream();
void check_launch(const char* kernel);                // throws std::runtime_error: kernel, and what CUDA says
void allow_shared(const void* kernel, size_t bytes);  // of dynamic shared memory, where it exceeds 48 KiB

// Throws std::runtime_error "<operation>: <what>: <what CUDA says, and how to mend it>".
[[noreturn]] void throw_cuda(cudaError_t error, const std::string& what);
inline void check_cuda(cudaError_t result, const char* what) {
    if (result != cudaSuccess) throw_cuda(result, what);
}

}  // namespace tinygrad_nm
