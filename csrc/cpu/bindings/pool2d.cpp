#include "cpu/pool2d.h"

#include "cpu/bindings/arguments.h"
#include "cpu/bindings/bindings.h"

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

void max_forward(py::handle out, py::handle positions_out, py::handle x_in, const Geometry& geometry) {
    Operation op("max_pool2d");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<int32_t> positions = op.output<int32_t>("positions", positions_out);
        const Array<const T> x = op.input<T>("x", x_in);
        const Pool2dShape shape = build_shape(op, "x", x, geometry);
        check_positions_fit("max_pool2d", shape.height, shape.width);
        op.expect_shape("out", y.shape, result_shape(shape), "the result of this pooling");
        op.expect_shape("positions", positions.shape, result_shape(shape), "the result of this pooling");
        op.run(work(shape), [&] {
            kernels<T>().max_pool2d_forward({y.data, positions.data, x.data, shape});
        });
    });
}

// Planes of `large` (N, C, H, W) with positions in them, one for each element of `small` (N, C, OH, OW).
template <class T, class Large, class Small>
MaxPool2dAtPositions<T> at_positions(const Operation& op, const char* large_name, const Large& large,
                                     const char* small_name, const Small& small,
                                     const Array<const int32_t>& positions) {
    op.expect_ndim(large_name, large.shape, 4, "(N, C, H, W)");
    op.expect_ndim(small_name, small.shape, 4, "(N, C, OH, OW)");
    if (!(positions.shape == small.shape))
        op.wrong_shape("positions", positions.shape, small.shape,
                       std::string("one for each element of ") + small_name);
    if (large.shape[0] != small.shape[0] || large.shape[1] != small.shape[1])
        op.value_error(std::string(large_name) + " has shape " + shape_text(large.shape) + " and " +
                       small_name + " has shape " + shape_text(small.shape) +
                       ", but batch and channels must be the same");
    check_positions_fit(op.name(), large.shape[2], large.shape[3]);
    return {nullptr,
            nullptr,
            positions.data,
            large.shape[0] * large.shape[1],
            large.shape[2] * large.shape[3],
            small.shape[2] * small.shape[3]};
}

// Runs one of the two kernels; elements: how many it reads or writes.
template <class T>
void run_at_positions(const Operation& op, bool (*kernel)(const MaxPool2dAtPositions<T>&),
                      const MaxPool2dAtPositions<T>& arguments) {
    bool inside = true;
    op.run(double(arguments.planes) * double(arguments.plane + 2 * arguments.out_plane),
           [&] { inside = kernel(arguments); });
    if (!inside)
        op.value_error("positions has an element outside of the plane, pass those of max_pool2d_forward");
}

void max_backward(py::handle out, py::handle dy_in, py::handle positions_in) {
    Operation op("max_pool2d_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dx = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in);
        const Array<const int32_t> positions = op.input<int32_t>("positions", positions_in);
        MaxPool2dAtPositions<T> arguments = at_positions<T>(op, "out", dx, "dy", dy, positions);
        arguments.out = dx.data;
        arguments.in = dy.data;
        run_at_positions<T>(op, kernels<T>().max_pool2d_backward, arguments);
    });
}

void max_gather(py::handle out, py::handle x_in, py::handle positions_in) {
    Operation op("max_pool2d_gather");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        const Array<const int32_t> positions = op.input<int32_t>("positions", positions_in);
        MaxPool2dAtPositions<T> arguments = at_positions<T>(op, "x", x, "out", y, positions);
        arguments.out = y.data;
        arguments.in = x.data;
        run_at_positions<T>(op, kernels<T>().max_pool2d_gather, arguments);
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
    m.def("max_pool2d_forward", &max_forward, py::arg("out"), py::arg("positions"), py::arg("x"),
          py::arg("geometry"),
          "out, positions (int32) (N, C, OH, OW) = maximum of each window of x (N, C, H, W), index of the "
          "first one in "
          "its plane; geometry = (kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, "
          "pad_right, "
          "dilation_h, dilation_w, ceil_mode)");
    m.def("max_pool2d_backward", &max_backward, py::arg("out"), py::arg("dy"), py::arg("positions"),
          "out (N, C, H, W) = dy (N, C, OH, OW) added up at positions, zero elsewhere");
    m.def("max_pool2d_gather", &max_gather, py::arg("out"), py::arg("x"), py::arg("positions"),
          "out (N, C, OH, OW) = x (N, C, H, W) at positions");
    m.def("avg_pool2d_forward", &avg_forward, py::arg("out"), py::arg("x"), py::arg("geometry"),
          py::arg("count_include_pad"), "out (N, C, OH, OW) = mean of each window of x (N, C, H, W)");
    m.def("avg_pool2d_backward", &avg_backward, py::arg("out"), py::arg("dy"), py::arg("geometry"),
          py::arg("count_include_pad"),
          "out (N, C, H, W) = the adjoint of the mean, applied to dy (N, C, OH, OW)");
}

}  // namespace tinygrad_nm
