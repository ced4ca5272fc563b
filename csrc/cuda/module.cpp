// The module _cuda: the kernels on GPUs. Importing it touches no CUDA, so that it works without a driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "cuda/device.h"

namespace py = pybind11;
using namespace tinygrad_nm;

PYBIND11_MODULE(_cuda, m) {
    m.doc() =
        "Kernels of tinygrad_nm for GPUs, on arrays with __cuda_array_interface__. They write into `out` and "
        "run in the "
        "order of the current stream.";
    bind_kernels(m);

    m.def("set_stream", &set_stream, py::arg("stream"),
          "This thread's kernels run on this stream from now on: a cudaStream_t as a number, of the device "
          "of their "
          "arrays; 0 is the legacy default stream.");
    m.def("get_stream", &get_stream, "This thread's stream; 1 is the legacy default stream.");
    m.def("synchronize", &synchronize, py::call_guard<py::gil_scoped_release>(),
          "Wait until the current device has finished all that it was given.");
    m.def("device_count", &device_count,
          "How many GPUs there are; RuntimeError with the reason if none can be used.");
    m.def("device_name", &device_name, py::arg("device"), "The name of a GPU.");
    m.def("compute_capability", &compute_capability, py::arg("device"), "(8, 0) for sm_80.");
    m.def("driver_version", &driver_version, "The newest CUDA that the driver knows: 13000 is 13.0.");
    m.def("runtime_version", &runtime_version, "The CUDA that this module was built with: 13000 is 13.0.");
}
