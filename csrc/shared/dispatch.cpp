#include "shared/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace tinygrad_nm {
namespace {

const Kernels& find(const std::string& name, const std::string& who) {
    std::string known;
    for (const Isa& isa : isas()) {
        if (name == isa.kernels->name) {
            if (isa.available) return *isa.kernels;
            throw std::invalid_argument(who + ": instruction set '" + name +
                                        "' cannot be used here: " + isa.why);
        }
        known += std::string(known.empty() ? "" : ", ") + isa.kernels->name;
    }
    throw std::invalid_argument(who + ": unknown instruction set '" + name + "', use one of " + known);
}

const Kernels& choose() {
    const char* const forced = isa_variable ? std::getenv(isa_variable) : nullptr;
    if (forced && *forced) return find(forced, isa_variable);
    for (const Isa& isa : isas())
        if (isa.available) return *isa.kernels;
    throw std::logic_error("no table of kernels is available");
}

std::atomic<const Kernels*> current{nullptr};

}  // namespace

const Kernels& current_isa() {
    const Kernels* kernels = current.load(std::memory_order_acquire);
    if (!kernels) {
        kernels = &choose();
        current.store(kernels, std::memory_order_release);
    }
    return *kernels;
}

void set_isa(const std::string& name) {
    current.store(&find(name, "set_isa"), std::memory_order_release);
}

}  // namespace tinygrad_nm
