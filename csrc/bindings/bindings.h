// What each file of this folder adds to a module of kernels.
#pragma once
#include <pybind11/pybind11.h>

namespace tinygrad_nm {

// Every kernel, and the choice of their table: the same names and arguments in every module. Throws if the
// table that an environment variable asks for cannot be used: that fails the import, not the first kernel.
void bind_kernels(pybind11::module_& m);

void bind_gemm(pybind11::module_& m);
void bind_conv2d(pybind11::module_& m);
void bind_conv2d_pool2d(pybind11::module_& m);
void bind_pool2d(pybind11::module_& m);
void bind_activation(pybind11::module_& m);
void bind_bias(pybind11::module_& m);
void bind_normalisation(pybind11::module_& m);
void bind_loss(pybind11::module_& m);
void bind_dropout(pybind11::module_& m);
void bind_sgd(pybind11::module_& m);
void bind_peak(pybind11::module_& m);

void bind_memory(pybind11::module_& m);  // of the CPU alone

}  // namespace tinygrad_nm
