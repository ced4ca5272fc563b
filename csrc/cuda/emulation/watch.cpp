// The watch of a strict build. Kernels are compiled with -fsanitize=thread, so that the compiler calls the
// functions at the end of this file for every access; they are ours, not the sanitizer's.
//
// Memory is known by its elements. Of each we keep who last wrote it and who last read it, where "who" is a
// serial number of the block's run, the number of barriers it had passed, and the thread. Two accesses, one
// of them a write, race if they are of different blocks of one launch, or of different threads of a block
// with no barrier in between.
#include "cuda/emulation/watch.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

#include "cuda/emulation/fibre.h"
#include "cuda/emulation/machine.h"

namespace tinygrad_nm::emulation {
namespace {

struct Who {
    uint32_t block = 0;  // serial number of its run; 0: nobody
    uint16_t phase = 0, thread = 0;
    bool operator==(const Who&) const = default;
};

struct Element {
    Who write, read;
    bool written = false, pending = false;
    bool many_blocks = false, many_threads = false;  // have read it: in this launch, in this phase
    bool atomic = false;                             // the last write
};

struct Memory {
    size_t bytes, element;
    std::string name;
    std::vector<Element> elements;
};

std::map<uintptr_t, Memory> global;  // by its first byte
std::map<uintptr_t, Memory> shared;  // of the block that runs
uintptr_t arguments_begin = 0, arguments_end = 0, shared_begin = 0, shared_end = 0;
uint32_t serial = 0, first_of_launch = 0;
Who who;
const Fibre* running = nullptr;
std::mutex mutex;

std::string bytes_text(size_t bytes) {
    return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

// The memory that holds p, or the nearest before it.
std::map<uintptr_t, Memory>::iterator before(std::map<uintptr_t, Memory>& memories, uintptr_t p) {
    auto found = memories.upper_bound(p);
    return found == memories.begin() ? memories.end() : std::prev(found);
}

Memory* find(uintptr_t p, size_t bytes, const char* verb, const void* site, size_t& offset) {
    auto& memories = p >= shared_begin && p < shared_end ? shared : global;
    const auto found = before(memories, p);
    const std::string access = std::string(verb) + " " + bytes_text(bytes);
    if (found == memories.end()) fail(access + " where the device has no memory", site);
    Memory& m = found->second;
    offset = p - found->first;
    if (offset + bytes > m.bytes)
        fail(access + ", " + (offset >= m.bytes ? bytes_text(offset - m.bytes) + " behind" : "beyond") +
                 " the end of " + m.name + " of " + bytes_text(m.bytes),
             site);
    return &m;
}

bool of_this_launch(const Who& w) {
    return w.block >= first_of_launch;
}

void check_race(const Element& e, const Who& other, bool many_threads, const char* what, const Memory& m,
                const void* site) {
    if (!of_this_launch(other)) return;
    if (other.block != who.block)
        fail(std::string(what) + " of " + m.name + " without order between blocks", site);
    if (other.phase == who.phase && (other.thread != who.thread || many_threads))
        fail(std::string(what) + " of " + m.name +
                 " by different threads without a barrier in between (the other: thread number " +
                 std::to_string(other.thread) + ")",
             site);
    (void)e;
}

void note(Element& e, const Memory& m, bool write, bool atomic, const void* site) {
    if (e.pending) fail("uses " + m.name + " before the asynchronous copy to it was waited for", site);
    if (!write || atomic)
        if (!e.written) fail("reads " + m.name + " where nothing was written", site);
    if (!(atomic && e.atomic))
        check_race(e, e.write, false, write ? "two writes" : "a write and a read", m, site);
    if (write) {
        if (e.many_blocks && of_this_launch(e.read))
            fail("a read and a write of " + m.name + " without order between blocks", site);
        if (!atomic || !e.atomic) check_race(e, e.read, e.many_threads, "a read and a write", m, site);
        e.write = who, e.written = true, e.atomic = atomic;
        return;
    }
    if (of_this_launch(e.read)) {
        if (e.read.block != who.block) e.many_blocks = true;
        e.many_threads = e.read.block == who.block && e.read.phase == who.phase &&
                         (e.many_threads || e.read.thread != who.thread);
    } else {
        e.many_blocks = e.many_threads = false;
    }
    e.read = who;
}

bool exempt(uintptr_t p, size_t bytes) {
    const uintptr_t own = reinterpret_cast<uintptr_t>(&place);  // threadIdx and its like
    return !running || running->holds(reinterpret_cast<const void*>(p)) ||
           (p >= own && p < own + sizeof place) || (p >= arguments_begin && p + bytes <= arguments_end);
}

void access(const void* pointer, size_t bytes, bool write, bool atomic, const void* site) {
    const uintptr_t p = reinterpret_cast<uintptr_t>(pointer);
    if (exempt(p, bytes)) return;
    size_t offset = 0;
    const char* verb = atomic ? "updates" : write ? "writes" : "reads";
    Memory& m = *find(p, bytes, verb, site, offset);
    if (bytes <= 16 && p % bytes != 0)
        fail(std::string(verb) + " " + bytes_text(bytes) + " of " + m.name + " at a misaligned address",
             site);
    for (size_t i = offset / m.element; i * m.element < offset + bytes; ++i)
        note(m.elements[i], m, write, atomic, site);
}

}  // namespace

void watch_memory(const void* begin, size_t bytes, size_t element, bool written, const char* name) {
    const std::lock_guard<std::mutex> lock(mutex);
    Memory m{bytes, element, name, std::vector<Element>((bytes + element - 1) / element)};
    for (Element& e : m.elements) e.written = written;
    global[reinterpret_cast<uintptr_t>(begin)] = std::move(m);
}
void forget_memory(const void* begin) {
    const std::lock_guard<std::mutex> lock(mutex);
    global.erase(reinterpret_cast<uintptr_t>(begin));
}
long long first_unwritten(const void* begin) {
    const Memory& m = global.at(reinterpret_cast<uintptr_t>(begin));
    for (size_t i = 0; i < m.elements.size(); ++i)
        if (!m.elements[i].written) return static_cast<long long>(i);
    return -1;
}
void watch_launch(const void* arguments, size_t bytes) {
    arguments_begin = reinterpret_cast<uintptr_t>(arguments), arguments_end = arguments_begin + bytes;
    first_of_launch = serial + 1;
}
void watch_block(const void* begin, size_t) {
    shared.clear();
    shared_begin = reinterpret_cast<uintptr_t>(begin), shared_end = shared_begin + (164 << 10);
    who = {++serial, 0, 0};
}
void watch_shared(const void* begin, size_t bytes, size_t element, const char* name) {
    shared[reinterpret_cast<uintptr_t>(begin)] = {bytes, element, name,
                                                  std::vector<Element>((bytes + element - 1) / element)};
}
void watch_phase(unsigned phase) {
    who.phase = uint16_t(phase);
}
void watch_thread(unsigned thread, const Fibre* fibre) {
    who.thread = uint16_t(thread), running = fibre;
}
void watch_access(const void* p, size_t bytes, bool write, const void* site) {
    access(p, bytes, write, false, site);
}
void watch_atomic(const void* p, size_t bytes, const void* site) {
    access(p, bytes, true, true, site);
}
void watch_pending(const void* pointer, size_t bytes, bool pending, const void* site) {
    size_t offset = 0;
    const uintptr_t p = reinterpret_cast<uintptr_t>(pointer);
    Memory& m = *find(p, bytes, "copies", site, offset);
    if (p % bytes != 0) fail("copies " + bytes_text(bytes) + " to a misaligned address of " + m.name, site);
    for (size_t i = offset / m.element; i * m.element < offset + bytes; ++i) m.elements[i].pending = pending;
}

// " (file.cu:12)" from the compiler's line tables, by the tool that reads them; nothing where it is not
// installed.
static std::string line_of(const void* site) {
    Dl_info where;
    if (!site || !dladdr(site, &where) || !where.dli_fname) return "";
    char command[1024], line[512] = "";
    const uintptr_t offset = uintptr_t(site) - uintptr_t(where.dli_fbase) - 1;  // within the call
    snprintf(command, sizeof command, "addr2line -se '%s' %#zx 2>/dev/null", where.dli_fname, size_t(offset));
    FILE* tool = popen(command, "r");
    if (!tool) return "";
    if (!fgets(line, sizeof line, tool)) line[0] = 0;
    pclose(tool);
    std::string text(line);
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text.empty() || text[0] == '?' ? "" : " (" + text + ")";
}

std::string describe(const std::string& what, const void* site) {
    return what + line_of(site);
}

}  // namespace tinygrad_nm::emulation

// What -fsanitize=thread calls.
using tinygrad_nm::emulation::watch_access;
#define SITE __builtin_extract_return_addr(__builtin_return_address(0))
#define ACCESS(size)                                        \
    extern "C" void __tsan_read##size(void* p) {            \
        watch_access(p, size, false, SITE);                 \
    }                                                       \
    extern "C" void __tsan_write##size(void* p) {           \
        watch_access(p, size, true, SITE);                  \
    }                                                       \
    extern "C" void __tsan_unaligned_read##size(void* p) {  \
        watch_access(p, size, false, SITE);                 \
    }                                                       \
    extern "C" void __tsan_unaligned_write##size(void* p) { \
        watch_access(p, size, true, SITE);                  \
    }
extern "C" {
void __tsan_read1(void* p) {
    watch_access(p, 1, false, SITE);
}
void __tsan_write1(void* p) {
    watch_access(p, 1, true, SITE);
}
}
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
extern "C" {
void __tsan_read_range(void* p, size_t bytes) {
    watch_access(p, bytes, false, SITE);
}
void __tsan_write_range(void* p, size_t bytes) {
    watch_access(p, bytes, true, SITE);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}

// What -fsanitize=alignment calls: the compiler may split a vector access into its members, whose addresses
// say nothing.
extern "C" {
struct TypeMismatch {
    const char* file;
    uint32_t line, column;
    const void* type;
    unsigned char log_alignment, kind;
};
void __ubsan_handle_type_mismatch_v1(const TypeMismatch* m, uintptr_t) {
    tinygrad_nm::emulation::fail(
        "accesses memory at an address that is not a multiple of " + std::to_string(1 << m->log_alignment),
        SITE);
}
}
