#include "cpu/memory_pool.h"

#include <pthread.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "cpu/system_memory.h"
#include "shared/checked.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t alignment = 64;
constexpr int64_t least_step = 4096;
constexpr int64_t default_limit = int64_t(2) << 30;
constexpr int64_t slack = int64_t(128) << 20;

struct Pool {
    std::mutex lock;
    std::map<int64_t, std::vector<void*>> idle_blocks;  // by size
    int64_t highest = 0;  // the most bytes ever taken at once, since the pool was emptied
    PoolStats stats{.used = 0, .idle = 0, .peak = 0, .limit = default_limit, .reused = 0, .allocated = 0};

    // Takes idle blocks out, the largest first, until at most `most` bytes are idle.
    void shrink(int64_t most) {
        while (stats.idle > most) {
            const auto largest = std::prev(idle_blocks.end());
            std::free(largest->second.back());
            largest->second.pop_back();
            stats.idle -= largest->first;
            if (largest->second.empty()) idle_blocks.erase(largest);
        }
    }
};

// Never destroyed: arrays may outlive every static object when the interpreter ends.
Pool& pool() {
    static Pool& only = *new Pool;
    return only;
}

// A child forked while another thread held the lock would wait for it forever.
[[maybe_unused]] const int fork_handler =
    pthread_atfork([] { pool().lock.lock(); }, [] { pool().lock.unlock(); }, [] { pool().lock.unlock(); });

// Blocks of other sizes make room first: what is held in all stays near the most that was needed at once.
void* from_system(Pool& p, int64_t size) {
    p.highest = std::max(p.highest, p.stats.used + size);
    p.shrink(p.highest + slack - (p.stats.used + size));
    void* block = system_memory(size);
    if (block) return block;
    p.shrink(0);
    block = system_memory(size);
    if (!block) throw std::bad_alloc();
    return block;
}

}  // namespace

int64_t pool_block_size(int64_t bytes) {
    const int64_t wanted = std::max(bytes, alignment);
    const int64_t step = std::max(least_step, int64_t(std::bit_floor(uint64_t(wanted))) / 8);
    return checked_add("memory pool", wanted, step - 1) / step * step;
}

void* pool_take(int64_t bytes) {
    const int64_t size = pool_block_size(bytes);
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    void* block = nullptr;
    const auto found = p.idle_blocks.find(size);
    if (found != p.idle_blocks.end()) {
        block = found->second.back();
        found->second.pop_back();
        if (found->second.empty()) p.idle_blocks.erase(found);
        p.stats.idle -= size;
        ++p.stats.reused;
    } else {
        block = from_system(p, size);
        ++p.stats.allocated;
    }
    p.stats.used += size;
    p.stats.peak = std::max(p.stats.peak, p.stats.used);
    return block;
}

void pool_return(void* block, int64_t bytes) {
    const int64_t size = pool_block_size(bytes);
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    p.stats.used -= size;
    if (size > p.stats.limit) return std::free(block);
    p.shrink(p.stats.limit - size);
    try {
        p.idle_blocks[size].push_back(block);
        p.stats.idle += size;
    } catch (
        const std::bad_alloc&) {  // this much memory is short: the block goes back, and no empty entry stays
        std::free(block);
        const auto entry = p.idle_blocks.find(size);
        if (entry != p.idle_blocks.end() && entry->second.empty()) p.idle_blocks.erase(entry);
    }
}

void pool_empty() {
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    p.shrink(0);
    p.highest = p.stats.used;
}

void pool_set_limit(int64_t bytes) {
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    p.stats.limit = bytes;
    p.shrink(bytes);
}

PoolStats pool_stats() {
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    return p.stats;
}

void pool_reset_peak() {
    Pool& p = pool();
    const std::lock_guard guard(p.lock);
    p.stats.peak = p.stats.used;
}

}  // namespace tinygrad_nm
