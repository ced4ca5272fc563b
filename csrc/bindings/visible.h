// What a kernel may see of memory while it runs, for devices that watch it: the arrays of this call and nothing else.
#pragma once
#include <cstddef>

#ifdef TINYGRAD_NM_EMULATED
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulation/watch.h"
#endif

namespace tinygrad_nm {

enum class Use { read, written, updated };  // updated: read as well

#ifdef TINYGRAD_NM_EMULATED
constexpr bool watched = true;
class Visible {
  public:
    Visible() : device_(mutex()) {}  // one device: a call at a time
    ~Visible() {
        for (const Memory& m : memories_) emulation::forget_memory(m.begin);
    }
    Visible(const Visible&) = delete;
    Visible& operator=(const Visible&) = delete;

    // Operands may share bytes (the same array twice): what they have in common is one memory.
    void add(const char* argument, const char* begin, const char* end, size_t element, Use use) {
        if (begin == end) return;
        for (size_t i = 0; i < memories_.size();) {
            const Memory& m = memories_[i];
            if (m.end <= begin || end <= m.begin) {
                ++i;
                continue;
            }
            begin = std::min(begin, m.begin), end = std::max(end, m.end);
            memories_.erase(memories_.begin() + long(i));
        }
        memories_.push_back({argument, begin, end, element, use});
    }
    void watch() const {
        for (const Memory& m : memories_)
            emulation::watch_memory(m.begin, size_t(m.end - m.begin), m.element, m.use != Use::written, m.argument);
    }
    // Every element of a result must have been written.
    void check_results(const char* operation) const {
        for (const Memory& m : memories_) {
            if (m.use != Use::written) continue;
            const long long left = emulation::first_unwritten(m.begin);
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
    static std::mutex& mutex() {
        static std::mutex m;
        return m;
    }
    std::lock_guard<std::mutex> device_;
    std::vector<Memory> memories_;
};
#else
constexpr bool watched = false;
class Visible {
  public:
    void check_results(const char*) const {}
};
#endif

}  // namespace tinygrad_nm
