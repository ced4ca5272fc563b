// Memory of the device for scratch: cuda/runtime.cpp, cuda/emulation/memory.cpp.
#pragma once
#include <cstddef>

namespace tinygrad_nm {

// For one call, undefined at first, in the order of the current stream. Throws std::bad_alloc.
void* memory_of_device(size_t bytes, size_t element);
void return_memory(void* memory) noexcept;

}  // namespace tinygrad_nm
