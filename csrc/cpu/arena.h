// Scratch memory: one reusable arena a thread, 64-byte aligned, bounded and countable.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

// Memory that lives as long as this object; objects of one thread end in the reverse order of their
// construction (make them local variables). Memory that several threads share is taken before the parallel
// region; a task takes its own from its own thread. Contents are undefined. Throws std::bad_alloc, or
// std::overflow_error if count * element_size does not fit. Not inline: instruction-set files share it.
class Scratch {
  public:
    Scratch(int64_t count, int64_t element_size);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    void* data;  // 64-byte aligned, never null

  private:
    int64_t bytes_;
    bool own_block_;
};

// Bytes held by the arenas of all threads at present.
int64_t arena_bytes();

}  // namespace tinygrad_nm
