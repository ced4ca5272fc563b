#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

void peak_arithmetic(py::handle out, py::handle x_in, double scale, double shift, int64_t repeats) {
    Operation op("peak_arithmetic");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        op.expect_ndim("x", x.shape, 2, "(rows, n)");
        op.expect_shape("out", y.shape, x.shape, "the shape of x");
        if (repeats < 0) op.value_error("repeats is " + std::to_string(repeats) + ", but must be 0 or more");
        const PeakArithmetic<T> a{.out = y.data,
                                  .x = x.data,
                                  .rows = x.shape[0],
                                  .n = x.shape[1],
                                  .repeats = repeats,
                                  .scale = T(scale),
                                  .shift = T(shift)};
        op.run(2.0 * double(y.size) * double(repeats), [&] { kernels<T>().peak_arithmetic(a); });
    });
}

void peak_memory(py::handle out, py::handle x_in, py::handle z_in, double scale) {
    Operation op("peak_memory");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = x_in.is_none() ? op.update<T>("out", out) : op.output<T>("out", out);
        if (x_in.is_none() && z_in.is_none()) op.value_error("x and z are both None, pass at least one");
        const auto optional = [&](const char* name, py::handle value) {
            Array<const T> array{};
            if (value.is_none()) return array;
            array = op.input<T>(name, value);
            op.expect_shape(name, array.shape, y.shape, "the shape of out");
            return array;
        };
        const Array<const T> x = optional("x", x_in), z = optional("z", z_in);
        const PeakMemory<T> a{.out = y.data, .x = x.data, .z = z.data, .n = y.size, .scale = T(scale)};
        op.run(3.0 * double(sizeof(T)) * double(y.size), [&] { kernels<T>().peak_memory(a); });
    });
}

void peak_read(py::handle out, py::handle x_in) {
    Operation op("peak_read");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        op.expect_ndim("x", x.shape, 2, "(rows, n)");
        op.expect_shape("out", y.shape, {x.shape[0]}, "a number for each row of x");
        const PeakRead<T> a{.out = y.data, .x = x.data, .rows = x.shape[0], .n = x.shape[1]};
        op.run(double(sizeof(T)) * double(x.size), [&] { kernels<T>().peak_read(a); });
    });
}

}  // namespace

void bind_peak(py::module_& m) {
    m.def("peak_arithmetic", &peak_arithmetic, py::arg("out"), py::arg("x"), py::arg("scale"),
          py::arg("shift"), py::arg("repeats"),
          "out = x after `repeats` steps y = scale y + shift, on (rows, n): the processor's peak arithmetic");
    m.def("peak_memory", &peak_memory, py::arg("out"), py::arg("x").none(true), py::arg("z").none(true),
          py::arg("scale"),
          "out = x + scale z, out = x if z is None, out += scale z if x is None: the bandwidth of memory");
    m.def("peak_read", &peak_read, py::arg("out"), py::arg("x"),
          "out = the sums of the rows of x: the bandwidth of reading");
}

}  // namespace tinygrad_nm
