// The CUDA execution model on the host: grids of blocks of threads, with barriers, warps, shared memory and
// asynchronous copies. What a kernel sees of it is in device.h; what a strict build watches is in watch.h.
//
// A launch runs its blocks one after another, and the threads of a block in turn, each until it must wait for
// others. It has run when it returns: all launches are in one order, which is that of every stream.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/emulation/site.h"

namespace tinygrad_nm::emulation {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};
Index index_of(uint64_t number, const Index& size);
std::string text(const Index& i);

constexpr unsigned warp_size = 32, most_threads = 1024;  // of a block
constexpr size_t most_static_shared = 48 << 10;          // bytes of a block

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
struct Architecture {
    int capability;      // 75: 7.5
    size_t most_shared;  // bytes of a block, static and dynamic together
};
constexpr Architecture architectures[] = {{75, 64 << 10}, {80, 163 << 10}};
constexpr size_t most_shared(int capability) {
    for (const Architecture& a : architectures)
        if (a.capability == capability) return a.most_shared;
    throw std::logic_error("the emulated device has no such compute capability");
}
constexpr size_t shared_capacity = 192 << 10;  // the device's: with gaps between variables

// There is one device. Who calls kernels, or asks for one of the two below, holds this lock; fork() waits for
// it.
std::unique_lock<std::mutex> lock_device();

enum class Order { forward, reverse, shuffled };  // in which blocks, and threads between barriers, run
void set_order(Order order, unsigned seed = 0);
const std::map<std::string, long, std::less<>>& launches();  // by the kernel's name, since the start

struct LaunchShape {
    const char* kernel;  // as the source has it: "(gemm_tiles<T, Tile>)"
    Index grid, block;
    size_t dynamic_shared;
    int capability;
};

// Runs body(context) for every thread of every block. Throws std::invalid_argument for a shape that the
// architecture does not allow, std::runtime_error for what a kernel does wrong: kernel, block, thread, what
// and where.
void run_grid(const LaunchShape& shape, void (*body)(void*), void* context, size_t context_bytes);

// What a thread in a kernel may ask for.
struct Place {
    Index thread, block, block_size, grid_size;
};
extern Place place;

// All threads of the block have arrived; returns how many of them brought true.
int barrier(const Site& site, bool predicate = false);

struct SharedDeclaration {
    const void* variable;  // tells it apart
    const char* name;
    size_t bytes, alignment, element;
};
void* static_shared(const SharedDeclaration&, const Site& site);
void* dynamic_shared(size_t element, const Site& site);

// All threads of the mask have arrived with a value, and each sees those of all; where that orders memory,
// also what they wrote before.
struct WarpValues {
    uint64_t lane[warp_size];
    uint32_t mask;
};
const WarpValues& exchange(uint32_t mask, uint64_t value, const Site& site, bool orders_memory = false);

// An asynchronous copy is performed at the wait for its group, as late as the hardware may.
void copy_async(void* shared, const void* global, size_t bytes, const Site& site);
void commit_copies();
void wait_copies(unsigned newest_left);

// Ends the launch with this error of the thread that runs.
[[noreturn]] void fail(std::string what, const Site& site);
[[noreturn]] void fail(const char* what, const Site& site);  // for code that is compiled with the kernels

}  // namespace tinygrad_nm::emulation
