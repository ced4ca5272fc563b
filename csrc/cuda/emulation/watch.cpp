// The watch of a strict build: finds the memory of an access, and checks it. The compiler reports the
// accesses to sanitizer.cpp.
#include "cuda/emulation/watch.h"

#include <link.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/record.h"

namespace tinygrad_nm::emulation {
namespace {

struct Memory {
    std::string name;
    uintptr_t begin = 0;
    size_t bytes = 0;
    unsigned shift = 0;  // bytes of an element: 1 << shift
    bool written = true, writable = false;
    bool shared = false;        // an access of an earlier block means nothing
    Record* records = nullptr;  // of each element; null: anyone may read it
    std::unique_ptr<Record[]> own = nullptr;

    size_t elements() const { return (bytes + (size_t(1) << shift) - 1) >> shift; }
    bool holds(uintptr_t p, size_t n) const { return p - begin < bytes && n <= bytes - (p - begin); }
};

std::map<uintptr_t, Memory> memories;  // by the first byte
std::vector<uintptr_t> of_launch;      // those of them that end with the launch
Memory nothing;
Memory* recent[256];  // by the address in the kernel, which mostly meets the memory of the time before
std::vector<Record> shared_records(shared_capacity);

Now now;
uint64_t clock = 1;
WarpSync warp_syncs[most_threads];

// What this thread of the process may use as it likes: the stack of the kernel's thread that it runs; between
// launches, as the host of a call, nothing of the device's; else all memory.
struct Own {
    uintptr_t begin = 0;
    size_t bytes = SIZE_MAX;
};
constexpr Own hosts = {0, 0};
thread_local Own own __attribute__((tls_model("initial-exec")));
size_t operands = 0;  // memories of the call
struct HostFault {
    std::string what;
    Site site;
} host_fault;  // the first of the call

void add(Memory memory) {
    const uintptr_t begin = memory.begin;
    memories[begin] = std::move(memory);
    std::fill(std::begin(recent), std::end(recent), &nothing);
}
void remove(uintptr_t begin) {
    memories.erase(begin);
    std::fill(std::begin(recent), std::end(recent), &nothing);
}
Memory* find(uintptr_t p, size_t bytes) {
    const auto after = memories.upper_bound(p);
    return after == memories.begin() || !std::prev(after)->second.holds(p, bytes) ? nullptr
                                                                                  : &std::prev(after)->second;
}

// What every kernel may read: threadIdx and its like, and the constants of this module.
void add_constants() {
    add({.name = "threadIdx", .begin = reinterpret_cast<uintptr_t>(&place), .bytes = sizeof place});
    const auto add_segments = [](dl_phdr_info* image, size_t, void*) {
        const std::vector<ElfW(Phdr)> segments(image->dlpi_phdr, image->dlpi_phdr + image->dlpi_phnum);
        const auto holds = [&](const ElfW(Phdr) & s, const void* p) {
            return s.p_type == PT_LOAD &&
                   reinterpret_cast<uintptr_t>(p) - image->dlpi_addr - s.p_vaddr < s.p_memsz;
        };
        if (std::none_of(segments.begin(), segments.end(), [&](const auto& s) { return holds(s, &place); }))
            return 0;
        for (const auto& s : segments)
            if (s.p_type == PT_LOAD && !(s.p_flags & PF_W))
                add({.name = "constant memory", .begin = image->dlpi_addr + s.p_vaddr, .bytes = s.p_memsz});
        return 1;
    };
    dl_iterate_phdr(add_segments, nullptr);
}

std::string bytes_text(size_t bytes) {
    return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

// Where p lies beside the nearest memory, if it lies near one.
std::string outside_text(uintptr_t p) {
    const auto after = memories.upper_bound(p);
    const Memory* const below = after == memories.begin() ? nullptr : &std::prev(after)->second;
    const size_t behind = !below                            ? SIZE_MAX
                          : p - below->begin < below->bytes ? 0
                                                            : p - below->begin - below->bytes;
    const size_t before = after == memories.end() ? SIZE_MAX : after->first - p;
    if (std::min(behind, before) > size_t(1) << 20) return " where the device has no memory of this call";
    if (before < behind) return ", " + bytes_text(before) + " before the begin of " + after->second.name;
    const std::string end = " the end of " + below->name + ", which has " + bytes_text(below->bytes);
    return p - below->begin < below->bytes ? " across" + end : ", " + bytes_text(behind) + " behind" + end;
}

enum class Use { read, write, atomic, copy };
constexpr const char* verbs[] = {"reads", "writes", "updates", "copies to"};

[[noreturn, gnu::noinline]] void fail_outside(Use use, uintptr_t p, size_t bytes, const void* address) {
    fail(verbs[int(use)] + (" " + bytes_text(bytes)) + outside_text(p), {address});
}

// An element of memory in use, all that a message needs.
struct Element {
    const Memory& memory;
    size_t number;
    Use use;
    const void* address;  // in the kernel

    [[noreturn, gnu::noinline]] void fail(const std::string& why) const {
        emulation::fail(std::string(verbs[int(use)]) + " element " + std::to_string(number) + " of " +
                            memory.name + ", " + why,
                        {address});
    }
    // Fails if earlier accesses are not in order with this one.
    void check_order(const Access& earlier, const char* done) const {
        if (const Conflict c = conflict(earlier, now); c != Conflict::none) [[unlikely]]
            fail_order(c, earlier, done);
    }
    [[noreturn, gnu::noinline]] void fail_order(Conflict c, const Access& earlier, const char* done) const {
        if (c == Conflict::blocks)
            fail(std::string("which another block has ") + done + ": blocks are in no order");
        const std::string who = earlier.spread == Spread::thread
                                    ? "thread " + text(index_of(earlier.thread, place.block_size)) + " has "
                                    : "several threads have ";
        fail("which " + who + done + ", without a barrier in between");
    }
};

inline void note(Record& r, const Element& e) {
    if (e.memory.shared && r.write.clock < now.block) r = Record();
    if (r.write.pending) [[unlikely]]
        e.fail("to which an asynchronous copy has not been waited for");
    if ((e.use == Use::read || e.use == Use::atomic) && !e.memory.written && r.write.clock == 0) [[unlikely]]
        e.fail("where nothing was written");
    if (!(e.use == Use::atomic && r.write.atomic)) e.check_order(r.write, "written");
    if (e.use == Use::read) {
        if (r.read != now.access) r.read = joined(r.read, now);
        return;
    }
    e.check_order(r.read, "read");
    const bool joins = e.use == Use::atomic && r.write.atomic;
    r.write = joins ? joined(r.write, now) : now.access;
    r.write.atomic = e.use == Use::atomic;
    r.write.pending = e.use == Use::copy;
}

// The code around launches may be watched too. On a GPU the device's memory is not the host's: found here,
// and thrown when the call ends, since watched code cannot be left by an exception.
void note_host_access(uintptr_t p, Use use, const void* address) {
    const Memory* const m = find(p, 1);
    if (m && m->records && host_fault.what.empty())
        host_fault = {std::string("the host ") + verbs[int(use)] + " element " +
                          std::to_string((p - m->begin) >> m->shift) + " of " + m->name +
                          ", which is memory of the device",
                      {address}};
}

inline void access(const void* pointer, size_t bytes, Use use, const void* address) {
    const uintptr_t p = reinterpret_cast<uintptr_t>(pointer);
    if (p - own.begin < own.bytes) return;
    if (own.bytes == hosts.bytes) [[unlikely]]
        return note_host_access(p, use, address);
    const uintptr_t key = reinterpret_cast<uintptr_t>(address);
    Memory*& m = recent[(key ^ key >> 8) % std::size(recent)];
    if (!m->holds(p, bytes)) [[unlikely]] {
        Memory* const found = find(p, bytes);
        if (!found) fail_outside(use, p, bytes, address);
        m = found;
    }
    const size_t first = (p - m->begin) >> m->shift, last = (p - m->begin + bytes - 1) >> m->shift;
    if (use != Use::read && !m->writable) [[unlikely]]
        Element{*m, first, use, address}.fail("which the kernel may only read");
    if (!m->records) return;
    for (size_t i = first; i <= last; ++i) note(m->records[i], {*m, i, use, address});
}

unsigned shift_of(size_t element) {
    return unsigned(std::countr_zero(element));
}

}  // namespace

void watch_memory(const Region& r) {
    Memory m{.name = r.name,
             .begin = reinterpret_cast<uintptr_t>(r.begin),
             .bytes = r.bytes,
             .shift = shift_of(r.element),
             .written = r.written,
             .writable = r.writable};
    m.own = std::make_unique<Record[]>(m.elements());
    m.records = m.own.get();
    add(std::move(m));
    ++operands;
    own = hosts;
}
void forget_memory(const void* begin) {
    remove(reinterpret_cast<uintptr_t>(begin));
    if (--operands > 0) return;
    own = {};
    host_fault = {};
}
std::string host_access() {
    return host_fault.what.empty() ? "" : host_fault.what + text(host_fault.site);
}
long long first_unwritten(const void* begin) {
    const Memory& m = memories.at(reinterpret_cast<uintptr_t>(begin));
    for (size_t i = 0; i < m.elements(); ++i)
        if (m.records[i].write.clock == 0) return static_cast<long long>(i);
    return -1;
}

WatchedLaunch::WatchedLaunch(const void* arguments, size_t bytes) {
    static const bool once = (add_constants(), true);
    (void)once;
    now.launch = ++clock;
    of_launch = {reinterpret_cast<uintptr_t>(arguments)};
    add({.name = "the kernel's arguments", .begin = of_launch[0], .bytes = bytes});
}
WatchedLaunch::~WatchedLaunch() {
    for (const uintptr_t begin : of_launch) remove(begin);
}
void watch_shared(const char* name, void* begin, size_t bytes, size_t element, size_t place) {
    if (bytes == 0) return;
    of_launch.push_back(reinterpret_cast<uintptr_t>(begin));
    add({.name = name,
         .begin = of_launch.back(),
         .bytes = bytes,
         .shift = shift_of(element),
         .written = false,
         .writable = true,
         .shared = true,
         .records = &shared_records[place]});
}
void watch_block() {
    now.block = now.barrier = now.access.clock = ++clock;
}
void watch_barrier() {
    now.barrier = now.access.clock = ++clock;
}
void watch_sync_warp(unsigned first_thread, uint32_t lanes) {
    now.access.clock = ++clock;
    for (unsigned lane = 0; lane < warp_size; ++lane)
        if (lanes >> lane & 1) warp_syncs[first_thread + lane] = {clock, lanes};
}
void watch_thread(unsigned thread, const void* stack, size_t bytes) {
    now.access.thread = thread, now.warp = warp_syncs[thread];
    own = {reinterpret_cast<uintptr_t>(stack), bytes};
}
void watch_no_thread() {
    own = operands > 0 ? hosts : Own();
}

void watch_access(const void* p, size_t bytes, bool write, const void* address) {
    access(p, bytes, write ? Use::write : Use::read, address);
}
void watch_atomic(const void* p, size_t bytes, const void* address) {
    access(p, bytes, Use::atomic, address);
}
void watch_copy(const void* shared, size_t bytes, const void* address) {
    access(shared, bytes, Use::copy, address);
}
void watch_copied(const void* shared, size_t bytes) {
    const uintptr_t p = reinterpret_cast<uintptr_t>(shared);
    const Memory& m = *find(p, bytes);
    for (size_t i = (p - m.begin) >> m.shift; i <= (p - m.begin + bytes - 1) >> m.shift; ++i)
        m.records[i].write = now.access;
}
bool watches(const void* p) {
    const bool kernel_runs = own.bytes != hosts.bytes && own.bytes != Own().bytes;
    return kernel_runs && reinterpret_cast<uintptr_t>(p) - own.begin >= own.bytes;
}
std::string name_of(const void* p) {
    const Memory* const m = find(reinterpret_cast<uintptr_t>(p), 1);
    return m ? m->name : "memory that the device does not have";
}

}  // namespace tinygrad_nm::emulation
