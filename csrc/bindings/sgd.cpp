#include "bindings/arguments.h"
#include "bindings/bindings.h"

namespace tinygrad_nm {
namespace {

struct Rule {
    double lr, momentum, weight_decay;
    bool nesterov, lr_in_velocity;
};

template <class T>
void run(Operation& op, py::handle weight_in, py::handle gradient_in, py::handle velocity_in,
         const Rule& rule) {
    const Array<T> weight = op.update<T>("weight", weight_in);
    const Array<const T> gradient = op.input<T>("gradient", gradient_in);
    op.expect_shape("gradient", gradient.shape, weight.shape, "the shape of weight");
    Array<T> velocity{};
    if (!velocity_in.is_none()) {
        velocity = op.update<T>("velocity", velocity_in);
        op.expect_shape("velocity", velocity.shape, weight.shape, "the shape of weight");
    } else if (rule.momentum != 0 || rule.nesterov) {
        op.value_error("velocity is None, but momentum is " + std::to_string(rule.momentum) +
                       (rule.nesterov ? " with nesterov" : "") + ", pass an array of zeros at first");
    }
    const SgdUpdate<T> a{.weight = weight.data,
                         .gradient = gradient.data,
                         .velocity = velocity.data,
                         .n = weight.size,
                         .lr = T(rule.lr),
                         .momentum = T(rule.momentum),
                         .weight_decay = T(rule.weight_decay),
                         .nesterov = rule.nesterov,
                         .lr_in_velocity = rule.lr_in_velocity};
    op.run(3.0 * double(sizeof(T)) * double(weight.size), [&] { kernels<T>().sgd_update(a); });
}

void sgd_update(py::handle weight, py::handle gradient, py::handle velocity, double lr, double momentum,
                double weight_decay, bool nesterov, bool lr_in_velocity) {
    Operation op("sgd_update");
    const Rule rule{lr, momentum, weight_decay, nesterov, lr_in_velocity};
    op.by_dtype(weight, [&]<class T>() { run<T>(op, weight, gradient, velocity, rule); });
}

}  // namespace

void bind_sgd(py::module_& m) {
    m.def("sgd_update", &sgd_update, py::arg("weight"), py::arg("gradient"), py::arg("velocity").none(true),
          py::arg("lr"), py::arg("momentum"), py::arg("weight_decay"), py::arg("nesterov"),
          py::arg("lr_in_velocity"),
          "One step of stochastic gradient descent on weight and velocity, in place; formulas in "
          "csrc/shared/sgd.h.");
}

}  // namespace tinygrad_nm
