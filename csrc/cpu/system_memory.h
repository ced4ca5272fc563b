// Memory from the system, for the arena and the pool.
#pragma once
#include <cstdint>
#include <cstdlib>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace tinygrad_nm {

// `bytes` (a multiple of 64) of memory at a multiple of 64, for std::free; null if there is none. Large
// blocks are asked for in large pages: fewer to fetch and to look up.
inline void* system_memory(int64_t bytes) {
    constexpr int64_t line = 64, large_page = int64_t(2) << 20;
    if (bytes < 2 * large_page) return std::aligned_alloc(line, size_t(bytes));
    void* block = std::aligned_alloc(large_page, size_t((bytes + large_page - 1) / large_page * large_page));
#ifdef MADV_HUGEPAGE
    if (block) (void)madvise(block, size_t(bytes), MADV_HUGEPAGE);  // advice: nothing depends on the answer
#endif
    return block;
}

}  // namespace tinygrad_nm
