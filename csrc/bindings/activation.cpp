#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

void activation_forward(py::handle out, py::handle x_in, std::string_view kind, double parameter) {
    Operation op("activation_forward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        op.expect_shape("out", y.shape, x.shape, "the shape of x");
        const ActivationForward<T> a{.out = y.data,
                                     .x = x.data,
                                     .n = y.size,
                                     .kind = op.activation(kind, parameter),
                                     .parameter = T(parameter)};
        op.run(20.0 * double(y.size), [&] { kernels<T>().activation_forward(a); });
    });
}

void activation_backward(py::handle out, py::handle dy_in, py::handle saved_in, std::string_view kind,
                         double parameter) {
    Operation op("activation_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dx = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in), saved = op.input<T>("saved", saved_in);
        op.expect_shape("dy", dy.shape, dx.shape, "the shape of out");
        op.expect_shape("saved", saved.shape, dx.shape, "the shape of out");
        const ActivationBackward<T> a{.out = dx.data,
                                      .dy = dy.data,
                                      .saved = saved.data,
                                      .n = dx.size,
                                      .kind = op.activation(kind, parameter),
                                      .parameter = T(parameter)};
        op.run(20.0 * double(dx.size), [&] { kernels<T>().activation_backward(a); });
    });
}

}  // namespace

void bind_activation(py::module_& m) {
    m.def("activation_forward", &activation_forward, py::arg("out"), py::arg("x"), py::arg("kind"),
          py::arg("parameter"), "out = sigma(x), elementwise");
    m.def("activation_backward", &activation_backward, py::arg("out"), py::arg("dy"), py::arg("saved"),
          py::arg("kind"), py::arg("parameter"),
          "out = dy sigma'(x); saved is sigma(x), but x for softplus, gelu, sin and smooth_relu");
}

}  // namespace tinygrad_nm
