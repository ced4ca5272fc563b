// Softmax and cross-entropy with class indices, at every position.
//
// logits (examples, classes, positions), labels and loss (examples, positions), out of backward like logits.
//   forward:   out = log(sum over c of exp(x[c])) - x[label]                    0 where label == ignore_index
//   backward:  out[c] = dloss (exp(x[c]) / sum over j of exp(x[j]) - [c == label])    0 where it is ignored
// The largest logit m is taken out: with t logits equal to m and r the sum of exp(x - m) over the others, the
// loss is log1p(t - 1 + r) + m - x[label], which keeps its digits when the network is sure. A NaN or an
// infinite largest logit makes the loss NaN.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct SoftmaxCrossEntropy {
    T* out;
    const T* dloss;  // backward only
    const T* logits;
    const int64_t* labels;
    int64_t examples, classes, positions;
    int64_t ignore_index;
};

// Throws std::out_of_range, naming value, position and number of classes, unless each label is in [0,
// classes) or ignore_index.
void check_labels(const char* operation, const int64_t* labels, int64_t examples, int64_t positions,
                  int64_t classes, int64_t ignore_index);

// The kernel of the instruction set in use, on the CPU after check_labels. On a device, where to look at the
// labels would be to wait for them, the loss and the gradient of a label that is no class are NaN.
template <class T>
void softmax_cross_entropy_forward(const SoftmaxCrossEntropy<T>& a);
template <class T>
void softmax_cross_entropy_backward(const SoftmaxCrossEntropy<T>& a);

}  // namespace tinygrad_nm
