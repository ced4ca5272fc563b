// The list of kernels, one line each.
#include "bindings/bindings.h"

#include <pybind11/stl.h>

#include "shared/dispatch.h"

namespace py = pybind11;

namespace tinygrad_nm {

void bind_kernels(py::module_& m) {
    current_isa();

    bind_gemm(m);
    bind_conv2d(m);
    bind_conv2d_pool2d(m);
    bind_pool2d(m);
    bind_activation(m);
    bind_bias(m);
    bind_normalisation(m);
    bind_loss(m);
    bind_dropout(m);
    bind_sgd(m);
    bind_peak(m);

    m.def(
        "isa", [] { return std::string(current_isa().name); },
        "Name of the instruction set, or of the GPU's architecture, in use.");
    m.def(
        "isas",
        [] {
            std::vector<std::tuple<std::string, bool, std::string>> list;
            for (const Isa& isa : isas()) list.emplace_back(isa.kernels->name, isa.available, isa.why);
            return list;
        },
        "(name, available, why) of every one that was built, best first.");
    m.def("set_isa", &set_isa, py::arg("name"), "Use this one from now on.");
}

}  // namespace tinygrad_nm
