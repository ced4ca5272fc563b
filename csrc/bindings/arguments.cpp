#include "bindings/arguments.h"

#include <algorithm>

namespace tinygrad_nm {
namespace {

using Api = py::detail::npy_api;

bool aligned(RawArray a) {
    return a->flags & Api::NPY_ARRAY_ALIGNED_;
}
bool contiguous(RawArray a) {
    return a->flags & Api::NPY_ARRAY_C_CONTIGUOUS_;
}
bool native(RawArray a) {
    return a.dtype()->byteorder == '=' || a.dtype()->byteorder == '|';
}
py::ssize_t element_size(RawArray a) {
    return py::reinterpret_borrow<py::dtype>(a->descr).itemsize();
}
std::string dtype_text(RawArray a) {
    return std::string(py::str(py::handle(a->descr)));
}

// Strides that step whole elements, as the kernels count them.
bool whole_strides(RawArray a) {
    const py::ssize_t size = element_size(a);
    return std::all_of(a->strides, a->strides + a->nd, [&](py::ssize_t step) { return step % size == 0; });
}

// The bytes [first, last) that the elements of an array may occupy; none if it is empty.
struct Extent {
    const char *first, *last;
};
Extent extent(RawArray a) {
    Extent e{a->data, a->data + element_size(a)};
    for (int i = 0; i < a->nd; ++i) {
        if (a->dimensions[i] == 0) return {a->data, a->data};
        const py::ssize_t reach = (a->dimensions[i] - 1) * a->strides[i];
        (reach < 0 ? e.first : e.last) += reach;
    }
    return e;
}

bool share_memory(RawArray a, RawArray b) {
    const Extent x = extent(a), y = extent(b);
    if (x.last <= y.first || y.last <= x.first || x.first == x.last || y.first == y.last) return false;
    if (contiguous(a) && contiguous(b)) return true;
    // Interleaved views need not share an element: NumPy decides this exactly.
    return py::module_::import("numpy")
        .attr("shares_memory")(py::handle(a.object), py::handle(b.object))
        .cast<bool>();
}

}  // namespace

std::string shape_text(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text.append(i ? ", " : "").append(std::to_string(shape[i]));
    return text + (shape.size() == 1 ? ",)" : ")");
}

void Operation::value_error(const std::string& text) const {
    throw py::value_error(std::string(name_) + ": " + text);
}
void Operation::type_error(const std::string& text) const {
    throw py::type_error(std::string(name_) + ": " + text);
}

void Operation::wrong_shape(const char* argument, const Shape& shape, const Shape& expected,
                            const std::string& why) const {
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                shape_text(expected) + (why.empty() ? "" : ", " + why));
}

void Operation::expect_ndim(const char* argument, const Shape& shape, int ndim, const char* names) const {
    if (int(shape.size()) == ndim) return;
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                std::to_string(ndim) + " dimensions " + names);
}

Activation Operation::activation(std::string_view name, double parameter) const {
    for (const ActivationName& a : activation_names) {
        if (name != a.name) continue;
        // within float32, as its reciprocal is, so that no formula makes NaN of it
        if (a.has_parameter && !(parameter >= 1e-30 && parameter <= 1e30))
            value_error("the parameter of " + std::string(name) +
                        " must be positive and finite, from 1e-30 to 1e30, not " +
                        py::cast<std::string>(py::str(py::float_(parameter))));
        return a.kind;
    }
    std::string known;
    for (const ActivationName& a : activation_names) known += std::string(known.empty() ? "" : ", ") + a.name;
    value_error("unknown activation '" + std::string(name) + "', use one of " + known);
}

bool Operation::out_is_double(py::handle out) const {
    if (!py::isinstance<py::array>(out)) wrong_type("out", out);
    const RawArray array{out.ptr()};
    if (array.dtype()->type_num == DtypeOf<double>::number) return true;
    if (array.dtype()->type_num == DtypeOf<float>::number) return false;
    type_error("out has dtype " + dtype_text(array) + ", use float32 or float64");
}

void Operation::wrong_type(const char* argument, py::handle value) const {
    type_error(std::string(argument) + " must be a numpy.ndarray, not " + Py_TYPE(value.ptr())->tp_name);
}

void Operation::wrong_dtype(const char* argument, RawArray array, const char* expected) const {
    type_error(std::string(argument) + " has dtype " + dtype_text(array) + ", but must have " + expected +
               ", convert it with .astype");
}

bool Operation::same_dtype(RawArray array, char kind, size_t size) {
    return array.dtype()->kind == kind && size_t(element_size(array)) == size;
}

void Operation::check_writeable(const char* argument, RawArray array) const {
    const auto refuse = [&](const char* what, const char* mend) {
        value_error(std::string(argument) + " is not " + what + ", " + mend);
    };
    if (!native(array)) refuse("in the processor's byte order", "allocate it with numpy.empty");
    if (!(array->flags & Api::NPY_ARRAY_WRITEABLE_)) refuse("writeable", "pass a copy of it");
    if (!contiguous(array)) refuse("C-contiguous", "allocate it with numpy.empty");
    if (!aligned(array)) refuse("aligned to its element size", "allocate it with numpy.empty");
}

bool Operation::usable(RawArray array, bool need_contiguous) {
    return (need_contiguous ? contiguous(array) : whole_strides(array)) && aligned(array) && native(array);
}

py::object Operation::native_copy(py::handle array) {
    const py::object dtype = array.attr("dtype").attr("newbyteorder")("=");
    return py::module_::import("numpy").attr("array")(array, py::arg("dtype") = dtype, py::arg("order") = "C",
                                                      py::arg("copy") = true);
}

void Operation::check_overlap() const {
    for (size_t o = 0; o < output_count_; ++o) {
        const auto refuse = [&](const Named& other) {
            if (share_memory(outputs_[o].array, other.array))
                value_error(std::string(outputs_[o].argument) + " overlaps " + other.argument +
                            " in memory, allocate a new array for it");
        };
        for (size_t p = o + 1; p < output_count_; ++p) refuse(outputs_[p]);
        for (size_t i = 0; i < input_count_; ++i) refuse(inputs_[i]);
    }
}

#ifdef TINYGRAD_NM_EMULATED
void Operation::show(Visible& visible) const {
    const auto show_all = [&](const List& list, size_t count) {
        for (size_t i = 0; i < count; ++i) {
            const Extent e = extent(list[i].array_read);
            visible.add(list[i].argument, e.first, e.last, size_t(element_size(list[i].array_read)), list[i].use);
        }
    };
    show_all(inputs_, input_count_);
    show_all(outputs_, output_count_);
}
#endif

}  // namespace tinygrad_nm
