#include "cpu/bindings/bindings.h"
#include "cpu/bindings/conv2d_arguments.h"

namespace tinygrad_nm {
namespace {

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
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_forward({y.data, x.data, w.data, bias.data, shape, kind, T(parameter)});
    });
}

void forward(py::handle out, py::handle x, py::handle w, py::handle bias, const ConvGeometry& geometry,
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
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_backward_input({dx.data, dy.data, w.data, shape});
    });
}

void backward_input(py::handle out, py::handle dy, py::handle w, const ConvGeometry& geometry) {
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
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_backward_weight({dw.data, x.data, dy.data, shape});
    });
}

void backward_weight(py::handle out, py::handle x, py::handle dy, const ConvGeometry& geometry) {
    Operation op("conv2d_backward_weight");
    op.by_dtype(out, [&]<class T>() { run_backward_weight<T>(op, out, x, dy, geometry); });
}

}  // namespace

void bind_conv2d(py::module_& m) {
    m.def("conv2d_forward", &forward, py::arg("out"), py::arg("x"), py::arg("w"), py::arg("bias"),
          py::arg("geometry"), py::arg("activation") = "identity", py::arg("parameter") = 0.0,
          "out (N, O, OH, OW) = activation(x (N, C, H, W) convolved with w (O, C/groups, KH, KW) + bias "
          "(O,)); geometry "
          "= (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups)");
    m.def("conv2d_backward_input", &backward_input, py::arg("out"), py::arg("dy"), py::arg("w"),
          py::arg("geometry"),
          "out (N, C, H, W) = the adjoint of the convolution in x, applied to dy (N, O, OH, OW)");
    m.def("conv2d_backward_weight", &backward_weight, py::arg("out"), py::arg("x"), py::arg("dy"),
          py::arg("geometry"),
          "out (O, C/groups, KH, KW) = the adjoint of the convolution in w, applied to dy (N, O, OH, OW)");
}

}  // namespace tinygrad_nm
