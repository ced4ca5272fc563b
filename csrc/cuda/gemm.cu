// C = activation(alpha A B + beta C + bias); shapes and strides in shared/gemm.h.
#include "cuda/kernels.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// panel[q][x] = data[(x0 + x) step_x + (p + q) step_p]. Neighbouring threads read neighbours.
template <class T, int width, int threads>
struct MatrixLoader {
    const T* data;
    int64_t step_x, step_p, x0, x_end, p_end;

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) const {
#pragma unroll
        for (int i = 0; i < width * depth / threads; ++i) {
            const int e = int(threadIdx.x) + i * threads;
            const int q = step_p == 1 ? e % depth : e / width, x = step_p == 1 ? e / depth : e % width;
            if (x0 + x < x_end && p + q < p_end)
                copy_number(&panel[q][x], data + (x0 + x) * step_x + (p + q) * step_p);
            else
                panel[q][x] = T(0);
        }
    }
};

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::threads, 2) gemm_tiles(const Gemm<T> g) {
    const int64_t i0 = int64_t(blockIdx.x) * Tile::rows, j0 = int64_t(blockIdx.y) * Tile::columns, batch = blockIdx.z;
    MatrixLoader<T, Tile::rows, Tile::threads> a{g.a.data + batch * g.a_batch_stride, g.a.row_stride,
                                                 g.a.column_stride, i0, g.m, g.k};
    MatrixLoader<T, Tile::columns, Tile::threads> b{g.b.data + batch * g.b_batch_stride, g.b.column_stride,
                                                    g.b.row_stride, j0, g.n, g.k};
    T acc[Tile::thread_rows][Tile::thread_columns] = {};
    multiply_tile<T, Tile>(acc, a, b, 0, g.k);
    T* const c = g.c.data + batch * g.c_batch_stride;
#pragma unroll
    for (int i = 0; i < Tile::thread_rows; ++i)
#pragma unroll
        for (int j = 0; j < Tile::thread_columns; ++j) {
            const int64_t row = i0 + Tile::row(i), column = j0 + Tile::column(j);
            if (row >= g.m || column >= g.n) continue;
            T* const to = c + row * g.c.row_stride + column * g.c.column_stride;
            T value = g.alpha * acc[i][j];
            if (g.beta != 0) value = fma(g.beta, *to, value);
            if (g.epilogue.bias) value += g.epilogue.bias[g.epilogue.bias_axis == BiasAxis::rows ? row : column];
            *to = value;
        }
}

template <class T, class Tile>
void run(const Gemm<T>& g) {
    const dim3 grid(unsigned((g.m + Tile::rows - 1) / Tile::rows), unsigned((g.n + Tile::columns - 1) / Tile::columns),
                    unsigned(g.batch));
    LAUNCH((gemm_tiles<T, Tile>), grid, Tile::threads, 0, g);
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& g) {
    if (g.m >= 128 && g.n >= 128)
        run<T, ProductTile<128, 128, 8, 8, 8>>(g);
    else
        run<T, ProductTile<32, 64, 16, 4, 4>>(g);
}
template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
