#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

// The arguments but for the results, from logits (N, C, S) and labels (N, S).
template <class T>
SoftmaxCrossEntropy<T> checked_loss(const Operation& op, const Array<const T>& logits,
                                    const Array<const int64_t>& labels, int64_t ignore_index) {
    op.expect_ndim("logits", logits.shape, 3, "(N, C, S)");
    const Shape expected{logits.shape[0], logits.shape[2]};
    if (!(labels.shape == expected))
        op.wrong_shape("labels", labels.shape, expected, "the (N, S) of logits " + shape_text(logits.shape));
    return {.out = nullptr,
            .dloss = nullptr,
            .logits = logits.data,
            .labels = labels.data,
            .examples = logits.shape[0],
            .classes = logits.shape[1],
            .positions = logits.shape[2],
            .ignore_index = ignore_index};
}

void cross_entropy_forward(py::handle out, py::handle logits_in, py::handle labels_in, int64_t ignore_index) {
    Operation op("softmax_cross_entropy_forward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> loss = op.output<T>("out", out);
        const Array<const T> logits = op.input<T>("logits", logits_in);
        const Array<const int64_t> labels = op.input<int64_t>("labels", labels_in);
        SoftmaxCrossEntropy<T> a = checked_loss<T>(op, logits, labels, ignore_index);
        op.expect_shape("out", loss.shape, labels.shape, "the shape of labels");
        a.out = loss.data;
        op.run(20.0 * double(logits.size), [&] { softmax_cross_entropy_forward(a); });
    });
}

void cross_entropy_backward(py::handle out, py::handle dloss_in, py::handle logits_in, py::handle labels_in,
                            int64_t ignore_index) {
    Operation op("softmax_cross_entropy_backward");
    op.by_dtype(out, [&]<class T>() {
        const Array<T> dlogits = op.output<T>("out", out);
        const Array<const T> dloss = op.input<T>("dloss", dloss_in),
                             logits = op.input<T>("logits", logits_in);
        const Array<const int64_t> labels = op.input<int64_t>("labels", labels_in);
        SoftmaxCrossEntropy<T> a = checked_loss<T>(op, logits, labels, ignore_index);
        op.expect_shape("out", dlogits.shape, logits.shape, "the shape of logits");
        op.expect_shape("dloss", dloss.shape, labels.shape, "the shape of labels");
        a.out = dlogits.data;
        a.dloss = dloss.data;
        op.run(40.0 * double(logits.size), [&] { softmax_cross_entropy_backward(a); });
    });
}

}  // namespace

void bind_loss(py::module_& m) {
    m.def("softmax_cross_entropy_forward", &cross_entropy_forward, py::arg("out"), py::arg("logits"),
          py::arg("labels"), py::arg("ignore_index"),
          "out (N, S) = logsumexp over C of logits (N, C, S) - logit of the label; 0 where the label (N, S), "
          "int64, is "
          "ignore_index. IndexError for a label that is not a class.");
    m.def("softmax_cross_entropy_backward", &cross_entropy_backward, py::arg("out"), py::arg("dloss"),
          py::arg("logits"), py::arg("labels"), py::arg("ignore_index"),
          "out (N, C, S) = dloss (softmax of logits - one at the label)");
}

}  // namespace tinygrad_nm
