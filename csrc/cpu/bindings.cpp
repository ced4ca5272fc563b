// The list of kernels, one line each: the same names and arguments in every extension module.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "build_options.h"
#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "shared/dispatch.h"

namespace py = pybind11;
using namespace tinygrad_nm;

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Kernels of tinygrad_nm for the CPU. They write into `out` and never allocate a result.";
    current_isa();  // an unusable TINYGRAD_NM_ISA fails the import, not the first kernel

    bind_gemm(m);
    bind_conv2d(m);
    bind_conv2d_pool2d(m);
    bind_pool2d(m);
    bind_activation(m);
    bind_bias(m);
    bind_normalisation(m);
    bind_loss(m);
    bind_memory(m);
    bind_dropout(m);
    bind_sgd(m);
    bind_peak(m);

    m.def(
        "isa", [] { return std::string(current_isa().name); }, "Name of the instruction set in use.");
    m.def(
        "isas",
        [] {
            std::vector<std::tuple<std::string, bool, std::string>> list;
            for (const Isa& isa : isas()) list.emplace_back(isa.kernels->name, isa.available, isa.why);
            return list;
        },
        "(name, available, why) of every instruction set that was built, best first.");
    m.def("set_isa", &set_isa, py::arg("name"), "Use this instruction set from now on.");
    m.def("max_threads", &max_threads, "The most threads that a kernel uses.");
    m.def("set_max_threads", &set_max_threads, py::arg("n"), "Set the most threads that a kernel uses.");
    m.def("threads_used", &threads_used, "Threads that took part in this thread's last kernel.");
    m.def("arena_bytes", &arena_bytes, "Bytes of scratch memory held by all threads.");
    m.def("build_options", &build_options, "How this module was built.");
}
