// A NumPy array as its C structure has it, without a reference count touched. See raw_array.h.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "bindings/dtype.h"
#include "bindings/errors.h"

namespace tinygrad_nm {

namespace py = pybind11;

#ifdef TINYGRAD_NM_EMULATED
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

class NumpyArray {
    using Api = py::detail::npy_api;

    PyObject* object_ = nullptr;

    auto* structure() const { return py::detail::array_proxy(object_); }
    const auto* dtype() const { return py::detail::array_descriptor_proxy(structure()->descr); }

  public:
    static constexpr const char* library = "numpy";
    static constexpr bool copied = !emulated;  // on the emulated device as on the one that it stands for
    static constexpr bool slow_to_read = false;

    NumpyArray() = default;
    // TypeError for anything that is no such array.
    NumpyArray(const char* operation, const char* argument, py::handle value) : object_(value.ptr()) {
        if (!py::isinstance<py::array>(value)) wrong_type(operation, argument, "a numpy.ndarray", value);
    }

    PyObject* object() const { return object_; }
    char* data() const { return structure()->data; }
    int ndim() const { return structure()->nd; }
    int64_t size(int i) const { return structure()->dimensions[i]; }
    int64_t step(int i) const { return structure()->strides[i]; }

    // By NumPy's number of the dtype; by kind and size for its other names (long, long long).
    template <class T>
    bool has() const {
        return dtype()->type_num == py::dtype::num_of<T>() ||
               (dtype()->kind == DtypeOf<T>::kind && size_t(element_size()) == sizeof(T));
    }
    int64_t element_size() const {
        return py::detail::array_descriptor2_proxy(structure()->descr)->elsize;  // as NumPy 2 has it
    }
    std::string dtype_text() const { return std::string(py::str(py::handle(structure()->descr))); }

    bool contiguous() const { return structure()->flags & Api::NPY_ARRAY_C_CONTIGUOUS_; }
    bool aligned() const { return structure()->flags & Api::NPY_ARRAY_ALIGNED_; }
    bool writeable() const { return structure()->flags & Api::NPY_ARRAY_WRITEABLE_; }
    bool native() const { return dtype()->byteorder == '=' || dtype()->byteorder == '|'; }

    // Of two whose extents meet: interleaved views need not share an element, and NumPy decides this exactly.
    static bool share_memory(const NumpyArray& a, const NumpyArray& b) {
        if (a.contiguous() && b.contiguous()) return true;
        return py::module_::import("numpy")
            .attr("shares_memory")(py::handle(a.object_), py::handle(b.object_))
            .cast<bool>();
    }
    // The same values, contiguous, aligned and native.
    py::object native_copy() const {
        const py::handle array(object_);
        const py::object native = array.attr("dtype").attr("newbyteorder")("=");
        return py::module_::import("numpy").attr("array")(array, py::arg("dtype") = native,
                                                          py::arg("order") = "C", py::arg("copy") = true);
    }
};

}  // namespace tinygrad_nm
