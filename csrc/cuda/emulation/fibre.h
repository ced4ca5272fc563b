// Stacks that take turns on one thread of the processor: each thread of a block runs on one.
#pragma once
#include <cstddef>
#include <memory>

namespace tinygrad_nm::emulation {

class Fibre {
  public:
    Fibre();
    ~Fibre();
    Fibre(const Fibre&) = delete;
    Fibre& operator=(const Fibre&) = delete;

    // Runs entry(argument) on this stack from its first instruction on, until it calls leave(). To start
    // again drops what the stack held.
    void start(void (*entry)(void*), void* argument);
    void resume();  // from the caller's stack to this one
    void leave();   // from this stack to the one that resumed it
    bool holds(const void* p) const { return p >= memory_ && p < memory_ + size_; }

  private:
    static constexpr size_t size_ = 128 << 10;
    unsigned char* memory_;
    void *here_ = nullptr, *caller_ = nullptr;
    void (*entry_)(void*) = nullptr;
    void* argument_ = nullptr;
    static void first(Fibre* fibre);
};

}  // namespace tinygrad_nm::emulation
