// The arrays of one call, the only memory of the device that its kernels see.
#pragma once
#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

namespace tinygrad_nm::emulation {

// Arrays are added first, results last; begin() takes the device, of which there is one, so that a call waits
// for another thread's; end() throws for what kernels do not see themselves.
class Operands {
  public:
    explicit Operands(const char* operation) : operation_(operation) {}
    ~Operands() {
        if (device_.owns_lock())
            for (const Region& r : regions_) forget_memory(r.begin);
    }
    Operands(const Operands&) = delete;
    Operands& operator=(const Operands&) = delete;

    // Operands may share bytes, and are one region then. A result shares none with an operand, but may lie
    // between the rows of one, which is two regions then.
    void add(Region added) {
        if (added.bytes == 0) return;
        std::vector<Region> apart;
        for (const Region& r : regions_) {
            if (r.end() <= added.begin || added.end() <= r.begin) {
                apart.push_back(r);
            } else if (!added.writable) {
                const char *const begin = std::min(r.begin, added.begin), *const end =
                                                                              std::max(r.end(), added.end());
                added.begin = begin, added.bytes = size_t(end - begin);
                added.element = std::min(added.element, r.element);
            } else {
                if (r.begin < added.begin) apart.push_back(part(r, r.begin, added.begin));
                if (added.end() < r.end()) apart.push_back(part(r, added.end(), r.end()));
            }
        }
        apart.push_back(added);
        regions_ = std::move(apart);
    }
    void begin() {
        device_ = lock_device();
        for (const Region& r : regions_) watch_memory(r);
    }
    // Every element of a result must have been written.
    void end() const {
        if (const std::string host = host_access(); !host.empty())
            throw std::runtime_error(std::string(operation_) + ": " + host);
        for (const Region& r : regions_) {
            const long long left = r.written ? -1 : first_unwritten(r.begin);
            if (left >= 0)
                throw std::runtime_error(std::string(operation_) + ": element " + std::to_string(left) +
                                         " of " + r.name + " is left unwritten");
        }
    }

  private:
    static Region part(Region r, const char* begin, const char* end) {
        r.begin = begin, r.bytes = size_t(end - begin);
        return r;
    }
    const char* operation_;
    std::vector<Region> regions_;
    std::unique_lock<std::mutex> device_;
};

}  // namespace tinygrad_nm::emulation
