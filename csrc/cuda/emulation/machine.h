// The CUDA execution model on the host: grids of blocks of threads, with barriers, warps, shared memory and
// asynchronous copies. What a kernel sees of it is in device.h; what a strict build watches is in watch.h.
//
// A launch runs its blocks one after another, and the threads of a block in turn, each until it must wait for
// others.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>

namespace tinygrad_nm::emulation {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

// Limits of a compute capability (CUDA C++ Programming Guide, "Technical Specifications per Compute
// Capability").
struct Architecture {
    int capability;  // 75: 7.5
    unsigned most_threads;
    size_t shared_memory, shared_memory_opt_in;  // bytes of a block: without and with asking for more
};
constexpr Architecture architectures[] = {
    {75, 1024, 48 << 10, 64 << 10},
    {80, 1024, 48 << 10, 163 << 10},
};

enum class Order { forward, reverse, shuffled };  // in which blocks, and threads between barriers, run
void set_order(Order order, unsigned seed = 0);

struct LaunchShape {
    const char* kernel;
    Index grid, block;
    size_t dynamic_shared;
    int capability;
};

// Runs body(context) for every thread of every block. Throws std::invalid_argument for a shape that the
// architecture does not allow, std::runtime_error for what a kernel does wrong: kernel, block, thread and
// what.
void run_grid(const LaunchShape& shape, void (*body)(void*), void* context, size_t context_bytes);

std::map<std::string, long> launches();  // by kernel, since the start

constexpr unsigned warp_size = 32;

// What a thread in a kernel may ask for; `site`: the address in the kernel that asks.
struct Place {
    Index thread, block, block_size, grid_size;
};
extern thread_local Place place __attribute__((tls_model("initial-exec")));

void barrier(const void* site, int line);  // a compiler may make several sites of one line
void* static_shared(const void* variable, size_t bytes, size_t alignment, size_t element, const char* name);
void* dynamic_shared(size_t element);

// All threads of the mask bring a value, and each sees those of all lanes.
struct WarpValues {
    uint64_t lane[warp_size];
    uint32_t present;
};
const WarpValues& exchange(uint32_t mask, uint64_t value, const void* site);

// An asynchronous copy is performed at the wait for its group, as late as the hardware may.
void copy_async(void* shared, const void* global, size_t bytes, const void* site);
void commit_copies();
void wait_copies(unsigned newest_left, const void* site);

[[noreturn]] void fail(const std::string& what, const void* site);

}  // namespace tinygrad_nm::emulation
