#include "shared/loss.h"

#include <stdexcept>
#include <string>

#include "shared/dispatch.h"

namespace tinygrad_nm {

void check_labels(const char* operation, const int64_t* labels, int64_t examples, int64_t positions,
                  int64_t classes, int64_t ignore_index) {
    for (int64_t n = 0; n < examples; ++n)
        for (int64_t s = 0; s < positions; ++s) {
            const int64_t label = labels[n * positions + s];
            if ((label >= 0 && label < classes) || label == ignore_index) continue;
            throw std::out_of_range(std::string(operation) + ": label " + std::to_string(label) +
                                    " at example " + std::to_string(n) + ", position " + std::to_string(s) +
                                    " is out of range for " + std::to_string(classes) +
                                    " classes (ignore_index is " + std::to_string(ignore_index) + ")");
        }
}

template <class T>
static void check_host_labels(const char* operation, const SoftmaxCrossEntropy<T>& a) {
    if (current_isa().on_host)
        check_labels(operation, a.labels, a.examples, a.positions, a.classes, a.ignore_index);
}

template <class T>
void softmax_cross_entropy_forward(const SoftmaxCrossEntropy<T>& a) {
    check_host_labels("softmax_cross_entropy_forward", a);
    kernels<T>().softmax_cross_entropy_forward(a);
}

template <class T>
void softmax_cross_entropy_backward(const SoftmaxCrossEntropy<T>& a) {
    check_host_labels("softmax_cross_entropy_backward", a);
    kernels<T>().softmax_cross_entropy_backward(a);
}

template void softmax_cross_entropy_forward<float>(const SoftmaxCrossEntropy<float>&);
template void softmax_cross_entropy_forward<double>(const SoftmaxCrossEntropy<double>&);
template void softmax_cross_entropy_backward<float>(const SoftmaxCrossEntropy<float>&);
template void softmax_cross_entropy_backward<double>(const SoftmaxCrossEntropy<double>&);

}  // namespace tinygrad_nm
