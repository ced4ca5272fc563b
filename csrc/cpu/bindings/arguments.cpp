#include "cpu/bindings/arguments.h"

#include <cmath>

namespace tinygrad_nm {
namespace {

using Api = py::detail::npy_api;

bool aligned(const py::array& a) {
    return a.flags() & Api::NPY_ARRAY_ALIGNED_;
}
bool contiguous(const py::array& a) {
    return a.flags() & py::array::c_style;
}
bool native(const py::array& a) {
    return a.dtype().byteorder() == '=' || a.dtype().byteorder() == '|';
}

// Strides that step whole elements, as the kernels count them.
bool whole_strides(const py::array& a) {
    for (py::ssize_t i = 0; i < a.ndim(); ++i)
        if (a.strides(i) % a.itemsize() != 0) return false;
    return true;
}

// The bytes [first, last) that the elements of an array may occupy.
struct Extent {
    const char *first, *last;
};
Extent extent(const py::array& a) {
    const char* data = static_cast<const char*>(a.data());
    Extent e{data, data + a.itemsize()};
    for (py::ssize_t i = 0; i < a.ndim(); ++i) {
        const py::ssize_t reach = (a.shape(i) - 1) * a.strides(i);
        (reach < 0 ? e.first : e.last) += reach;
    }
    return e;
}

bool share_memory(const py::array& a, const py::array& b) {
    if (a.size() == 0 || b.size() == 0) return false;
    const Extent x = extent(a), y = extent(b);
    if (x.last <= y.first || y.last <= x.first) return false;
    if (contiguous(a) && contiguous(b)) return true;
    // Interleaved views need not share an element: NumPy decides this exactly.
    return py::module_::import("numpy").attr("shares_memory")(a, b).cast<bool>();
}

}  // namespace

std::string shape_text(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

void Operation::value_error(const std::string& text) const {
    throw py::value_error(name_ + ": " + text);
}
void Operation::type_error(const std::string& text) const {
    throw py::type_error(name_ + ": " + text);
}

void Operation::expect_shape(const char* argument, const Shape& shape, const Shape& expected,
                             const std::string& why) const {
    if (shape == expected) return;
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                shape_text(expected) + (why.empty() ? "" : ", " + why));
}

void Operation::expect_ndim(const char* argument, const Shape& shape, int ndim, const char* names) const {
    if (int(shape.size()) == ndim) return;
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                std::to_string(ndim) + " dimensions " + names);
}

Activation Operation::activation(const std::string& name, double parameter) const {
    std::string known;
    for (const ActivationName& a : activation_names) {
        if (name == a.name) {
            // within float32, as its reciprocal is, so that no formula makes NaN of it
            if (a.has_parameter && !(parameter >= 1e-30 && parameter <= 1e30))
                value_error("the parameter of " + name +
                            " must be positive and finite, from 1e-30 to 1e30, not " +
                            py::cast<std::string>(py::str(py::float_(parameter))));
            return a.kind;
        }
        known += std::string(known.empty() ? "" : ", ") + a.name;
    }
    value_error("unknown activation '" + name + "', use one of " + known);
}

bool Operation::out_is_double(py::handle out) const {
    if (!py::isinstance<py::array>(out))
        type_error("out must be a numpy.ndarray, not " + std::string(Py_TYPE(out.ptr())->tp_name));
    const py::dtype dtype = py::reinterpret_borrow<py::array>(out).dtype();
    if (dtype.kind() == 'f' && dtype.itemsize() == 8) return true;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return false;
    type_error("out has dtype " + std::string(py::str(dtype)) + ", use float32 or float64");
}

py::array Operation::checked(const char* argument, py::handle value, const py::dtype& dtype,
                             bool output) const {
    const std::string who = argument;
    if (!py::isinstance<py::array>(value))
        type_error(who + " must be a numpy.ndarray, not " + Py_TYPE(value.ptr())->tp_name);
    py::array array = py::reinterpret_borrow<py::array>(value);
    if (array.dtype().kind() != dtype.kind() || array.itemsize() != dtype.itemsize())
        type_error(who + " has dtype " + std::string(py::str(array.dtype())) + ", but must have " +
                   std::string(py::str(dtype)) + ", convert it with .astype");
    if (!output) return array;
    const auto refuse = [&](const char* what, const char* mend) {
        value_error(who + " is not " + what + ", " + mend);
    };
    if (!native(array)) refuse("in the processor's byte order", "allocate it with numpy.empty");
    if (!array.writeable()) refuse("writeable", "pass a copy of it");
    if (!contiguous(array)) refuse("C-contiguous", "allocate it with numpy.empty");
    if (!aligned(array)) refuse("aligned to its element size", "allocate it with numpy.empty");
    return array;
}

py::array Operation::usable(const py::array& array, bool need_contiguous) {
    const bool layout = need_contiguous ? contiguous(array) : whole_strides(array);
    if (layout && aligned(array) && native(array)) return array;
    const py::object dtype = array.dtype().attr("newbyteorder")("=");
    return py::module_::import("numpy").attr("array")(array, py::arg("dtype") = dtype, py::arg("order") = "C",
                                                      py::arg("copy") = true);
}

void Operation::check_overlap() const {
    for (size_t o = 0; o < outputs_.size(); ++o) {
        const auto refuse = [&](const Named& other) {
            if (share_memory(outputs_[o].array, other.array))
                value_error(std::string(outputs_[o].argument) + " overlaps " + other.argument +
                            " in memory, allocate a new array for it");
        };
        for (size_t p = o + 1; p < outputs_.size(); ++p) refuse(outputs_[p]);
        for (const Named& in : inputs_) refuse(in);
    }
}

}  // namespace tinygrad_nm
