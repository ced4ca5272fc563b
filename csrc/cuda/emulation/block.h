// The block of threads that runs, for machine.cpp and block.cpp.
#pragma once
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda/emulation/fibre.h"
#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

namespace tinygrad_nm::emulation {

enum class Waits { no, block, warp, done };

struct AsyncCopy {
    void* shared;
    const void* global;
    size_t bytes;
    unsigned group;
    Site site;
};

struct Thread {
    Fibre fibre;  // made once, for all launches
    Index index;
    Waits waits;
    Site site;           // where it waits
    uint32_t mask;       // the lanes that it waits for
    uint64_t value;      // what it brings along
    bool orders_memory;  // among the lanes
    unsigned group;      // of the copies that come next
    std::vector<AsyncCopy> copies;
};

struct SharedVariable {
    const void* variable;
    size_t begin;
};

struct Failure {
    std::string what;
    Site site;
};

struct Block {
    const LaunchShape* launch;
    void (*body)(void*);
    void* context;
    unsigned size;  // threads of it that run
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<WarpValues> warps;
    std::vector<SharedVariable> variables;  // where they are in every block of the launch
    size_t shared_end, static_bytes;

    unsigned running, at_barrier, predicates, done;
    std::optional<Failure> failure;  // of the thread that runs
    std::exception_ptr exception;
    alignas(128) unsigned char shared[shared_capacity];
};
extern Block& block;

inline Thread& me() {
    return *block.threads[block.running];
}

void run_block(
    const std::vector<unsigned>& turns);  // the threads in this order, until all have ended or one has failed

}  // namespace tinygrad_nm::emulation
