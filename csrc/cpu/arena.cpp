#include "cpu/arena.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "cpu/system_memory.h"
#include "shared/checked.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t alignment = 64;
constexpr int64_t kept_bytes = int64_t(64) << 20;  // the most that a thread's arena keeps between kernels
constexpr int64_t first_bytes = int64_t(1) << 20;

std::atomic<int64_t> held_bytes{0};

char* allocate(int64_t bytes) {
    char* block = static_cast<char*>(system_memory(bytes));  // bytes: a multiple of the alignment
    if (!block) throw std::bad_alloc();
    held_bytes += bytes;
    return block;
}

void release(void* block, int64_t bytes) {
    if (!block) return;
    std::free(block);
    held_bytes -= bytes;
}

// Requests are stacked in one block. One that does not fit gets a block of its own, and once the arena is
// empty the block grows to what was wanted at the most, so that the next kernel of this size fits.
struct Arena {
    char* block = nullptr;
    int64_t size = 0;
    int64_t used = 0;       // bytes taken from the block
    int64_t elsewhere = 0;  // bytes in blocks of their own
    int64_t wanted = first_bytes;

    ~Arena() { release(block, size); }

    void grow() {
        const int64_t target = std::min(wanted, kept_bytes);
        if (used != 0 || elsewhere != 0 || size >= target) return;
        release(block, size);
        block = nullptr;
        size = 0;
        block = allocate(target);
        size = target;
    }
};

thread_local Arena arena;

}  // namespace

Scratch::Scratch(int64_t count, int64_t element_size) {
    const int64_t bytes = checked_product("scratch memory", {count, element_size});
    const int64_t rounded = checked_add("scratch memory", bytes, alignment - 1) / alignment * alignment;
    bytes_ = std::max(alignment, rounded);
    arena.wanted = std::max(arena.wanted, arena.used + arena.elsewhere + bytes_);
    arena.grow();
    own_block_ = arena.size - arena.used < bytes_;
    if (own_block_) {
        data = allocate(bytes_);
        arena.elsewhere += bytes_;
    } else {
        data = arena.block + arena.used;
        arena.used += bytes_;
    }
}

Scratch::~Scratch() {
    if (own_block_) {
        release(data, bytes_);
        arena.elsewhere -= bytes_;
    } else {
        arena.used -= bytes_;
    }
}

int64_t arena_bytes() {
    return held_bytes;
}

}  // namespace tinygrad_nm
