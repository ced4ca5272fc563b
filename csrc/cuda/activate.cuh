// Activations of numbers in registers.
#pragma once
#include "cuda/launch.cuh"
#include "shared/activation.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// values = activation(values). The rows pass one after another through the first place, and a full round
// brings them back to their own: so the code of each formula stands there for one row only, and no row is
// indexed by a variable, which registers cannot be.
template <class T, int rows, int columns>
__device__ __forceinline__ void activate(T (&values)[rows][columns], Activation kind, T parameter) {
    if (kind == Activation::identity) return;
#pragma unroll 1
    for (int round = 0; round < rows; ++round) {
        T row[columns];
#pragma unroll
        for (int j = 0; j < columns; ++j) row[j] = values[0][j];
        with_activation(kind, [&](auto formula) {
#pragma unroll
            for (int j = 0; j < columns; ++j) row[j] = formula.forward(row[j], parameter);
        });
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int j = 0; j < columns; ++j)
                values[i][j] = i + 1 < rows ? values[i + 1 < rows ? i + 1 : 0][j] : row[j];
    }
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
