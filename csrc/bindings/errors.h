// Errors of arguments: one sentence, the operation first.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

namespace tinygrad_nm {

[[noreturn]] inline void throw_value_error(const char* operation, const std::string& text) {
    throw pybind11::value_error(std::string(operation) + ": " + text);
}
[[noreturn]] inline void throw_type_error(const char* operation, const std::string& text) {
    throw pybind11::type_error(std::string(operation) + ": " + text);
}
[[noreturn]] inline void wrong_type(const char* operation, const char* argument, const char* expected,
                                    pybind11::handle value) {
    throw_type_error(
        operation, std::string(argument) + " must be " + expected + ", not " + Py_TYPE(value.ptr())->tp_name);
}

}  // namespace tinygrad_nm
