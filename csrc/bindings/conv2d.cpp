#include <atomic>

#include "bindings/bindings.h"
#include "bindings/conv2d_arguments.h"

namespace tinygrad_nm {
namespace {

// Whether convolutions may run by Winograd's algorithm, for each floating type: of the process, and what one
// thread forbids for a while.
std::atomic<bool> winograd_float32{true}, winograd_float64{false};
thread_local int64_t winograd_forbidden = 0;
std::atomic<bool> winograd_always{false};  // for tests

std::atomic<bool>& winograd_flag(const std::string& dtype) {
    if (dtype == "float32") return winograd_float32;
    if (dtype == "float64") return winograd_float64;
    throw std::invalid_argument("winograd: dtype is '" + dtype + "', use float32 or float64");
}

template <class T>
void run_forward(Operation& op, py::handle out, py::handle x_in, py::handle w_in, py::handle bias_in,
                 const ConvGeometry& geometry, std::string_view activation, double parameter) {
    const Array<T> y = op.output<T>("out", out);
    const Array<const T> x = op.input<T>("x", x_in), w = op.input<T>("w", w_in);
    const Conv2dShape shape = conv2d_shape_of(op, "x", x, w, geometry);
    op.expect_shape("out", y.shape, conv2d_result(shape), "the result of this convolution");
    Array<const T> bias{};
    if (!bias_in.is_none()) {
        bias = op.input<T>("bias", bias_in);
        op.expect_shape("bias", bias.shape, {shape.filters}, "one for each filter");
    }
    const Activation kind = op.activation(activation, parameter);
    const Winograd winograd = winograd_choice<T>();
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_forward({y.data, x.data, w.data, bias.data, shape, kind, T(parameter), winograd});
    });
}

void conv2d_forward(py::handle out, py::handle x, py::handle w, py::handle bias, const ConvGeometry& geometry,
                    std::string_view activation, double parameter) {
    Operation op("conv2d");
    op.by_dtype(out,
                [&]<class T>() { run_forward<T>(op, out, x, w, bias, geometry, activation, parameter); });
}

template <class T>
void run_backward_input(Operation& op, py::handle out, py::handle dy_in, py::handle w_in,
                        const ConvGeometry& geometry) {
    const Array<T> dx = op.output<T>("out", out);
    const Array<const T> dy = op.input<T>("dy", dy_in), w = op.input<T>("w", w_in);
    const Conv2dShape shape = conv2d_shape_of(op, "out", dx, w, geometry);
    op.expect_shape("dy", dy.shape, conv2d_result(shape), "the result of this convolution");
    const Winograd winograd = winograd_choice<T>();
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_backward_input({dx.data, dy.data, w.data, shape, winograd});
    });
}

void conv2d_backward_input(py::handle out, py::handle dy, py::handle w, const ConvGeometry& geometry) {
    Operation op("conv2d_backward_input");
    op.by_dtype(out, [&]<class T>() { run_backward_input<T>(op, out, dy, w, geometry); });
}

template <class T>
void run_backward_weight(Operation& op, py::handle out, py::handle x_in, py::handle dy_in,
                         const ConvGeometry& geometry) {
    const Array<T> dw = op.output<T>("out", out);
    const Array<const T> x = op.input<T>("x", x_in), dy = op.input<T>("dy", dy_in);
    const Conv2dShape shape = conv2d_shape_of(op, "x", x, dw, geometry);
    op.expect_shape("dy", dy.shape, conv2d_result(shape), "the result of this convolution");
    const Winograd winograd = winograd_choice<T>();
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_backward_weight({dw.data, x.data, dy.data, shape, winograd});
    });
}

void conv2d_backward_weight(py::handle out, py::handle x, py::handle dy, const ConvGeometry& geometry) {
    Operation op("conv2d_backward_weight");
    op.by_dtype(out, [&]<class T>() { run_backward_weight<T>(op, out, x, dy, geometry); });
}

}  // namespace

template <class T>
Winograd winograd_choice() {
    if (winograd_forbidden != 0) return Winograd::never;
    if (winograd_always) return Winograd::always;
    const bool on = sizeof(T) == 4 ? winograd_float32 : winograd_float64;
    return on ? Winograd::where_it_pays : Winograd::never;
}
template Winograd winograd_choice<float>();
template Winograd winograd_choice<double>();

void bind_conv2d(py::module_& m) {
    m.def("conv2d_forward", &conv2d_forward, py::arg("out"), py::arg("x"), py::arg("w"), py::arg("bias"),
          py::arg("geometry"), py::arg("activation") = "identity", py::arg("parameter") = 0.0,
          "out (N, O, OH, OW) = activation(x (N, C, H, W) convolved with w (O, C/groups, KH, KW) + bias "
          "(O,)); geometry "
          "= (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups)");
    m.def("conv2d_backward_input", &conv2d_backward_input, py::arg("out"), py::arg("dy"), py::arg("w"),
          py::arg("geometry"),
          "out (N, C, H, W) = the adjoint of the convolution in x, applied to dy (N, O, OH, OW)");
    m.def("conv2d_backward_weight", &conv2d_backward_weight, py::arg("out"), py::arg("x"), py::arg("dy"),
          py::arg("geometry"),
          "out (O, C/groups, KH, KW) = the adjoint of the convolution in w, applied to dy (N, O, OH, OW)");
    m.def(
        "set_winograd", [](bool on, const std::string& dtype) { winograd_flag(dtype) = on; }, py::arg("on"),
        py::arg("dtype") = "float32",
        "Whether convolutions of this type may run by Winograd's algorithm, where that pays.");
    m.def(
        "get_winograd", [](const std::string& dtype) { return winograd_flag(dtype).load(); },
        py::arg("dtype") = "float32", "What set_winograd has set.");
    m.def(
        "forbid_winograd", [](bool on) { winograd_forbidden += on ? 1 : -1; }, py::arg("on"),
        "Forbids Winograd's algorithm in this thread, until called as often with False as with True.");
    m.def(
        "set_winograd_always", [](bool on) { winograd_always = on; }, py::arg("on"),
        "For tests: Winograd's algorithm wherever it can be used, whether it pays and set_winograd or not.");
}

}  // namespace tinygrad_nm
