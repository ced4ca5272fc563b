// Teams: the threads of a block that work on one row and put together what each of them found, always in the
// same order, whatever runs first. A block of Team::threads holds Team::rows teams of Team::lanes threads.
//
//   combine(value, op)   op over the values of the team, for each of its threads; all threads of the block
//   call it
#pragma once
#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

struct Sum {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return a + b;
    }
};
// Of the two the larger, or the first where one is NaN.
struct Larger {
    template <class T>
    __device__ __forceinline__ T operator()(T a, T b) const {
        return b > a ? b : a;
    }
};

// `lanes` neighbours in a warp: 1, 2, 4 ... 32.
template <int lanes_>
struct WarpTeam {
    static constexpr int lanes = lanes_, threads = 128, rows = threads / lanes;
    static __device__ __forceinline__ int row() { return int(threadIdx.x) / lanes; }
    static __device__ __forceinline__ int lane() { return int(threadIdx.x) % lanes; }

    template <class T, class Op>
    static __device__ __forceinline__ T combine(T value, Op op) {
#pragma unroll
        for (int away = lanes / 2; away > 0; away /= 2)
            value = op(value, __shfl_xor_sync(0xffffffffu, value, away));
        return value;
    }
};

// A whole block: a multiple of 32 threads.
template <int lanes_>
struct BlockTeam {
    static constexpr int lanes = lanes_, threads = lanes, rows = 1;
    static __device__ __forceinline__ int row() { return 0; }
    static __device__ __forceinline__ int lane() { return int(threadIdx.x); }

    template <class T, class Op>
    static __device__ __forceinline__ T combine(T value, Op op) {
        constexpr int warps = lanes / 32;
        SHARED(T, of_warps, [warps]);
        value = WarpTeam<32>::combine(value, op);
        __syncthreads();  // what the last call left there has been read
        if (lane() % 32 == 0) of_warps[lane() / 32] = value;
        __syncthreads();
        value = of_warps[0];
#pragma unroll
        for (int w = 1; w < warps; ++w) value = op(value, of_warps[w]);
        return value;
    }
};

// Neighbouring threads have neighbouring rows; a team's threads lie `rows` apart.
template <int rows_, int lanes_>
struct ColumnTeam {
    static constexpr int rows = rows_, lanes = lanes_, threads = rows * lanes;
    static __device__ __forceinline__ int row() { return int(threadIdx.x) % rows; }
    static __device__ __forceinline__ int lane() { return int(threadIdx.x) / rows; }

    template <class T, class Op>
    static __device__ __forceinline__ T combine(T value, Op op) {
        if constexpr (lanes > 1) {
            SHARED(T, of_lanes, [lanes][rows]);
            __syncthreads();  // what the last call left there has been read
            of_lanes[lane()][row()] = value;
            __syncthreads();
            value = of_lanes[0][row()];
#pragma unroll
            for (int l = 1; l < lanes; ++l) value = op(value, of_lanes[l][row()]);
        }
        return value;
    }
};

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
