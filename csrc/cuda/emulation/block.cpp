// The threads of a block take turns: each runs until it must wait for others; when none can run, those go on
// that have waited for each other.
#include "cuda/emulation/block.h"

#include <algorithm>
#include <cstring>

namespace tinygrad_nm::emulation {

Block& block = *new Block();  // never destroyed: the process may end while a kernel runs

namespace {

void wait_for(Waits what, const Site& site) {
    Thread& t = me();
    t.waits = what, t.site = site;
    t.fibre.leave();
}

// The life of a thread. Nothing may be thrown past it: there its stack ends.
void run_thread() {
    try {
        block.body(block.context);
        const auto& copies = me().copies;
        if (!copies.empty())
            fail("ends with an asynchronous copy that it has not waited for", copies[0].site);
    } catch (...) {
        block.exception = std::current_exception();
    }
    ++block.done;
    wait_for(Waits::done, {});
}

void set_failure(unsigned thread, std::string what) {
    block.running = thread;
    block.failure = {std::move(what), me().site};
}

// All threads are at a barrier: they go on if it is the same.
void release_block() {
    const Thread& first = *block.threads[0];
    block.at_barrier = block.predicates = 0;
    for (unsigned i = 0; i < block.size; ++i) {
        Thread& t = *block.threads[i];
        t.waits = Waits::no;
        block.predicates += t.value != 0;
        if (t.site.line != first.site.line)
            return set_failure(i, "waits at another barrier than thread " + text(first.index) +
                                      ", which waits" + text(first.site) + ", but this one");
    }
    watch_barrier();
}

// Lets those lanes of a warp go on that wait for each other: one group of them, since they read each other's
// values before others exchange theirs. False: some lane of each group has not arrived.
bool release_warp(unsigned warp) {
    const unsigned first = warp * warp_size, lanes = std::min(warp_size, block.size - first);
    WarpValues& values = block.warps[warp];
    for (unsigned leading = 0; leading < lanes; ++leading) {
        const Thread& leader = *block.threads[first + leading];
        if (leader.waits != Waits::warp) continue;
        values.mask = 0;
        for (unsigned lane = 0; lane < lanes; ++lane) {
            const Thread& t = *block.threads[first + lane];
            if (t.waits != Waits::warp || t.mask != leader.mask) continue;
            values.mask |= 1u << lane, values.lane[lane] = t.value;
        }
        if (values.mask != leader.mask) continue;
        for (unsigned lane = 0; lane < lanes; ++lane) {
            if (!(values.mask >> lane & 1)) continue;
            Thread& t = *block.threads[first + lane];
            t.waits = Waits::no;
            if (t.site.line != leader.site.line && !block.failure)
                set_failure(first + lane, "is in another operation of its warp than thread " +
                                              text(leader.index) + ", which is" + text(leader.site) +
                                              ", but this one");
        }
        if (leader.orders_memory) watch_sync_warp(first, values.mask);
        return true;
    }
    return false;
}

// No thread can go on: says which waits, and for whom.
void report_stuck() {
    const auto first = [](bool (*condition)(const Thread&)) {
        unsigned i = 0;
        while (i < block.size && !condition(*block.threads[i])) ++i;
        return i;
    };
    const unsigned in_warp = first([](const Thread& t) { return t.waits == Waits::warp; });
    if (in_warp < block.size) return set_failure(in_warp, "waits for lanes of its warp that do not come");
    const unsigned waits = first([](const Thread& t) { return t.waits == Waits::block; });
    const unsigned ended = first([](const Thread& t) { return t.waits == Waits::done; });
    set_failure(waits, "waits at a barrier that " + std::to_string(block.done) + " of " +
                           std::to_string(block.size) + " threads do not reach, thread " +
                           text(block.threads[ended]->index) + " the first of them:");
}

void release() {
    if (block.at_barrier == block.size) return release_block();
    bool some = false;
    for (unsigned warp = 0; warp < block.warps.size(); ++warp) some |= release_warp(warp);
    if (!some) report_stuck();
}

constexpr size_t shared_gap = 64;  // between variables: what runs over one is not in the next
const char dynamic_variable = 0;

size_t rounded_up(size_t bytes, size_t multiple) {
    return (bytes + multiple - 1) / multiple * multiple;
}

void check_shared(const char* name, const Site& site) {
    const size_t dynamic = block.launch->dynamic_shared, most = most_shared(block.launch->capability);
    if (block.static_bytes > most_static_shared)
        fail("declares " + std::to_string(block.static_bytes) + " bytes of static shared memory with " +
                 name + ", but a block has at most " + std::to_string(most_static_shared),
             site);
    if (block.static_bytes + dynamic > most)
        fail("has " + std::to_string(block.static_bytes) + " bytes of static shared memory with " + name +
                 " and " + std::to_string(dynamic) +
                 " of dynamic, but a block of this architecture has at most " + std::to_string(most) +
                 " together",
             site);
}

void* shared_at(const SharedDeclaration& d, const Site& site) {
    const size_t begin = rounded_up(block.shared_end + shared_gap, d.alignment);
    if (begin + d.bytes > sizeof block.shared)
        fail("has too many variables in shared memory for this device", site);
    block.variables.push_back({d.variable, begin});
    block.shared_end = begin + d.bytes;
    watch_shared(d.name, block.shared + begin, d.bytes, d.element, begin);
    return block.shared + begin;
}

void* find_shared(const void* variable) {
    for (const SharedVariable& v : block.variables)
        if (v.variable == variable) return block.shared + v.begin;
    return nullptr;
}

}  // namespace

void run_block(const std::vector<unsigned>& turns) {
    block.at_barrier = block.done = 0;
    watch_block();
    for (unsigned i = 0; i < block.size; ++i) {
        Thread& t = *block.threads[i];
        t.waits = Waits::no, t.group = 0;
        t.copies.clear();
        t.fibre.start(run_thread);
    }
    while (true) {
        for (const unsigned i : turns) {
            Thread& t = *block.threads[i];
            if (t.waits != Waits::no) continue;
            block.running = i;
            place.thread = t.index;
            watch_thread(i, t.fibre.stack(), Fibre::size);
            t.fibre.resume();
            watch_no_thread();
            if (block.failure || block.exception) return;
        }
        if (block.done == block.size) return;
        release();
        if (block.failure) return;
    }
}

void fail(std::string what, const Site& site) {
    block.failure = {std::move(what), site};
    me().fibre.leave();
    __builtin_unreachable();
}

void fail(const char* what, const Site& site) {
    fail(std::string(what), site);
}

int barrier(const Site& site, bool predicate) {
    me().value = predicate;
    ++block.at_barrier;
    wait_for(Waits::block, site);
    return int(block.predicates);
}

void* static_shared(const SharedDeclaration& declaration, const Site& site) {
    if (void* known = find_shared(declaration.variable)) return known;
    block.static_bytes = rounded_up(block.static_bytes, declaration.alignment) + declaration.bytes;
    check_shared(declaration.name, site);
    return shared_at(declaration, site);
}

void* dynamic_shared(size_t element, const Site& site) {
    if (void* known = find_shared(&dynamic_variable)) return known;
    return shared_at({&dynamic_variable, "dynamic shared memory", block.launch->dynamic_shared, 128, element},
                     site);
}

const WarpValues& exchange(uint32_t mask, uint64_t value, const Site& site, bool orders_memory) {
    Thread& t = me();
    if (!(mask >> block.running % warp_size & 1)) fail("is not in the mask of its own warp operation", site);
    t.mask = mask, t.value = value, t.orders_memory = orders_memory;
    wait_for(Waits::warp, site);
    return block.warps[block.running / warp_size];
}

void copy_async(void* shared, const void* global, size_t bytes, const Site& site) {
    for (const void* p : {static_cast<const void*>(shared), global})
        if (reinterpret_cast<uintptr_t>(p) % bytes)
            fail(std::string("copies ") + std::to_string(bytes) + " bytes asynchronously " +
                     (p == shared ? "to" : "from") + " an address that is not a multiple of them",
                 site);
    watch_access(global, bytes, false, site.address);
    watch_copy(shared, bytes, site.address);
    Thread& t = me();
    t.copies.push_back({shared, global, bytes, t.group, site});
}
void commit_copies() {
    ++me().group;
}
void wait_copies(unsigned newest_left) {
    Thread& t = me();
    const auto due = [&](const AsyncCopy& c) { return c.group + newest_left < t.group; };
    for (const AsyncCopy& c : t.copies) {
        if (!due(c)) continue;
        watch_copied(c.shared, c.bytes);
        memcpy(c.shared, c.global, c.bytes);
    }
    std::erase_if(t.copies, due);
}

}  // namespace tinygrad_nm::emulation
