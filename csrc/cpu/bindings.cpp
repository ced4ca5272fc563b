// The module _cpu.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "build_options.h"
#include "cpu/arena.h"
#include "cpu/parallel.h"

namespace py = pybind11;
using namespace tinygrad_nm;

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "Kernels of tinygrad_nm for the CPU. They write into `out` and never allocate a result.";
    bind_kernels(m);
    bind_memory(m);

    m.def("max_threads", &max_threads, "The most threads that a kernel uses.");
    m.def("set_max_threads", &set_max_threads, py::arg("n"), "Set the most threads that a kernel uses.");
    m.def("threads_used", &threads_used, "Threads that took part in this thread's last kernel.");
    m.def("arena_bytes", &arena_bytes, "Bytes of scratch memory held by all threads.");
    m.def("build_options", &build_options, "How this module was built.");
}
