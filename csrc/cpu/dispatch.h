// Which instruction set's kernels run: the best the processor has, or the one that the environment variable
// TINYGRAD_NM_ISA names.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace tinygrad_nm {

struct Isa {
    const Kernels* kernels;
    bool available;
    std::string why;  // why it is or is not available
};

std::vector<Isa> isas();  // best first, then the ones that are only chosen by name

// The table in use. The first call chooses, and throws std::invalid_argument if TINYGRAD_NM_ISA names an
// unknown set or one that this processor lacks.
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
