// Runs a test's body once with every instruction set of this machine (main.cpp says which ones are not run).
#pragma once
#include <string>

#include "shared/dispatch.h"

namespace kernel_tests {

template <class Body>
void for_each_isa(Body&& body) {
    const std::string before = tinygrad_nm::current_isa().name;
    for (const tinygrad_nm::Isa& isa : tinygrad_nm::isas()) {
        if (!isa.available) continue;
        tinygrad_nm::set_isa(isa.kernels->name);
        body(std::string(isa.kernels->name));
    }
    tinygrad_nm::set_isa(before);
}

}  // namespace kernel_tests
