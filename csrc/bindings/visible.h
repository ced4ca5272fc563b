// What a kernel may see of memory while it runs, for a device that watches it: the arrays of this call and nothing else.
#pragma once
#include <cstddef>

#ifdef TINYGRAD_NM_EMULATED
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"
#endif

namespace tinygrad_nm {

enum class Use { read, written, updated };  // updated: read as well

#ifdef TINYGRAD_NM_EMULATED
// Arrays are added first; then run() takes the device, of which there is one, so that a call waits for another thread's.
class Visible {
  public:
    static constexpr bool is_wanted = emulation::strict;

    // Operands may share bytes, and are one memory then. A result shares none with an operand, but may lie between the rows
    // of one, which is two memories then. Results are added last.
    void add(const char* argument, const char* begin, const char* end, size_t element, Use use) {
        if (begin == end) return;
        Memory added{argument, begin, end, element, use};
        std::vector<Memory> apart;
        for (const Memory& m : memories_) {
            if (m.end <= begin || end <= m.begin) {
                apart.push_back(m);
            } else if (use == Use::read) {
                added.begin = std::min(added.begin, m.begin), added.end = std::max(added.end, m.end);
                added.element = std::min(added.element, m.element);
            } else {
                if (m.begin < begin) apart.push_back({m.argument, m.begin, begin, m.element, m.use});
                if (end < m.end) apart.push_back({m.argument, end, m.end, m.element, m.use});
            }
        }
        apart.push_back(added);
        memories_ = std::move(apart);
    }

    // Runs the kernels of an operation. Every element of a result must have been written then.
    template <class F>
    void run(const char* operation, F&& kernels) const {
        const auto device = emulation::lock_device();
        const Watch watch(memories_);
        kernels();
        if (const std::string host = emulation::host_access(); !host.empty())
            throw std::runtime_error(std::string(operation) + ": " + host);
        for (const Memory& m : memories_) {
            const long long left = m.use == Use::written ? emulation::first_unwritten(m.begin) : -1;
            if (left >= 0)
                throw std::runtime_error(std::string(operation) + ": element " + std::to_string(left) + " of " +
                                         m.argument + " is left unwritten");
        }
    }

  private:
    struct Memory {
        const char* argument;
        const char *begin, *end;
        size_t element;
        Use use;
    };
    struct Watch {
        explicit Watch(const std::vector<Memory>& memories) : memories(memories) {
            for (const Memory& m : memories)
                emulation::watch_memory({.name = m.argument,
                                         .begin = m.begin,
                                         .bytes = size_t(m.end - m.begin),
                                         .element = m.element,
                                         .written = m.use != Use::written,
                                         .writable = m.use != Use::read});
        }
        ~Watch() {
            for (const Memory& m : memories) emulation::forget_memory(m.begin);
        }
        const std::vector<Memory>& memories;
    };
    std::vector<Memory> memories_;
};
#else
// Nothing is watched.
struct Visible {
    static constexpr bool is_wanted = false;
    template <class F>
    void run(const char*, F&& kernels) const {
        kernels();
    }
};
#endif

}  // namespace tinygrad_nm
