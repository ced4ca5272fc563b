#include "bindings/arguments.h"

namespace tinygrad_nm {
namespace {

// Strides that step whole elements, as the kernels count them.
bool whole_steps(const RawArray& a) {
    const int64_t size = a.element_size();
    for (int i = 0; i < a.ndim(); ++i)
        if (a.step(i) % size != 0) return false;
    return true;
}

bool share_memory(const RawArray& a, const RawArray& b) {
    const Extent x = extent(a), y = extent(b);
    if (x.last <= y.first || y.last <= x.first || x.empty() || y.empty()) return false;
    return RawArray::share_memory(a, b);
}

}  // namespace

std::string shape_text(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text.append(i ? ", " : "").append(std::to_string(shape[i]));
    return text + (shape.size() == 1 ? ",)" : ")");
}

void Operation::value_error(const std::string& text) const {
    throw_value_error(name_, text);
}
void Operation::type_error(const std::string& text) const {
    throw_type_error(name_, text);
}

void Operation::wrong_shape(const char* argument, const Shape& shape, const Shape& expected,
                            const std::string& why) const {
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                shape_text(expected) + (why.empty() ? "" : ", " + why));
}

void Operation::expect_ndim(const char* argument, const Shape& shape, int ndim, const char* names) const {
    if (int(shape.size()) == ndim) return;
    value_error(std::string(argument) + " has shape " + shape_text(shape) + ", but must have " +
                std::to_string(ndim) + " dimensions " + names);
}

Activation Operation::activation(std::string_view name, double parameter) const {
    for (const ActivationName& a : activation_names) {
        if (name != a.name) continue;
        // within float32, as its reciprocal is, so that no formula makes NaN of it
        if (a.has_parameter && !(parameter >= 1e-30 && parameter <= 1e30))
            value_error("the parameter of " + std::string(name) +
                        " must be positive and finite, from 1e-30 to 1e30, not " +
                        py::cast<std::string>(py::str(py::float_(parameter))));
        return a.kind;
    }
    std::string known;
    for (const ActivationName& a : activation_names) known += std::string(known.empty() ? "" : ", ") + a.name;
    value_error("unknown activation '" + std::string(name) + "', use one of " + known);
}

bool Operation::out_is_double(py::handle out) {
    const RawArray array(name_, "out", out);
    if constexpr (RawArray::slow_to_read) by_dtype_of_ = array;
    if (array.has<double>()) return true;
    if (array.has<float>()) return false;
    type_error("out has dtype " + array.dtype_text() + ", use float32 or float64");
}

void Operation::wrong_dtype(const char* argument, const RawArray& array, const char* expected) const {
    type_error(std::string(argument) + " has dtype " + array.dtype_text() + ", but must have " + expected +
               ", convert it with .astype");
}

void Operation::check_writeable(const char* argument, const RawArray& array) const {
    const std::string allocate = std::string("allocate it with ") + RawArray::library + ".empty";
    const auto refuse = [&](const char* what, const std::string& mend) {
        value_error(std::string(argument) + " is not " + what + ", " + mend);
    };
    if (!array.native()) refuse("in the processor's byte order", allocate);
    if (!array.writeable()) refuse("writeable", "pass a copy of it");
    if (!array.contiguous()) refuse("C-contiguous", allocate);
    if (!array.aligned()) refuse("aligned to its element size", allocate);
}

bool Operation::usable(const RawArray& array, bool contiguous) {
    return (contiguous ? array.contiguous() : whole_steps(array)) && array.aligned() && array.native();
}

void Operation::not_usable(const char* argument, const RawArray& array, bool contiguous) const {
    if (!array.native())
        value_error(std::string(argument) + " is not in the processor's byte order, convert it with .astype");
    const bool at_fault = contiguous && !array.contiguous();
    value_error(std::string(argument) +
                (at_fault ? " is not C-contiguous" : " has elements that are not aligned to their size") +
                ", make it so with " + RawArray::library + ".ascontiguousarray");
}

void Operation::check_overlap() const {
    for (size_t o = 0; o < output_count_; ++o) {
        const auto refuse = [&](const Named& other) {
            if (share_memory(outputs_[o].array, other.array))
                value_error(std::string(outputs_[o].argument) + " overlaps " + other.argument +
                            " in memory, allocate a new array for it");
        };
        for (size_t p = o + 1; p < output_count_; ++p) refuse(outputs_[p]);
        for (size_t i = 0; i < input_count_; ++i) refuse(inputs_[i]);
    }
}

void Operation::show(KernelScope& scope) const {
    for (size_t i = 0; i < input_count_; ++i)
        scope.add(inputs_[i].argument, inputs_[i].array_read, inputs_[i].use);
    for (size_t i = 0; i < output_count_; ++i)
        scope.add(outputs_[i].argument, outputs_[i].array_read, outputs_[i].use);
}

}  // namespace tinygrad_nm
