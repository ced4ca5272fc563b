// What kernels need of the CUDA runtime: the stream of this thread, and errors as exceptions.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>

namespace tinygrad_nm {

cudaStream_t current_stream();
void check_launch(const char* kernel);                    // throws std::runtime_error: kernel, and what CUDA says
void allow_shared(const void* kernel, size_t bytes);      // of dynamic shared memory, where it exceeds 48 KiB

}  // namespace tinygrad_nm
