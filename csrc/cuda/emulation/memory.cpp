// Scratch memory of the emulated device. All its bytes are ones at first, so that every number in it is NaN
// or -1.
#include <cstdlib>
#include <cstring>
#include <new>

#include "cuda/emulation/watch.h"
#include "cuda/memory.h"

namespace tinygrad_nm {

void* memory_of_device(size_t bytes, size_t element) {
    constexpr size_t alignment = 256;  // cudaMalloc's
    void* const memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!memory) throw std::bad_alloc();
    memset(memory, 0xff, bytes);
    emulation::watch_memory({.name = "scratch memory",
                             .begin = static_cast<const char*>(memory),
                             .bytes = bytes,
                             .element = element,
                             .written = false,
                             .writable = true});
    return memory;
}

void return_memory(void* memory) noexcept {
    emulation::forget_memory(memory);
    std::free(memory);
}

}  // namespace tinygrad_nm
