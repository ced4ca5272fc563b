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
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "bindings/errors.h"
#include "bindings/geometry.h"
#include "bindings/kernel_scope.h"
#include "bindings/raw_array.h"
#include "bindings/shape.h"
#include "shared/activation.h"
#include "shared/dispatch.h"

namespace tinygrad_nm {

namespace py = pybind11;

template <class T>
struct Array {
    T* data;
    Shape shape;
    Shape strides;    // in elements; those of a contiguous array except for strided_input
    int64_t size;     // product of shape
    py::object keep;  // owns data where that is a copy; the caller holds the arrays themselves

    int64_t ndim() const { return int64_t(shape.size()); }
};

class Operation {
  public:
    explicit Operation(const char* name) : name_(name) {}

    const char* name() const { return name_; }

    // A result: an array of dtype T, C-contiguous, aligned, writeable, native-endian; else an exception.
    template <class T>
    Array<T> output(const char* argument, py::handle value) {
        const RawArray array = checked<T>(argument, value);
        check_writeable(argument, array);
        remember(outputs_, output_count_, argument, array, Use::written);
        return view<T>(array, {});
    }
    // The same, of an array that the kernel reads as well.
    template <class T>
    Array<T> update(const char* argument, py::handle value) {
        const Array<T> array = output<T>(argument, value);
        outputs_[output_count_ - 1].use = Use::updated;
        return array;
    }

    // An operand of dtype T in either byte order: as it is if it is C-contiguous, aligned and native, else a
    // copy, or ValueError on devices where arrays are never copied.
    template <class T>
    Array<const T> input(const char* argument, py::handle value) {
        return operand<T>(argument, value, true);
    }

    // The same with its own strides (negative, zero, ...) wherever they are whole elements.
    template <class T>
    Array<const T> strided_input(const char* argument, py::handle value) {
        return operand<T>(argument, value, false);
    }

    // ValueError "<operation>: <argument> has shape (2, 3), but must have (2, 4)", with the reason if given.
    void expect_shape(const char* argument, const Shape& shape, const Shape& expected,
                      const char* why = "") const {
        if (!(shape == expected)) wrong_shape(argument, shape, expected, why);
    }
    [[noreturn]] void wrong_shape(const char* argument, const Shape& shape, const Shape& expected,
                                  const std::string& why) const;
    // ValueError "<operation>: x has shape (2, 3), but must have 4 dimensions (N, C, H, W)".
    void expect_ndim(const char* argument, const Shape& shape, int ndim, const char* names) const;
    // The kind of this name; ValueError if there is none, or if its parameter is not positive and finite.
    Activation activation(std::string_view name, double parameter) const;
    [[noreturn]] void value_error(const std::string& text) const;
    [[noreturn]] void type_error(const std::string& text) const;

    // Calls f.operator()<float>() or <double>() by the dtype of out.
    template <class F>
    void by_dtype(py::handle out, F&& f) {
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
        if (work < gil_work) return run_in_scope(kernel);
        py::gil_scoped_release release;
        run_in_scope(kernel);
    }

  private:
    static constexpr double gil_work = 2e5;  // some 20 microseconds

    struct Named {
        const char* argument;
        RawArray array;
        Use use;
        RawArray array_read;  // what the kernel sees: the array, or a copy of it
    };
    using List = std::array<Named, 8>;  // no kernel has more arrays of one sort

    void remember(List& list, size_t& count, const char* argument, const RawArray& array, Use use) const {
        list.at(count++) = {argument, array, use, array};
    }

    template <class F>
    void run_in_scope(F&& kernel) const {
        KernelScope scope(name_);
        if constexpr (KernelScope::wants_arrays) show(scope);
        scope.begin();
        kernel();
        scope.end();
    }
    void show(KernelScope& scope) const;

    RawArray read(const char* argument, py::handle value) const {
        if constexpr (RawArray::slow_to_read)
            if (value.ptr() == by_dtype_of_.object()) return by_dtype_of_;
        return RawArray(name_, argument, value);
    }

    template <class T>
    RawArray checked(const char* argument, py::handle value) const {
        const RawArray array = read(argument, value);
        if (!array.has<T>()) wrong_dtype(argument, array, DtypeOf<T>::name);
        return array;
    }

    template <class T>
    Array<const T> operand(const char* argument, py::handle value, bool contiguous) {
        const RawArray array = checked<T>(argument, value);
        remember(inputs_, input_count_, argument, array, Use::read);
        if (usable(array, contiguous)) return view<const T>(array, {});
        const py::object copy = copy_of(argument, array, contiguous);
        RawArray& read = inputs_[input_count_ - 1].array_read;
        read = RawArray(name_, argument, copy);
        return view<const T>(read, copy);
    }
    template <class Raw>
    py::object copy_of(const char* argument, const Raw& array, bool contiguous) const {
        if constexpr (Raw::copied)
            return array.native_copy();
        else
            not_usable(argument, array, contiguous);
    }

    template <class T>
    static Array<T> view(const RawArray& array, const py::object& keep) {
        Array<T> a{reinterpret_cast<T*>(array.data()), {}, {}, 1, keep};
        for (int i = 0; i < array.ndim(); ++i) {
            a.shape.push_back(array.size(i));
            a.strides.push_back(array.step(i) / int64_t(sizeof(T)));
            a.size *= array.size(i);
        }
        return a;
    }

    [[noreturn]] void wrong_dtype(const char* argument, const RawArray& array, const char* expected) const;
    [[noreturn]] void not_usable(const char* argument, const RawArray& array, bool contiguous) const;
    void check_writeable(const char* argument, const RawArray& array) const;
    static bool usable(const RawArray& array, bool contiguous);
    bool out_is_double(py::handle out);
    void check_overlap() const;

    const char* name_;
    size_t input_count_ = 0, output_count_ = 0;
    List inputs_, outputs_;
    RawArray by_dtype_of_;  // where it is slow to read
};

}  // namespace tinygrad_nm
