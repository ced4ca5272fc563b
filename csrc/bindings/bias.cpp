#include "shared/bias.h"

#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

void bias_backward(py::handle out, py::handle dy_in) {
    Operation op("bias_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> db = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in);
        if (dy.ndim() < 2)
            op.value_error("dy has shape " + shape_text(dy.shape) +
                           ", but must have at least 2 dimensions (N, O, ...)");
        op.expect_shape("out", db.shape, {dy.shape[1]}, "the channels of dy");
        int64_t plane = 1;
        for (size_t i = 2; i < dy.shape.size(); ++i) plane *= dy.shape[i];
        const BiasBackward<T> a{
            .out = db.data, .dy = dy.data, .examples = dy.shape[0], .channels = dy.shape[1], .plane = plane};
        op.run(double(dy.size), [&] { kernels<T>().bias_backward(a); });
    });
}

}  // namespace

void bind_bias(py::module_& m) {
    m.def("bias_backward", &bias_backward, py::arg("out"), py::arg("dy"),
          "out (O,) = dy (N, O, ...) summed over all axes but the second");
}

}  // namespace tinygrad_nm
