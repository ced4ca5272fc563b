// What a strict build keeps of each element of memory: who last wrote it and who last read it. Two accesses,
// one of them a write, race if they are of different blocks of one launch, or of different threads of a block
// with no barrier between.
//
// Time is a count of launches, blocks and barriers. What happened before the present launch, or in the
// present block before its last barrier, is in order with all that comes, whatever the order in which the
// threads ran.
#pragma once
#include <bit>
#include <cstdint>

namespace tinygrad_nm::emulation {

enum class Spread : uint64_t {
    thread,
    warp,
    block,
    grid
};  // accesses, not in order, by one thread, or several of ...

struct Access {
    bool atomic : 1 = false;
    bool pending : 1 = false;  // an asynchronous copy, which may be performed at any time
    Spread spread : 2 = Spread::thread;
    uint64_t thread : 12 = 0;
    uint64_t clock : 48 = 0;  // 0: never

    bool operator==(const Access& b) const {
        return std::bit_cast<uint64_t>(*this) == std::bit_cast<uint64_t>(b);
    }
};
static_assert(sizeof(Access) == sizeof(uint64_t));

struct Record {
    Access write, read;
};

// The last __syncwarp of a thread: what these lanes did before is in order.
struct WarpSync {
    uint64_t clock = 0;
    uint32_t mask = 0;
};

// The thread that runs, and since when there is order.
struct Now {
    Access access;                                // of this thread, at this time
    uint64_t launch = 1, block = 1, barrier = 1;  // when they began
    WarpSync warp;
};

enum class Conflict { none, threads, blocks };

inline bool same_warp(const Access& a, const Access& b) {
    return a.thread / 32 == b.thread / 32;
}

// Are these earlier accesses in order with the present one?
inline Conflict conflict(const Access& a, const Now& now) {
    if (a.clock < now.launch) return Conflict::none;
    if (a.clock < now.block || a.spread == Spread::grid) return Conflict::blocks;
    if (a.clock < now.barrier || (a.spread == Spread::thread && a.thread == now.access.thread))
        return Conflict::none;
    if (a.spread <= Spread::warp && same_warp(a, now.access) && a.clock < now.warp.clock) {
        const uint32_t lanes = a.spread == Spread::thread ? 1u << a.thread % 32 : ~0u;
        if ((lanes & ~now.warp.mask) == 0) return Conflict::none;
    }
    return Conflict::threads;
}

// The earlier accesses that are not in order with the present one, and that one.
inline Access joined(const Access& a, const Now& now) {
    Access all = now.access;
    const Conflict c = conflict(a, now);
    if (c == Conflict::blocks) all.spread = Spread::grid;
    if (c == Conflict::threads)
        all.spread = a.spread <= Spread::warp && same_warp(a, now.access) ? Spread::warp : Spread::block;
    return all;
}

}  // namespace tinygrad_nm::emulation
