// What a device does around a kernel: nothing on the CPU; the emulated device shows the kernel the arrays of
// this call and no other memory; CUDA makes their device the current one, and orders their streams.
#pragma once
#include <cstddef>

#include "bindings/raw_array.h"

#if defined(TINYGRAD_NM_EMULATED)
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulation/watch.h"
#elif defined(TINYGRAD_NM_CUDA)
#include "cuda/device_call.h"
#endif

namespace tinygrad_nm {

enum class Use { read, written, updated };  // updated: read as well

#if defined(TINYGRAD_NM_EMULATED)
class KernelScope {
  public:
    static constexpr bool wants_arrays = true;
    explicit KernelScope(const char* operation)
        : operation_(operation), device_(mutex()) {}  // a call at a time
    ~KernelScope() {
        for (const Memory& m : memories_) emulation::forget_memory(m.begin);
    }
    KernelScope(const KernelScope&) = delete;
    KernelScope& operator=(const KernelScope&) = delete;

    // Operands may share bytes (the same array twice): what they have in common is one memory.
    void add(const char* argument, const RawArray& array, Use use) {
        auto [begin, end] = extent(array);
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
        memories_.push_back({argument, begin, end, size_t(array.element_size()), use});
    }
    void begin() const {
        for (const Memory& m : memories_)
            emulation::watch_memory(m.begin, size_t(m.end - m.begin), m.element, m.use != Use::written,
                                    m.argument);
    }
    // Every element of a result must have been written.
    void end() const {
        for (const Memory& m : memories_) {
            if (m.use != Use::written) continue;
            const long long left = emulation::first_unwritten(m.begin);
            if (left >= 0)
                throw std::runtime_error(std::string(operation_) + ": element " + std::to_string(left) +
                                         " of " + m.argument + " is left unwritten");
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
    const char* operation_;
    std::lock_guard<std::mutex> device_;
    std::vector<Memory> memories_;
};
#elif defined(TINYGRAD_NM_CUDA)
class KernelScope : public DeviceCall {
  public:
    static constexpr bool wants_arrays = true;
    using DeviceCall::DeviceCall;
    void add(const char* argument, const RawArray& array, Use) {
        if (!extent(array).empty()) DeviceCall::add(argument, array.data(), array.stream());
    }
};
#else
struct KernelScope {
    static constexpr bool wants_arrays = false;
    explicit KernelScope(const char*) {}
    void add(const char*, const RawArray&, Use) {}
    void begin() {}
    void end() {}
};
#endif

}  // namespace tinygrad_nm
