#include "cuda/device_array.h"

#include <charconv>
#include <string_view>

#include "bindings/errors.h"
#include "bindings/geometry.h"
#include "shared/checked.h"

namespace tinygrad_nm {
namespace {

namespace py = pybind11;

// The entries of one interface. Errors begin with the operation, and name the argument.
class Interface {
  public:
    Interface(const char* operation, const char* argument, py::handle value)
        : operation_(operation), argument_(argument) {
        static PyObject* const name = PyUnicode_InternFromString("__cuda_array_interface__");
        dict_ = py::reinterpret_steal<py::object>(PyObject_GetAttr(value.ptr(), name));
        if (!dict_) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw py::error_already_set();
            PyErr_Clear();
            wrong_type(operation, argument,
                       "an array on a GPU (with __cuda_array_interface__, as a cupy.ndarray)", value);
        }
        if (!PyDict_Check(dict_.ptr())) refuse("is not a dict");
    }

    // None where there is no such entry.
    py::handle entry(const char* name) const {
        PyObject* const value = PyDict_GetItemString(dict_.ptr(), name);
        return value ? value : Py_None;
    }
    int64_t integer(py::handle value, const char* name) const {
        int64_t number = 0;
        if (!py::detail::read_integer(value.ptr(), number))
            refuse(std::string("has no integer in its ") + name);
        return number;
    }
    Shape integers(const char* name) const {
        const py::handle value = entry(name);
        if (!PyTuple_Check(value.ptr()) || PyTuple_GET_SIZE(value.ptr()) > Shape::most)
            refuse(std::string("has no tuple as its ") + name);
        Shape all;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value.ptr()); ++i)
            all.push_back(integer(PyTuple_GET_ITEM(value.ptr(), i), name));
        return all;
    }
    std::string_view text(const char* name) const {
        const py::handle value = entry(name);
        Py_ssize_t length = 0;
        const char* const begin =
            PyUnicode_Check(value.ptr()) ? PyUnicode_AsUTF8AndSize(value.ptr(), &length) : nullptr;
        if (!begin) refuse(std::string("has no text as its ") + name);
        return {begin, size_t(length)};
    }
    [[noreturn]] void refuse(const std::string& what) const {
        PyErr_Clear();
        throw_value_error(operation_, std::string("the __cuda_array_interface__ of ") + argument_ + " " +
                                          what + ", pass an array that follows its version 3");
    }

  private:
    const char *operation_, *argument_;
    py::object dict_;
};

// The steps of a C-contiguous array, in bytes.
Shape contiguous_steps(const char* operation, const Shape& sizes, int64_t element_size) {
    Shape steps;
    for (size_t i = sizes.size(); i-- > 0;) {
        steps.push_front(element_size);
        element_size = checked_product(operation, {element_size, sizes[i]});
    }
    return steps;
}

// As NumPy has it: an axis of one element may have any step, and an empty array is contiguous.
bool are_contiguous(const Shape& steps, const Shape& contiguous, const Shape& sizes) {
    bool same = true;
    for (size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i] == 0) return true;
        same = same && (sizes[i] == 1 || steps[i] == contiguous[i]);
    }
    return same;
}

}  // namespace

DeviceArray::DeviceArray(const char* operation, const char* argument, py::handle value)
    : object_(value.ptr()) {
    const Interface from(operation, argument, value);
    const int64_t version = from.integer(from.entry("version"), "version");
    if (version != 2 && version != 3) from.refuse("is of version " + std::to_string(version));
    if (!from.entry("mask").is_none()) from.refuse("has a mask");

    const std::string_view type = from.text("typestr");  // "<f4": byte order, kind, bytes
    if (type.size() < 3 ||
        std::from_chars(type.data() + 2, type.data() + type.size(), element_size_).ec != std::errc() ||
        element_size_ < 1)
        from.refuse("has the typestr '" + std::string(type) + "'");
    native_ = type[0] != '>';
    kind_ = type[1];

    sizes_ = from.integers("shape");
    for (const int64_t size : sizes_)
        if (size < 0) from.refuse("has a negative size in its shape");
    const Shape dense = contiguous_steps(operation, sizes_, element_size_);
    steps_ = from.entry("strides").is_none() ? dense : from.integers("strides");
    if (steps_.size() != sizes_.size()) from.refuse("has not as many strides as sizes");
    contiguous_ = are_contiguous(steps_, dense, sizes_);

    const py::handle data = from.entry("data");  // (address, whether it is read-only)
    if (!PyTuple_Check(data.ptr()) || PyTuple_GET_SIZE(data.ptr()) != 2)
        from.refuse("has no pair as its data");
    data_ = reinterpret_cast<char*>(from.integer(PyTuple_GET_ITEM(data.ptr(), 0), "data"));
    writeable_ = PyObject_IsTrue(PyTuple_GET_ITEM(data.ptr(), 1)) == 0;

    if (const py::handle stream = from.entry("stream"); !stream.is_none()) {
        stream_ = uintptr_t(from.integer(stream, "stream"));
        if (stream_ == 0) from.refuse("has the stream 0, which names none");
    }
}

bool DeviceArray::aligned() const {
    bool all = reinterpret_cast<uintptr_t>(data_) % uintptr_t(element_size_) == 0, empty = false;
    for (size_t i = 0; i < sizes_.size(); ++i) {
        empty = empty || sizes_[i] == 0;
        all = all && (sizes_[i] < 2 || steps_[i] % element_size_ == 0);
    }
    return all || empty;
}

std::string DeviceArray::dtype_text() const {
    constexpr std::pair<char, const char*> names[] = {
        {'f', "float"}, {'i', "int"}, {'u', "uint"}, {'c', "complex"}};
    const std::string order = native_ ? "" : "big-endian ";
    for (const auto& [kind, name] : names)
        if (kind == kind_) return order + name + std::to_string(8 * element_size_);
    return kind_ == 'b' ? "bool" : order + std::string(1, kind_) + std::to_string(element_size_);
}

}  // namespace tinygrad_nm
