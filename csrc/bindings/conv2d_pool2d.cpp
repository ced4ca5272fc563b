#include "shared/conv2d_pool2d.h"

#include "bindings/bindings.h"
#include "bindings/conv2d_arguments.h"

namespace tinygrad_nm {
namespace {

using Pool = NamedWindow;  // the name is "avg" or "max"

PoolWindows windows(const Operation& op, const Pool& pool, const Conv2dShape& s) {
    const auto& [kind, height, width] = pool;
    if (kind != "avg" && kind != "max")
        op.value_error("unknown pooling '" + std::string(kind) + "', use avg or max");
    if (height < 1 || width < 1 || height > s.out_h || width > s.out_w)
        op.value_error("windows " + shape_text({height, width}) + " must be positive and at most the " +
                       shape_text({s.out_h, s.out_w}) + " of the convolution's result");
    return {kind == "max", height, width};
}

Shape pooled(const Conv2dShape& s, const PoolWindows& pool) {
    return {s.batch, s.filters, s.out_h / pool.height, s.out_w / pool.width};
}

template <class T>
Array<T> kept(Operation& op, py::handle y, const Conv2dShape& shape, Activation kind,
              const PoolWindows& pool) {
    const int64_t size = kernels<T>().conv2d_pool2d_kept(shape, kind, pool);
    if (size == 0) op.value_error("this shape has no fused kernel, see conv2d_pool2d_kept");
    if (y.is_none()) return {};
    const Array<T> array = op.output<T>("y", y);
    op.expect_shape("y", array.shape, {size}, "see conv2d_pool2d_kept");
    return array;
}

int64_t kept_size(py::handle x_in, py::handle w_in, const ConvGeometry& geometry, std::string_view activation,
                  double parameter, const Pool& pool) {
    Operation op("conv2d_pool2d");
    int64_t size = 0;
    op.by_dtype(x_in, [&]<class T>() {
        const Array<const T> x = op.input<T>("x", x_in), w = op.input<T>("w", w_in);
        const Conv2dShape shape = conv2d_shape_of(op, "x", x, w, geometry);
        const Activation kind = op.activation(activation, parameter);
        size = kernels<T>().conv2d_pool2d_kept(shape, kind, windows(op, pool, shape));
    });
    return size;
}

template <class T>
void run_forward(Operation& op, py::handle out, py::handle y_in, py::handle x_in, py::handle w_in,
                 py::handle bias_in, const ConvGeometry& geometry, Activation kind, double parameter,
                 const Pool& pool_in) {
    const Array<T> result = op.output<T>("out", out);
    const Array<const T> x = op.input<T>("x", x_in), w = op.input<T>("w", w_in);
    const Conv2dShape shape = conv2d_shape_of(op, "x", x, w, geometry);
    const PoolWindows pool = windows(op, pool_in, shape);
    op.expect_shape("out", result.shape, pooled(shape, pool), "the result of this pooling");
    const Array<T> y = kept<T>(op, y_in, shape, kind, pool);
    Array<const T> bias{};
    if (!bias_in.is_none()) {
        bias = op.input<T>("bias", bias_in);
        op.expect_shape("bias", bias.shape, {shape.filters}, "one for each filter");
    }
    const Conv2dForward<T> conv = {nullptr, x.data, w.data,       bias.data,
                                   shape,   kind,   T(parameter), winograd_choice<T>()};
    op.run(conv2d_work(shape), [&] {
        kernels<T>().conv2d_pool2d_forward({result.data, y.data, conv, pool});
    });
}

void conv2d_pool2d_forward(py::handle out, py::handle y, py::handle x, py::handle w, py::handle bias,
                           const ConvGeometry& geometry, std::string_view activation, double parameter,
                           const Pool& pool) {
    Operation op("conv2d_pool2d");
    const Activation kind = op.activation(activation, parameter);
    op.by_dtype(out,
                [&]<class T>() { run_forward<T>(op, out, y, x, w, bias, geometry, kind, parameter, pool); });
}

// The gradient `name`, of the shape of what it is the gradient of; null for None.
template <class T>
T* gradient(Operation& op, const char* name, py::handle value, const Shape& shape) {
    if (value.is_none()) return nullptr;
    const Array<T> array = op.output<T>(name, value);
    op.expect_shape(name, array.shape, shape, "the shape of what it is the gradient of");
    return array.data;
}

template <class T>
void run_backward(Operation& op, const std::array<py::handle, 3>& gradients, py::handle dout_in,
                  py::handle y_in, py::handle x_in, py::handle w_in, const ConvGeometry& geometry,
                  Activation kind, double parameter, const Pool& pool_in, bool zeros_stay) {
    const Array<const T> dout = op.input<T>("dout", dout_in), x = op.input<T>("x", x_in);
    const Array<const T> w = op.input<T>("w", w_in), y = op.input<T>("y", y_in);
    const Conv2dShape shape = conv2d_shape_of(op, "x", x, w, geometry);
    const PoolWindows pool = windows(op, pool_in, shape);
    op.expect_shape("dout", dout.shape, pooled(shape, pool), "the result of this pooling");
    const int64_t size = kernels<T>().conv2d_pool2d_kept(shape, kind, pool);
    if (size == 0) op.value_error("this shape has no fused kernel, see conv2d_pool2d_kept");
    op.expect_shape("y", y.shape, {size}, "see conv2d_pool2d_kept");
    T* const dx = gradient<T>(op, "dx", gradients[0], x.shape);
    T* const dw = gradient<T>(op, "dw", gradients[1], w.shape);
    T* const db = gradient<T>(op, "db", gradients[2], {shape.filters});
    const Conv2dForward<T> conv = {nullptr, x.data, w.data,       nullptr,
                                   shape,   kind,   T(parameter), winograd_choice<T>()};
    op.run(2 * conv2d_work(shape), [&] {
        kernels<T>().conv2d_pool2d_backward({dx, dw, db, dout.data, y.data, conv, pool, zeros_stay});
    });
}

void conv2d_pool2d_backward(py::handle dx, py::handle dw, py::handle db, py::handle dout, py::handle y,
                            py::handle x, py::handle w, const ConvGeometry& geometry,
                            std::string_view activation, double parameter, const Pool& pool,
                            bool zeros_stay) {
    Operation op("conv2d_pool2d_backward");
    const Activation kind = op.activation(activation, parameter);
    op.by_dtype(x, [&]<class T>() {
        run_backward<T>(op, {dx, dw, db}, dout, y, x, w, geometry, kind, parameter, pool, zeros_stay);
    });
}

}  // namespace

void bind_conv2d_pool2d(py::module_& m) {
    m.def("conv2d_pool2d_kept", &kept_size, py::arg("x"), py::arg("w"), py::arg("geometry"),
          py::arg("activation"), py::arg("parameter"), py::arg("pool"),
          "How many numbers `y` of the two kernels below has; 0 if there is no fused kernel for this shape");
    m.def(
        "conv2d_pool2d_forward", &conv2d_pool2d_forward, py::arg("out"), py::arg("y"), py::arg("x"),
        py::arg("w"), py::arg("bias"), py::arg("geometry"), py::arg("activation"), py::arg("parameter"),
        py::arg("pool"),
        "out (N, O, OH / height, OW / width) = the mean or maximum, pool = ('avg' or 'max', height, width), "
        "of "
        "windows of activation(x convolved with w + bias); y keeps what the backward kernel needs, or None");
    m.def("conv2d_pool2d_backward", &conv2d_pool2d_backward, py::arg("dx"), py::arg("dw"), py::arg("db"),
          py::arg("dout"), py::arg("y"), py::arg("x"), py::arg("w"), py::arg("geometry"),
          py::arg("activation"), py::arg("parameter"), py::arg("pool"), py::arg("zeros_stay"),
          "The gradients of the above in x, w and bias, each an array or None");
}

}  // namespace tinygrad_nm
