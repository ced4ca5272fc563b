#include "bindings/arguments.h"
#include "bindings/bindings.h"
#include "shared/checked.h"

namespace tinygrad_nm {
namespace {

struct Window {
    int64_t size;
    double alpha, beta, k;
    bool divide_by_size;
    int64_t groups;
};

// The arguments without pointers; shape is that of out, (N, C, H, W) or any (N, C, ...).
template <class T>
LocalResponseNorm<T> checked_norm(const Operation& op, const Shape& shape, const Window& w) {
    if (shape.size() < 2)
        op.value_error("out has shape " + shape_text(shape) +
                       ", but must have at least 2 dimensions (N, C, ...)");
    if (w.size < 1)
        op.value_error("size is " + std::to_string(w.size) + ", use a positive number of channels");
    if (w.groups < 1 || shape[1] % w.groups != 0)
        op.value_error("groups is " + std::to_string(w.groups) + ", but must be positive and divide the " +
                       std::to_string(shape[1]) + " channels of shape " + shape_text(shape));
    int64_t plane = 1;
    for (size_t i = 2; i < shape.size(); ++i) plane = checked_product(op.name(), {plane, shape[i]});
    return {.out = nullptr,
            .dy = nullptr,
            .x = nullptr,
            .examples = shape[0],
            .channels = shape[1],
            .plane = plane,
            .size = w.size,
            .groups = w.groups,
            .alpha = w.divide_by_size ? w.alpha / double(w.size) : w.alpha,
            .beta = w.beta,
            .k = w.k};
}

double work(int64_t numbers, const Window& w) {
    return double(numbers) * (double(w.size) + 10);
}

void local_response_norm_forward(py::handle out, py::handle x_in, int64_t size, double alpha, double beta,
                                 double k, bool divide_by_size, int64_t groups) {
    Operation op("local_response_norm_forward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        op.expect_shape("out", y.shape, x.shape, "the shape of x");
        const Window window{size, alpha, beta, k, divide_by_size, groups};
        LocalResponseNorm<T> a = checked_norm<T>(op, y.shape, window);
        a.out = y.data;
        a.x = x.data;
        op.run(work(y.size, window), [&] { kernels<T>().local_response_norm_forward(a); });
    });
}

void local_response_norm_backward(py::handle out, py::handle dy_in, py::handle x_in, int64_t size,
                                  double alpha, double beta, double k, bool divide_by_size, int64_t groups) {
    Operation op("local_response_norm_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dx = op.output<T>("out", out);
        const Array<const T> dy = op.input<T>("dy", dy_in), x = op.input<T>("x", x_in);
        op.expect_shape("dy", dy.shape, dx.shape, "the shape of out");
        op.expect_shape("x", x.shape, dx.shape, "the shape of out");
        const Window window{size, alpha, beta, k, divide_by_size, groups};
        LocalResponseNorm<T> a = checked_norm<T>(op, dx.shape, window);
        a.out = dx.data;
        a.dy = dy.data;
        a.x = x.data;
        op.run(2 * work(dx.size, window), [&] { kernels<T>().local_response_norm_backward(a); });
    });
}

}  // namespace

void bind_normalisation(py::module_& m) {
    m.def("local_response_norm_forward", &local_response_norm_forward, py::arg("out"), py::arg("x"),
          py::arg("size"), py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("divide_by_size"),
          py::arg("groups"),
          "out = x (k + alpha sum of x^2 over `size` channels of the group)^-beta; alpha / size if "
          "divide_by_size");
    m.def("local_response_norm_backward", &local_response_norm_backward, py::arg("out"), py::arg("dy"),
          py::arg("x"), py::arg("size"), py::arg("alpha"), py::arg("beta"), py::arg("k"),
          py::arg("divide_by_size"), py::arg("groups"),
          "The gradient of local_response_norm_forward with respect to x.");
}

}  // namespace tinygrad_nm
