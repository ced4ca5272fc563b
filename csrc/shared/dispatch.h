// Which table of kernels runs: of an instruction set on the CPU, of an architecture on the emulated device.
// The best that can run here, or the one that an environment variable names.
#pragma once
#include <string>
#include <vector>

#include "shared/kernels.h"

namespace tinygrad_nm {

struct Isa {
    const Kernels* kernels;
    bool available;
    std::string why;  // why it is or is not available
};

// Of each module its own: cpu/isas.cpp, cuda/isas.cpp, cuda/emulation/isas.cpp.
std::vector<Isa> isas();                // best first, then the ones that are only chosen by name
extern const char* const isa_variable;  // the name of the environment variable; null: none

// The table in use. The first call chooses, and throws std::invalid_argument if the environment variable
// names an unknown set or one that this processor lacks.
const Kernels& current_isa();
void set_isa(const std::string& name);  // throws std::invalid_argument like current_isa

template <class T>
const KernelTable<T>& kernels();
template <>
inline const KernelTable<float>& kernels<float>() {
    return current_isa().f32;
}
template <>
inline const KernelTable<double>& kernels<double>() {
    return current_isa().f64;
}

}  // namespace tinygrad_nm
