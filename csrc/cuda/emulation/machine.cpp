#include "cuda/emulation/machine.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda/emulation/fibre.h"
#include "cuda/emulation/watch.h"

namespace tinygrad_nm::emulation {

thread_local Place place;

namespace {

Order order = Order::forward;
unsigned order_seed = 0;
std::map<std::string, long> launch_counts;

enum class Waits { no, barrier, warp, done };

struct AsyncCopy {
    void* shared;
    const void *global, *site;
    size_t bytes;
    unsigned group;
};

struct Thread {
    Fibre fibre;
    Index index;
    Waits waits = Waits::no;
    const void* site = nullptr;  // where it waits
    int line = 0;                // of the barrier
    uint32_t mask = 0;           // of the warp, which it waits for
    uint64_t value = 0;          // that it brings
    unsigned group = 0;          // of copies that are being collected
    std::vector<AsyncCopy> copies;
};

struct SharedVariable {
    const void* variable;
    size_t begin;
};

// One block at a time.
struct Block {
    const LaunchShape* shape = nullptr;
    void (*body)(void*) = nullptr;
    void* context = nullptr;
    unsigned size = 0;
    std::vector<std::unique_ptr<Thread>> threads;  // kept from block to block: their stacks
    std::vector<WarpValues> warps;
    std::vector<SharedVariable> variables;
    alignas(128) unsigned char shared[164 << 10];
    size_t shared_used = 0;
    bool has_dynamic = false;
    unsigned running = 0, phase = 0;
    std::string failure;
};

thread_local std::unique_ptr<Block> current;

Thread& me() {
    return *current->threads[current->running];
}

std::string text(const Index& i) {
    std::string t = "(";
    t.append(std::to_string(i.x))
        .append(", ")
        .append(std::to_string(i.y))
        .append(", ")
        .append(std::to_string(i.z));
    return t.append(")");
}

void wait_for(Waits what, const void* site) {
    Thread& t = me();
    t.waits = what, t.site = site;
    t.fibre.leave();
}

void run_thread(void*) {
    current->body(current->context);
    Thread& t = me();
    if (!t.copies.empty()) fail("ends with asynchronous copies that it never waited for", nullptr);
    t.waits = Waits::done;
    t.fibre.leave();
}

std::string who(const Thread& t) {
    return "thread " + text(t.index);
}

// Lets those go on that wait for a barrier which all have reached, or for lanes that have all arrived. False:
// none can.
bool release(Block& b) {
    unsigned at_barrier = 0, done = 0;
    for (unsigned i = 0; i < b.size; ++i) {
        at_barrier += b.threads[i]->waits == Waits::barrier;
        done += b.threads[i]->waits == Waits::done;
    }
    if (at_barrier == b.size) {
        const int line = b.threads[0]->line;
        for (unsigned i = 0; i < b.size; ++i)
            if (b.threads[i]->line != line) {
                b.running = i;
                b.failure =
                    describe("waits at another barrier than " + who(*b.threads[0]), b.threads[i]->site);
                return false;
            }
        for (unsigned i = 0; i < b.size; ++i) b.threads[i]->waits = Waits::no;
        watch_phase(++b.phase);
        return true;
    }
    bool some = false;
    for (unsigned first = 0; first < b.size; first += warp_size) {
        uint32_t waiting = 0;
        const unsigned lanes = std::min(warp_size, b.size - first);
        for (unsigned l = 0; l < lanes; ++l)
            if (b.threads[first + l]->waits == Waits::warp) waiting |= 1u << l;
        for (unsigned l = 0; l < lanes; ++l) {
            Thread& t = *b.threads[first + l];
            if (t.waits != Waits::warp || (t.mask & ~waiting)) continue;
            WarpValues& w = b.warps[first / warp_size];
            w.present = t.mask;
            bool agree = true;
            for (unsigned k = 0; k < lanes; ++k)
                if (t.mask >> k & 1) {
                    agree = agree && b.threads[first + k]->mask == t.mask;
                    w.lane[k] = b.threads[first + k]->value;
                }
            if (!agree) continue;
            for (unsigned k = 0; k < lanes; ++k)
                if (t.mask >> k & 1) b.threads[first + k]->waits = Waits::no;
            some = true;
            break;  // one exchange of a warp at a time: its values are read before the next
        }
    }
    if (some || done == b.size) return some;
    for (unsigned i = 0; i < b.size; ++i) {
        const Thread& t = *b.threads[i];
        if (t.waits == Waits::done || t.waits == Waits::no) continue;
        b.running = i;
        b.failure = describe(t.waits == Waits::barrier
                                 ? "waits at a barrier that " + std::to_string(b.size - at_barrier) + " of " +
                                       std::to_string(b.size) + " threads do not reach"
                                 : std::string("waits for lanes of its warp that do not arrive"),
                             t.site);
        break;
    }
    return false;
}

void run_block(Block& b, const std::vector<unsigned>& turns) {
    b.shared_used = 0, b.phase = 0, b.has_dynamic = false;
    b.variables.clear();
    watch_block(b.shared, b.shape->dynamic_shared);
    for (unsigned i = 0; i < b.size; ++i) {
        Thread& t = *b.threads[i];
        t.waits = Waits::no, t.group = 0;
        t.copies.clear();
        t.fibre.start(run_thread, nullptr);
    }
    do {
        for (const unsigned i : turns) {
            Thread& t = *b.threads[i];
            if (t.waits != Waits::no) continue;
            b.running = i;
            place.thread = t.index;
            watch_thread(i, &t.fibre);
            t.fibre.resume();
            watch_thread(i, nullptr);
            if (!b.failure.empty()) return;
        }
    } while (release(b));
}

void check_shape(const LaunchShape& s) {
    const auto refuse = [&](const std::string& what) {
        throw std::invalid_argument(std::string(s.kernel) + ": launch of grid " + text(s.grid) + ", block " +
                                    text(s.block) + ", " + std::to_string(s.dynamic_shared) +
                                    " bytes of dynamic shared memory: " + what);
    };
    const Architecture* a = nullptr;
    for (const Architecture& known : architectures)
        if (known.capability == s.capability) a = &known;
    if (!a) refuse("compute capability " + std::to_string(s.capability) + " is not known");
    const uint64_t threads = uint64_t(s.block.x) * s.block.y * s.block.z;
    if (s.grid.x == 0 || s.grid.y == 0 || s.grid.z == 0) refuse("a grid must have a block");
    if (threads == 0) refuse("a block must have a thread");
    if (threads > a->most_threads || s.block.z > 64)
        refuse("a block has at most " + std::to_string(a->most_threads) + " threads, and 64 along z");
    if (s.grid.x > 0x7fffffffu || s.grid.y > 65535 || s.grid.z > 65535)
        refuse("a grid has at most 2147483647 x 65535 x 65535 blocks");
    if (s.dynamic_shared > a->shared_memory_opt_in)
        refuse("a block has at most " + std::to_string(a->shared_memory_opt_in) + " bytes of shared memory");
}

Index at(uint64_t i, const Index& size) {
    return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

template <class Number>
std::vector<Number> turns_of(Number count, unsigned seed) {
    std::vector<Number> turns(count);
    for (Number i = 0; i < count; ++i) turns[i] = order == Order::reverse ? count - 1 - i : i;
    if (order == Order::shuffled) std::shuffle(turns.begin(), turns.end(), std::mt19937(seed));
    return turns;
}

}  // namespace

void set_order(Order new_order, unsigned seed) {
    order = new_order, order_seed = seed;
}

std::map<std::string, long> launches() {
    return launch_counts;
}

void run_grid(const LaunchShape& shape, void (*body)(void*), void* context, size_t context_bytes) {
    check_shape(shape);
    ++launch_counts[shape.kernel];
    if (!current) current = std::make_unique<Block>();
    Block& b = *current;
    b.shape = &shape, b.body = body, b.context = context;
    b.size = shape.block.x * shape.block.y * shape.block.z;
    b.warps.resize((b.size + warp_size - 1) / warp_size);
    b.failure.clear();
    while (b.threads.size() < b.size) b.threads.push_back(std::make_unique<Thread>());
    for (unsigned i = 0; i < b.size; ++i) b.threads[i]->index = at(i, shape.block);
    place.block_size = shape.block, place.grid_size = shape.grid;
    const uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
    watch_launch(context, context_bytes);
    const std::vector<unsigned> turns = turns_of(b.size, order_seed);
    for (const uint64_t i : turns_of(blocks, order_seed + 1)) {
        place.block = at(i, shape.grid);
        run_block(b, turns);
        if (!b.failure.empty())
            throw std::runtime_error(std::string(shape.kernel) + ", block " + text(place.block) + ", " +
                                     who(me()) + ": " + b.failure);
    }
}

void fail(const std::string& what, const void* site) {
    current->failure = describe(what, site);
    me().fibre.leave();
    __builtin_unreachable();
}

void barrier(const void* site, int line) {
    me().line = line;
    wait_for(Waits::barrier, site);
}

void* static_shared(const void* variable, size_t bytes, size_t alignment, size_t element, const char* name) {
    Block& b = *current;
    for (const SharedVariable& v : b.variables)
        if (v.variable == variable) return b.shared + v.begin;
    constexpr size_t gap = 64;  // between variables: what runs over one is not in the next
    const size_t begin = (b.shared_used + gap + alignment - 1) / alignment * alignment;
    if (begin + bytes > sizeof b.shared)
        fail(std::string(name) + " does not fit into shared memory", nullptr);
    b.variables.push_back({variable, begin});
    b.shared_used = begin + bytes;
    watch_shared(b.shared + begin, bytes, element, name);
    return b.shared + begin;
}

void* dynamic_shared(size_t element) {
    Block& b = *current;
    static const char variable = 0;
    return static_shared(&variable, b.shape->dynamic_shared, 128, element, "dynamic shared memory");
}

const WarpValues& exchange(uint32_t mask, uint64_t value, const void* site) {
    Thread& t = me();
    const unsigned lane = current->running % warp_size;
    if (!(mask >> lane & 1)) fail("is not in the mask of its own warp operation", site);
    t.mask = mask, t.value = value;
    wait_for(Waits::warp, site);
    return current->warps[current->running / warp_size];
}

void copy_async(void* shared, const void* global, size_t bytes, const void* site) {
    Thread& t = me();
    if (bytes != 4 && bytes != 8 && bytes != 16)
        fail("copies 4, 8 or 16 bytes asynchronously, no other number", site);
    watch_access(global, bytes, false, site);
    watch_pending(shared, bytes, true, site);
    t.copies.push_back({shared, global, site, bytes, t.group});
}
void commit_copies() {
    ++me().group;
}
void wait_copies(unsigned newest_left, const void*) {
    Thread& t = me();
    const auto due = [&](const AsyncCopy& c) { return c.group + newest_left < t.group; };
    for (const AsyncCopy& c : t.copies)
        if (due(c)) {
            watch_pending(c.shared, c.bytes, false, c.site);
            watch_access(c.shared, c.bytes, true, c.site);
            memcpy(c.shared, c.global, c.bytes);
        }
    std::erase_if(t.copies, due);
}

}  // namespace tinygrad_nm::emulation
