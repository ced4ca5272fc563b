// What each file of this folder adds to the module.
#pragma once
#include <pybind11/pybind11.h>

namespace tinygrad_nm {

void bind_gemm(pybind11::module_& m);

}  // namespace tinygrad_nm
