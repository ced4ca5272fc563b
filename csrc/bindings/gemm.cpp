#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

// Views (M, N) as a batch of one.
template <class T>
void to_batch(const Operation& op, const char* argument, Array<T>& a) {
    if (a.ndim() == 2) {
        a.shape.push_front(1);
        a.strides.push_front(0);
    }
    op.expect_ndim(argument, a.shape, 3, "(batch, rows, columns), or 2");
}

template <class T>
int64_t batch_stride(const Operation& op, const char* argument, const Array<T>& a, int64_t batch) {
    if (a.shape[0] == 1) return 0;
    if (a.shape[0] != batch)
        op.value_error(std::string(argument) + " has shape " + shape_text(a.shape) + ", a batch of " +
                       std::to_string(a.shape[0]) + ", but out has a batch of " + std::to_string(batch));
    return a.strides[0];
}

template <class T>
void run_gemm(Operation& op, py::handle out, py::handle a_in, py::handle b_in, double alpha, double beta,
              py::handle bias_in, std::string_view activation, double parameter) {
    Array<T> c = beta == 0 ? op.output<T>("out", out) : op.update<T>("out", out);
    Array<const T> a = op.strided_input<T>("a", a_in), b = op.strided_input<T>("b", b_in);
    to_batch(op, "out", c);
    to_batch(op, "a", a);
    to_batch(op, "b", b);
    if (a.shape[2] != b.shape[1])
        op.value_error("a has shape " + shape_text(a.shape) + " and b " + shape_text(b.shape) +
                       ", but the columns of a must be as many as the rows of b");
    const int64_t batch = c.shape[0], m = a.shape[1], n = b.shape[2], k = a.shape[2];
    op.expect_shape("out", c.shape, {batch, m, n}, "the rows of a and the columns of b");
    Gemm<T> g{.batch = batch,
              .m = m,
              .n = n,
              .k = k,
              .a = {a.data, a.strides[1], a.strides[2]},
              .a_batch_stride = batch_stride(op, "a", a, batch),
              .b = {b.data, b.strides[1], b.strides[2]},
              .b_batch_stride = batch_stride(op, "b", b, batch),
              .c = {c.data, n, 1},
              .c_batch_stride = m * n,
              .alpha = T(alpha),
              .beta = T(beta),
              .epilogue = {.activation = op.activation(activation, parameter), .parameter = T(parameter)}};
    Array<const T> bias;
    if (!bias_in.is_none()) {
        bias = op.input<T>("bias", bias_in);
        op.expect_shape("bias", bias.shape, {n}, "one for each column");
        g.epilogue.bias = bias.data;
    }
    op.run(2.0 * double(batch) * double(m) * double(n) * double(k + 1), [&] { kernels<T>().gemm(g); });
}

void gemm(py::handle out, py::handle a, py::handle b, double alpha, double beta, py::handle bias,
          std::string_view activation, double parameter) {
    Operation op("gemm");
    op.by_dtype(out,
                [&]<class T>() { run_gemm<T>(op, out, a, b, alpha, beta, bias, activation, parameter); });
}

}  // namespace

void bind_gemm(py::module_& m) {
    m.def("gemm", &gemm, py::arg("out"), py::arg("a"), py::arg("b"), py::arg("alpha") = 1.0,
          py::arg("beta") = 0.0, py::arg("bias") = py::none(), py::arg("activation") = "identity",
          py::arg("parameter") = 0.0, "out = activation(alpha a b + beta out + bias)");
}

}  // namespace tinygrad_nm
