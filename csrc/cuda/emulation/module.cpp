// The modules _cuda_emulated and, built with TINYGRAD_NM_STRICT, _cuda_emulated_strict: the CUDA kernels on
// this processor, with the names and arguments of every other module of kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

namespace py = pybind11;
using namespace tinygrad_nm;

namespace {

void set_order(const std::string& name, unsigned seed) {
    using emulation::Order;
    constexpr std::pair<const char*, Order> orders[] = {
        {"forward", Order::forward}, {"reverse", Order::reverse}, {"shuffled", Order::shuffled}};
    const auto device = emulation::lock_device();
    for (const auto& [known, order] : orders)
        if (name == known) return emulation::set_order(order, seed);
    throw std::invalid_argument("set_order: unknown order '" + name + "', use forward, reverse or shuffled");
}

}  // namespace

PYBIND11_MODULE(TINYGRAD_NM_MODULE, m) {
    m.doc() = "Kernels of tinygrad_nm for CUDA, run by an emulated device. They write into `out`.";
    bind_kernels(m);

    m.attr("strict") = emulation::strict;
    m.def("set_order", &set_order, py::arg("order"), py::arg("seed") = 0,
          "Run blocks, and threads between barriers, 'forward', in 'reverse', or 'shuffled' by the seed.");
    m.def(
        "launches",
        [] {
            const auto device = emulation::lock_device();
            return std::map<std::string, long>(emulation::launches().begin(), emulation::launches().end());
        },
        "How often each __global__ function was launched, by its name in the source.");
}
