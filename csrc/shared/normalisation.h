// Local response normalisation across channels: Krizhevsky, Sutskever and Hinton 2012, section 3.3.
//
// x, dy, out (examples, channels, plane), plane = H * W. With W(c) the channels from c - size / 2 to
// c + (size - 1) / 2 that lie in the group of c (each group is channels / groups consecutive channels):
//   d[c]   = k + alpha * sum over j in W(c) of x[j]^2
//   forward:   out[c] = x[c] d[c]^-beta
//   backward:  out[i] = dy[i] d[i]^-beta - 2 alpha beta x[i] * sum over {c : i in W(c)} of dy[c] x[c]
//   d[c]^(-beta-1)
// The paper has alpha as it is; PyTorch, ONNX and Caffe divide it by size: the caller does so.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct LocalResponseNorm {
    T* out;
    const T* dy;  // backward only
    const T* x;
    int64_t examples, channels, plane;
    int64_t size, groups;  // both positive; groups divides channels
    double alpha, beta, k;
};

}  // namespace tinygrad_nm
