// Arrays on blocks of the pool. A block goes back when the last view of its array is gone.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/shape.h"
#include "cpu/memory_pool.h"
#include "shared/checked.h"

namespace py = pybind11;

namespace tinygrad_nm {
namespace {

constexpr int64_t least_pooled = 65536;  // below it the system's allocator is as fast and wastes less

// The owner of a block: the base of the array and, through it, of each view.
py::capsule block_owner(int64_t bytes) {
    void* const block = pool_take(bytes);
    PyObject* const owner = PyCapsule_New(block, nullptr, [](PyObject* self) {
        pool_return(PyCapsule_GetPointer(self, nullptr),
                    reinterpret_cast<intptr_t>(PyCapsule_GetContext(self)));
    });
    if (!owner || PyCapsule_SetContext(owner, reinterpret_cast<void*>(intptr_t(bytes))) != 0) {
        pool_return(block, bytes);
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::capsule>(owner);
}

py::array empty(const py::tuple& shape, const py::object& type) {
    const py::dtype dtype = py::dtype::from_args(type);
    std::vector<py::ssize_t> sizes;
    int64_t bytes = dtype.itemsize();
    for (const py::handle& size : shape) {
        sizes.push_back(size.cast<py::ssize_t>());
        if (sizes.back() < 0) throw py::value_error("empty: the sizes must not be negative");
        bytes = checked_product("empty", {bytes, sizes.back()});
    }
    if (bytes < least_pooled || dtype.kind() == 'O') return py::array(dtype, sizes);
    const py::capsule owner = block_owner(bytes);
    return py::array(dtype, sizes, PyCapsule_GetPointer(owner.ptr(), nullptr), owner);
}

py::dict stats() {
    const PoolStats s = pool_stats();
    return py::dict(py::arg("used") = s.used, py::arg("idle") = s.idle, py::arg("peak") = s.peak,
                    py::arg("limit") = s.limit, py::arg("reused") = s.reused,
                    py::arg("allocated") = s.allocated);
}

}  // namespace

void bind_memory(py::module_& m) {
    m.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
          "A new array, its values undefined: on a 64-byte aligned block of the pool from 64 KiB on.");
    m.def("empty_cache", &pool_empty, "Give the pool's idle blocks back to the system.");
    m.def("set_memory_limit", &pool_set_limit, py::arg("bytes"), "Set the most bytes that may lie idle.");
    m.def("memory_stats", &stats, "The pool's bytes and counts, see csrc/cpu/memory_pool.h.");
    m.def("reset_peak_memory", &pool_reset_peak, "Start the peak from what is in use now.");
}

}  // namespace tinygrad_nm
