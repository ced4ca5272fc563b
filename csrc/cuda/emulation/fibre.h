// Stacks that take turns on one thread of the processor: each thread of a block runs on one.
#pragma once
#include <cstddef>

namespace tinygrad_nm::emulation {

class Fibre {
  public:
    Fibre();
    ~Fibre();
    Fibre(const Fibre&) = delete;
    Fibre& operator=(const Fibre&) = delete;

    // The next resume() runs entry() on this stack from its first instruction on; what the stack held is
    // dropped.
    void start(void (*entry)());
    void resume();  // from the caller's stack to this one
    void leave();   // from this stack to the one that resumed it
    const void* stack() const { return memory_ + guard; }

    static constexpr size_t size = 256 << 10;

  private:
    static constexpr size_t guard =
        64 << 10;  // below the stack: an overflow is a segmentation fault, and no stranger's
    unsigned char* memory_;
    unsigned char* top_;
    void *here_ = nullptr, *caller_ = nullptr;
};

}  // namespace tinygrad_nm::emulation
