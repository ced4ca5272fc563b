// What each file of this folder adds to the module.
#pragma once
#include <pybind11/pybind11.h>

namespace tinygrad_nm {

void bind_gemm(pybind11::module_& m);
void bind_conv2d(pybind11::module_& m);
void bind_conv2d_pool2d(pybind11::module_& m);
void bind_pool2d(pybind11::module_& m);
void bind_activation(pybind11::module_& m);
void bind_bias(pybind11::module_& m);
void bind_normalisation(pybind11::module_& m);
void bind_loss(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_dropout(pybind11::module_& m);
void bind_sgd(pybind11::module_& m);
void bind_peak(pybind11::module_& m);

}  // namespace tinygrad_nm
