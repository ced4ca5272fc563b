// Tuples of integers from Python, read in place: a kernel call comes with one of up to eleven numbers.
#pragma once
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <string_view>

namespace tinygrad_nm {

// (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups), and the
// like. Distinct from std::array, whose caster in pybind11 converts through several Python objects.
template <size_t N>
struct Integers : std::array<int64_t, N> {};

// ("avg" or "max", height, width); the name lives as long as the argument it came from.
struct NamedWindow {
    std::string_view name;
    int64_t height, width;
};

}  // namespace tinygrad_nm

namespace pybind11::detail {

// A Python int that fits (bool included, as Python has it); false for anything else, without an exception.
inline bool read_integer(PyObject* from, int64_t& to) {
    if (!PyLong_Check(from)) return false;
    int overflow = 0;
    to = PyLong_AsLongLongAndOverflow(from, &overflow);
    return overflow == 0;
}

template <size_t N>
struct type_caster<tinygrad_nm::Integers<N>> {
    PYBIND11_TYPE_CASTER(tinygrad_nm::Integers<N>, const_name("tuple[int, ...]"));

    bool load(handle source, bool) {
        if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != Py_ssize_t(N)) return false;
        for (size_t i = 0; i < N; ++i)
            if (!read_integer(PyTuple_GET_ITEM(source.ptr(), Py_ssize_t(i)), value[i])) return false;
        return true;
    }
};

template <>
struct type_caster<tinygrad_nm::NamedWindow> {
    PYBIND11_TYPE_CASTER(tinygrad_nm::NamedWindow, const_name("tuple[str, int, int]"));

    bool load(handle source, bool) {
        PyObject* const tuple = source.ptr();
        if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != 3) return false;
        PyObject* const name = PyTuple_GET_ITEM(tuple, 0);
        if (!PyUnicode_Check(name)) return false;
        Py_ssize_t length = 0;
        const char* const text = PyUnicode_AsUTF8AndSize(name, &length);
        if (!text) return PyErr_Clear(), false;
        value.name = {text, size_t(length)};
        return read_integer(PyTuple_GET_ITEM(tuple, 1), value.height) &&
               read_integer(PyTuple_GET_ITEM(tuple, 2), value.width);
    }
};

}  // namespace pybind11::detail
