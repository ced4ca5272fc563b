#include "shared/pool2d.h"

#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

// (kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w,
// ceil_mode)
using Geometry = Integers<11>;

template <class A>
Pool2dShape build_shape(const Operation& op, const char* argument, const A& x, const Geometry& g) {
    op.expect_ndim(argument, x.shape, 4, "(N, C, H, W)");
    return pool2d_shape(op.name(), {x.shape[0], x.shape[1], x.shape[2], x.shape[3]},
                        {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10] != 0});
}

Shape result_shape(const Pool2dShape& s) {
    return {s.batch, s.channels, s.out_h, s.out_w};
}

double work(const Pool2dShape& s) {
    return double(s.batch * s.channels) *
           double(s.out_h * s.out_w * (s.kernel_h * s.kernel_w + 4) + s.height * s.width);
}

// f.operator()<Index>() with the type of the taps of this shape.
template <class F>
void by_tap(const Pool2dShape& shape, F&& f) {
    if (taps_are_bytes(shape))
        f.template operator()<uint8_t>();
    else
        f.template operator()<int32_t>();
}

void max_forward(py::handle out, py::handle positions_out, py::handle x_in, const Geometry& geometry) {
    Operation op("max_pool2d");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        const Pool2dShape shape = build_shape(op, "x", x, geometry);
        check_taps_fit("max_pool2d", shape.kernel_h, shape.kernel_w);
        op.expect_shape("out", y.shape, result_shape(shape), "the result of this pooling");
        by_tap(shape, [&]<class Index>() {
            const Array<Index> taps = op.output<Index>("positions", positions_out);
            op.expect_shape("positions", taps.shape, result_shape(shape), "the result of this pooling");
            op.run(work(shape), [&] { kernels<T>().max_pool2d_forward({y.data, taps.data, x.data, shape}); });
        });
    });
}

// Runs one of the two kernels over remembered taps: from `in` to `out`, one of them (N, C, H, W), the other
// (N, C, OH, OW).
template <class T>
void run_at_taps(Operation& op, bool (*kernel)(const MaxPool2dAtTaps<T>&), const Array<T>& out,
                 const Array<const T>& in, py::handle positions_in, const Pool2dShape& shape) {
    check_taps_fit(op.name(), shape.kernel_h, shape.kernel_w);
    by_tap(shape, [&]<class Index>() {
        const Array<const Index> taps = op.input<Index>("positions", positions_in);
        op.expect_shape("positions", taps.shape, result_shape(shape), "the result of this pooling");
        bool inside = true;
        op.run(work(shape), [&] { inside = kernel({out.data, in.data, taps.data, shape}); });
        if (!inside)
            op.value_error(
                "positions has an element outside of its window, pass those of max_pool2d_forward");
    });
}

void max_backward(py::handle out, py::handle dy_in, py::handle positions_in, const Geometry& geometry) {
    Operation op("max_pool2d_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dx = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in);
        const Pool2dShape shape = build_shape(op, "out", dx, geometry);
        op.expect_shape("dy", dy.shape, result_shape(shape), "the result of this pooling");
        run_at_taps<T>(op, kernels<T>().max_pool2d_backward, dx, dy, positions_in, shape);
    });
}

void max_gather(py::handle out, py::handle x_in, py::handle positions_in, const Geometry& geometry) {
    Operation op("max_pool2d_gather");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        const Pool2dShape shape = build_shape(op, "x", x, geometry);
        op.expect_shape("out", y.shape, result_shape(shape), "the result of this pooling");
        run_at_taps<T>(op, kernels<T>().max_pool2d_gather, y, x, positions_in, shape);
    });
}

void avg_forward(py::handle out, py::handle x_in, const Geometry& geometry, bool count_include_pad) {
    Operation op("avg_pool2d");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        const Pool2dShape shape = build_shape(op, "x", x, geometry);
        op.expect_shape("out", y.shape, result_shape(shape), "the result of this pooling");
        op.run(work(shape), [&] {
            kernels<T>().avg_pool2d_forward({y.data, x.data, shape, count_include_pad});
        });
    });
}

void avg_backward(py::handle out, py::handle dy_in, const Geometry& geometry, bool count_include_pad) {
    Operation op("avg_pool2d_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dx = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in);
        const Pool2dShape shape = build_shape(op, "out", dx, geometry);
        op.expect_shape("dy", dy.shape, result_shape(shape), "the result of this pooling");
        op.run(work(shape), [&] {
            kernels<T>().avg_pool2d_backward({dx.data, dy.data, shape, count_include_pad});
        });
    });
}

}  // namespace

void bind_pool2d(py::module_& m) {
    m.def(
        "max_pool2d_forward", &max_forward, py::arg("out"), py::arg("positions"), py::arg("x"),
        py::arg("geometry"),
        "out, positions (N, C, OH, OW) = maximum of each window of x (N, C, H, W), place i * kernel_w + j of "
        "the first one in its window: uint8, but int32 where a window has more than 256 elements; geometry = "
        "(kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, "
        "dilation_w, ceil_mode)");
    m.def("max_pool2d_backward", &max_backward, py::arg("out"), py::arg("dy"), py::arg("positions"),
          py::arg("geometry"), "out (N, C, H, W) = dy (N, C, OH, OW) added up at positions, zero elsewhere");
    m.def("max_pool2d_gather", &max_gather, py::arg("out"), py::arg("x"), py::arg("positions"),
          py::arg("geometry"), "out (N, C, OH, OW) = x (N, C, H, W) at positions");
    m.def("avg_pool2d_forward", &avg_forward, py::arg("out"), py::arg("x"), py::arg("geometry"),
          py::arg("count_include_pad"), "out (N, C, OH, OW) = mean of each window of x (N, C, H, W)");
    m.def("avg_pool2d_backward", &avg_backward, py::arg("out"), py::arg("dy"), py::arg("geometry"),
          py::arg("count_include_pad"),
          "out (N, C, H, W) = the adjoint of the mean, applied to dy (N, C, OH, OW)");
}

}  // namespace tinygrad_nm
