// C = activation(alpha A B + beta C + bias), for a batch of matrices of any strides.
#pragma once
#include <cstdint>

#include "shared/activation.h"

namespace tinygrad_nm {

// Element (i, j) is data[i * row_stride + j * column_stride]; strides count elements, may be 0 or negative
// (not for a result), so there are no transpose flags.
template <class T>
struct Matrix {
    T* data;
    int64_t row_stride, column_stride;
};

enum class BiasAxis {
    columns,
    rows
};  // bias[j], as in a fully connected layer, or bias[i], in a convolution

// What happens to an element of C after its last addition, while its tile is in cache.
template <class T>
struct Epilogue {
    const T* bias = nullptr;  // contiguous; null: none
    BiasAxis bias_axis = BiasAxis::columns;
    Activation activation = Activation::identity;
    T parameter = 0;
};

template <class T>
struct Gemm {
    int64_t batch, m, n, k;
    Matrix<const T> a;  // m x k
    int64_t a_batch_stride = 0;
    Matrix<const T> b;  // k x n
    int64_t b_batch_stride = 0;
    Matrix<T> c;  // m x n; overlaps neither a nor b
    int64_t c_batch_stride = 0;
    T alpha = 1;
    T beta = 0;  // 0: C is never read
    Epilogue<T> epilogue = {};
};

}  // namespace tinygrad_nm
