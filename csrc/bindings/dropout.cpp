#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

void run_dropout(py::handle out, py::handle x_in, double p, uint64_t seed, uint64_t stream,
                 int64_t first_example) {
    Operation op("dropout");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> y = op.output<T>("out", out);
        const Array<const T> x = op.input<T>("x", x_in);
        op.expect_ndim("x", x.shape, 2, "(examples, elements)");
        op.expect_shape("out", y.shape, x.shape, "the shape of x");
        const Dropout<T> a{.out = y.data,
                           .x = x.data,
                           .examples = x.shape[0],
                           .elements = x.shape[1],
                           .p = p,
                           .seed = seed,
                           .stream = stream,
                           .first_example = first_example};
        op.run(20.0 * double(y.size), [&] { dropout(a); });
    });
}

}  // namespace

void bind_dropout(py::module_& m) {
    m.def("dropout", &run_dropout, py::arg("out"), py::arg("x"), py::arg("p"), py::arg("seed"),
          py::arg("stream"), py::arg("first_example"),
          "out = x / (1 - p) where the random bit of (seed, stream, example, element) keeps it, else 0");
}

}  // namespace tinygrad_nm
