#include "cpu/conv2d.h"

#include <array>

#include "cpu/bindings/arguments.h"
#include "cpu/bindings/bindings.h"

namespace tinygrad_nm {
namespace {

// (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups)
using Geometry = std::array<int64_t, 9>;

template <class A>
std::array<int64_t, 4> four(const Operation& op, const char* argument, const A& array, const char* names) {
    op.expect_ndim(argument, array.shape, 4, names);
    return {array.shape[0], array.shape[1], array.shape[2], array.shape[3]};
}

template <class X, class W>
Conv2dShape build_shape(const Operation& op, const char* x_name, const X& x, const W& w, const Geometry& g) {
    const std::array<int64_t, 4> x_shape = four(op, x_name, x, "(N, C, H, W)");
    return conv2d_shape(op.name().c_str(), x_shape, four(op, "w", w, "(O, C/groups, KH, KW)"),
                        {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8]});
}

Shape result_shape(const Conv2dShape& s) {
    return {s.batch, s.filters, s.out_h, s.out_w};
}

double work(const Conv2dShape& s) {
    return 2.0 * double(s.batch * s.out_h * s.out_w) *
           double(s.filters * s.group_channels * s.kernel_h * s.kernel_w);
}

template <class T>
void run_forward(Operation& op, py::handle out, py::handle x_in, py::handle w_in, py::handle bias_in,
                 const Geometry& geometry, const std::string& activation, double parameter) {
    const Array<T> y = op.output<T>("out", out);
    const Array<const T> x = op.input<T>("x", x_in), w = op.input<T>("w", w_in);
    const Conv2dShape shape = build_shape(op, "x", x, w, geometry);
    op.expect_shape("out", y.shape, result_shape(shape), "the result of this convolution");
    Array<const T> bias{};
    if (!bias_in.is_none()) {
        bias = op.input<T>("bias", bias_in);
        op.expect_shape("bias", bias.shape, {shape.filters}, "one for each filter");
    }
    const Activation kind = op.activation(activation, parameter);
    op.run(work(shape), [&] {
        kernels<T>().conv2d_forward({y.data, x.data, w.data, bias.data, shape, kind, T(parameter)});
    });
}

void forward(py::handle out, py::handle x, py::handle w, py::handle bias, const Geometry& geometry,
             const std::string& activation, double parameter) {
    Operation op("conv2d");
    op.by_dtype(out,
                [&]<class T>() { run_forward<T>(op, out, x, w, bias, geometry, activation, parameter); });
}

template <class T>
void run_backward_input(Operation& op, py::handle out, py::handle dy_in, py::handle w_in,
                        const Geometry& geometry) {
    const Array<T> dx = op.output<T>("out", out);
    const Array<const T> dy = op.input<T>("dy", dy_in), w = op.input<T>("w", w_in);
    const Conv2dShape shape = build_shape(op, "out", dx, w, geometry);
    op.expect_shape("dy", dy.shape, result_shape(shape), "the result of this convolution");
    op.run(work(shape), [&] { kernels<T>().conv2d_backward_input({dx.data, dy.data, w.data, shape}); });
}

void backward_input(py::handle out, py::handle dy, py::handle w, const Geometry& geometry) {
    Operation op("conv2d_backward_input");
    op.by_dtype(out, [&]<class T>() { run_backward_input<T>(op, out, dy, w, geometry); });
}

template <class T>
void run_backward_weight(Operation& op, py::handle out, py::handle x_in, py::handle dy_in,
                         const Geometry& geometry) {
    const Array<T> dw = op.output<T>("out", out);
    const Array<const T> x = op.input<T>("x", x_in), dy = op.input<T>("dy", dy_in);
    const Conv2dShape shape = build_shape(op, "x", x, dw, geometry);
    op.expect_shape("dy", dy.shape, result_shape(shape), "the result of this convolution");
    op.run(work(shape), [&] { kernels<T>().conv2d_backward_weight({dw.data, x.data, dy.data, shape}); });
}

void backward_weight(py::handle out, py::handle x, py::handle dy, const Geometry& geometry) {
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
