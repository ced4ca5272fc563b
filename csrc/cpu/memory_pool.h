// Memory for large results, kept for the next one of its size: fresh pages cost more than many a kernel.
//
// Sizes are rounded up to one of eight classes an octave, so at most an eighth is wasted. Blocks are 64-byte
// aligned. What is idle is bounded by a limit, and a new block takes the place of idle ones of other sizes
// once more is held than was ever needed at once (and 128 MiB); all go back to the system when an allocation
// fails. Any thread may take and return; a forked child may, too.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

struct PoolStats {
    int64_t used;               // bytes in blocks that are taken
    int64_t idle;               // bytes kept for the next one
    int64_t peak;               // the most bytes that were ever taken at once, since the last reset
    int64_t limit;              // the most that may be idle
    int64_t reused, allocated;  // how many blocks came from the pool, how many from the system
};

int64_t pool_block_size(int64_t bytes);  // the size of the block for so many bytes; std::overflow_error
void* pool_take(int64_t bytes);          // throws std::bad_alloc, std::overflow_error; contents undefined
void pool_return(void* block, int64_t bytes);  // bytes as given to pool_take

void pool_empty();                   // gives all idle blocks back to the system
void pool_set_limit(int64_t bytes);  // gives back what is beyond the new limit
PoolStats pool_stats();
void pool_reset_peak();  // the peak is from now on that of the blocks taken at present, or later

}  // namespace tinygrad_nm
