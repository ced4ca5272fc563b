#include "cpu/dispatch.h"

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
    if (const char* forced = std::getenv("TINYGRAD_NM_ISA"); forced && *forced)
        return find(forced, "TINYGRAD_NM_ISA");
    for (const Isa& isa : isas())
        if (isa.available) return *isa.kernels;
    return kernels_generic;
}

std::atomic<const Kernels*> current{nullptr};

}  // namespace

std::vector<Isa> isas() {
    std::vector<Isa> list;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const auto add = [&list](const Kernels& kernels, bool available) {
        list.push_back(
            {&kernels, available,
             available ? "the processor and the operating system support it" : "processor lacks it"});
    };
    add(kernels_avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"));
    add(kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
    list.push_back({&kernels_generic, true, "baseline of this processor family"});
    list.push_back({&kernels_wide, true, "baseline instructions in 64-byte vectors, for tests"});
    return list;
}

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
