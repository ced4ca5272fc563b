// The inner loop of every product: a block's tile of C in registers, summed over panels in shared memory.
//
//   acc[i][j] += sum over p in [p_begin, p_end) of A(i, p) B(p, j)
//
// A loader brings a panel of A or B. It is any object with
//   template <int depth, int pitch> __device__ void load(T (&panel)[depth][pitch], int64_t p)
// which writes panel[q][x] = the operand's element (x, p + q) for q < depth and all x of the tile, zero beyond the ends,
// by all threads of the block, with copy_number / copy_bytes or plain stores. There are two panels of each operand, so
// that the next ones arrive while these are multiplied.
#pragma once
#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

template <int rows_, int columns_, int depth_, int thread_rows_, int thread_columns_>
struct ProductTile {
    static constexpr int rows = rows_, columns = columns_, depth = depth_;
    static constexpr int thread_rows = thread_rows_, thread_columns = thread_columns_;  // of one thread, in fours
    static constexpr int across = columns / thread_columns, threads = rows / thread_rows * across;
    static constexpr int pad = 4, a_pitch = rows + pad, b_pitch = columns + pad;

    // The row (column) in the tile of a thread's i-th row (j-th column).
    static __device__ __forceinline__ int row(int i) {
        return int(threadIdx.x) / across * 4 + i / 4 * (rows * 4 / thread_rows) + i % 4;
    }
    static __device__ __forceinline__ int column(int j) {
        return int(threadIdx.x) % across * 4 + j / 4 * (columns * 4 / thread_columns) + j % 4;
    }
};

// Four numbers at once, at a multiple of four: one load of 16 bytes, or two.
template <class T>
struct alignas(16) Four {
    T v[4];
};

template <class T, class Tile, class LoadA, class LoadB>
__device__ __forceinline__ void multiply_tile(T (&acc)[Tile::thread_rows][Tile::thread_columns], LoadA& a, LoadB& b,
                                              int64_t p_begin, int64_t p_end) {
    constexpr int tr = Tile::thread_rows, tc = Tile::thread_columns, depth = Tile::depth;
    SHARED(T, a_panels, [2][depth][Tile::a_pitch]);
    SHARED(T, b_panels, [2][depth][Tile::b_pitch]);
    if (p_begin >= p_end) return;
    const auto load = [&](int64_t p, int at) {
        a.load(a_panels[at], p);
        b.load(b_panels[at], p);
        commit_copies();
    };
    load(p_begin, 0);
    int at = 0;
    for (int64_t p = p_begin; p < p_end; p += depth, at ^= 1) {
        if (p + depth < p_end) {
            load(p + depth, at ^ 1);
            wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < depth; ++q) {
            T x[tr], y[tc];
#pragma unroll
            for (int f = 0; f < tr; f += 4)
                *reinterpret_cast<Four<T>*>(x + f) = *reinterpret_cast<const Four<T>*>(&a_panels[at][q][Tile::row(f)]);
#pragma unroll
            for (int f = 0; f < tc; f += 4)
                *reinterpret_cast<Four<T>*>(y + f) =
                    *reinterpret_cast<const Four<T>*>(&b_panels[at][q][Tile::column(f)]);
#pragma unroll
            for (int i = 0; i < tr; ++i)
#pragma unroll
                for (int j = 0; j < tc; ++j) acc[i][j] = fma(x[i], y[j], acc[i][j]);
        }
        __syncthreads();
    }
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
