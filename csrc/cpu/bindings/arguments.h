// How arrays come in from Python. One Operation object a call:
//
//   Operation op("relu");                                   // errors begin with this name
//   op.by_dtype(out, [&]<class T>() {                       // float or double, by out's dtype
//       Array<T> y = op.output<T>("out", out);              // checked, never copied
//       Array<const T> x = op.input<T>("x", x_handle);      // any layout; copied if it must be
//       op.expect_shape("out", y.shape, x.shape);
//       op.run(work, [&] { kernels<T>().relu(...); });      // overlap check, GIL, kernel
//   });
//
// Errors: TypeError for what is not an array or has the wrong dtype, IndexError for a label or position out
// of range, ValueError for everything else.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "shared/activation.h"

namespace tinygrad_nm {

namespace py = pybind11;
using Shape = std::vector<int64_t>;

template <class T>
struct Array {
    T* data;
    Shape shape;
    Shape strides;   // in elements; those of a contiguous array except for strided_input
    int64_t size;    // product of shape
    py::array keep;  // owns data

    int64_t ndim() const { return int64_t(shape.size()); }
};

std::string shape_text(const Shape& shape);  // "(1, 3, 28, 28)"

class Operation {
  public:
    explicit Operation(std::string name) : name_(std::move(name)) {}

    const std::string& name() const { return name_; }

    // A result: an array of dtype T, C-contiguous, aligned, writeable, native-endian; else an exception.
    template <class T>
    Array<T> output(const char* argument, py::handle value) {
        const py::array array = checked(argument, value, py::dtype::of<T>(), true);
        outputs_.push_back({argument, array});
        return view<T>(array);
    }

    // An operand of dtype T in either byte order: as it is if it is C-contiguous, aligned and native, else a
    // copy.
    template <class T>
    Array<const T> input(const char* argument, py::handle value) {
        const py::array array = checked(argument, value, py::dtype::of<T>(), false);
        inputs_.push_back({argument, array});
        return view<const T>(usable(array, true));
    }

    // The same with its own strides (negative, zero, ...) wherever they are whole elements.
    template <class T>
    Array<const T> strided_input(const char* argument, py::handle value) {
        const py::array array = checked(argument, value, py::dtype::of<T>(), false);
        inputs_.push_back({argument, array});
        return view<const T>(usable(array, false));
    }

    // ValueError "<operation>: <argument> has shape (2, 3), but must have (2, 4)", with the reason if given.
    void expect_shape(const char* argument, const Shape& shape, const Shape& expected,
                      const std::string& why = "") const;
    // ValueError "<operation>: x has shape (2, 3), but must have 4 dimensions (N, C, H, W)".
    void expect_ndim(const char* argument, const Shape& shape, int ndim, const char* names) const;
    // The kind of this name; ValueError if there is none, or if its parameter is not positive and finite.
    Activation activation(const std::string& name, double parameter) const;
    [[noreturn]] void value_error(const std::string& text) const;
    [[noreturn]] void type_error(const std::string& text) const;

    // Calls f.operator()<float>() or <double>() by the dtype of out.
    template <class F>
    void by_dtype(py::handle out, F&& f) const {
        if (out_is_double(out))
            f.template operator()<double>();
        else
            f.template operator()<float>();
    }

    // Checks that no output shares memory with an input or another output, then runs the kernel, without the
    // GIL if its work (arithmetic operations, or bytes) is worth it: taking it back can wait 5 ms for another
    // thread.
    template <class F>
    void run(double work, F&& kernel) const {
        check_overlap();
        if (work < gil_work) return kernel();
        py::gil_scoped_release release;
        kernel();
    }

  private:
    static constexpr double gil_work = 2e5;  // some 20 microseconds

    struct Named {
        const char* argument;
        py::array array;
    };

    py::array checked(const char* argument, py::handle value, const py::dtype& dtype, bool output) const;
    static py::array usable(const py::array& array, bool contiguous);
    bool out_is_double(py::handle out) const;
    void check_overlap() const;

    template <class T>
    static Array<T> view(const py::array& array) {
        Array<T> a{static_cast<T*>(const_cast<void*>(array.data())), {}, {}, int64_t(array.size()), array};
        for (py::ssize_t i = 0; i < array.ndim(); ++i) {
            a.shape.push_back(array.shape(i));
            a.strides.push_back(array.strides(i) / py::ssize_t(sizeof(T)));
        }
        return a;
    }

    std::string name_;
    std::vector<Named> inputs_, outputs_;
};

}  // namespace tinygrad_nm
