// Activations of numbers in registers.
#pragma once
#include "cuda/launch.cuh"
#include "shared/activation.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// values = activation(values). They pass in fours through the first place, and a full round brings them back
// to their own: so the code of each formula stands there for four numbers only, and none is indexed by a
// variable, which registers cannot be. What is short and frequent goes without the round.
template <class T, int count>
__device__ __forceinline__ void activate(T (&values)[count], Activation kind, T parameter) {
    constexpr int group = count < 4 ? count : 4;
    static_assert(count % group == 0);
    if (kind == Activation::identity) return;
    if (kind == Activation::relu) {
#pragma unroll
        for (int i = 0; i < count; ++i) values[i] = Relu::forward(values[i], parameter);
        return;
    }
#pragma unroll 1
    for (int round = 0; round < count; round += group) {
        T first[group];
#pragma unroll
        for (int i = 0; i < group; ++i) first[i] = values[i];
        with_activation(kind, [&](auto formula) {
#pragma unroll
            for (int i = 0; i < group; ++i) first[i] = formula.forward(first[i], parameter);
        });
#pragma unroll
        for (int i = 0; i + group < count; ++i) values[i] = values[i + group];
#pragma unroll
        for (int i = 0; i < group; ++i) values[count - group + i] = first[i];
    }
}

// Of a tile of numbers.
template <class T, int rows, int columns>
__device__ __forceinline__ void activate(T (&values)[rows][columns], Activation kind, T parameter) {
    activate(reinterpret_cast<T(&)[rows * columns]>(values), kind, parameter);
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
