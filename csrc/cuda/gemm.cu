// C = activation(alpha A B + beta C + bias); shapes and strides in shared/gemm.h.
//
// A block computes a tile of C, rows x columns, in registers; panels of A and B of `depth` numbers of k lie in shared
// memory twice, so that the next ones arrive while these are multiplied.
#include "cuda/kernels.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

template <int rows_, int columns_, int depth_, int thread_rows_, int thread_columns_>
struct GemmTile {
    static constexpr int rows = rows_, columns = columns_, depth = depth_;
    static constexpr int thread_rows = thread_rows_, thread_columns = thread_columns_;  // of one thread, in fours
    static constexpr int across = columns / thread_columns, threads = rows / thread_rows * across;
};

// Four numbers at once, at a multiple of four.
template <class T>
struct alignas(sizeof(T) == 4 ? 16 : 16) Four {
    T v[4];
};

// panel[p][x] = data[(x0 + x) step_x + (p0 + p) step_p], zero beyond the ends. Neighbouring threads read neighbours.
template <class T, int width, int depth, int pitch, int threads>
__device__ __forceinline__ void load_panel(T (&panel)[depth][pitch], const T* data, int64_t step_x, int64_t step_p,
                                           int64_t x0, int64_t x_end, int64_t p0, int64_t p_end) {
#pragma unroll
    for (int i = 0; i < width * depth / threads; ++i) {
        const int e = int(threadIdx.x) + i * threads;
        const int p = step_p == 1 ? e % depth : e / width, x = step_p == 1 ? e / depth : e % width;
        if (x0 + x < x_end && p0 + p < p_end)
            copy_number(&panel[p][x], data + (x0 + x) * step_x + (p0 + p) * step_p);
        else
            panel[p][x] = T(0);
    }
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::threads, 2) gemm_tiles(const Gemm<T> g) {
    constexpr int rows = Tile::rows, columns = Tile::columns, depth = Tile::depth;
    constexpr int tr = Tile::thread_rows, tc = Tile::thread_columns, pad = 4;
    SHARED(T, a_panels, [2][depth][rows + pad]);
    SHARED(T, b_panels, [2][depth][columns + pad]);
    const int64_t i0 = int64_t(blockIdx.x) * rows, j0 = int64_t(blockIdx.y) * columns, batch = blockIdx.z;
    const T* const a = g.a.data + batch * g.a_batch_stride;
    const T* const b = g.b.data + batch * g.b_batch_stride;
    const int row = int(threadIdx.x) / Tile::across * 4, column = int(threadIdx.x) % Tile::across * 4;
    const auto load = [&](int64_t p, int at) {
        load_panel<T, rows, depth, rows + pad, Tile::threads>(a_panels[at], a, g.a.row_stride, g.a.column_stride, i0,
                                                              g.m, p, g.k);
        load_panel<T, columns, depth, columns + pad, Tile::threads>(b_panels[at], b, g.b.column_stride,
                                                                    g.b.row_stride, j0, g.n, p, g.k);
        commit_copies();
    };
    T acc[tr][tc] = {};
    load(0, 0);
    for (int64_t p = 0, at = 0; p < g.k; p += depth, at ^= 1) {
        if (p + depth < g.k) {
            load(p + depth, int(at) ^ 1);
            wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < depth; ++q) {
            T x[tr], y[tc];
#pragma unroll
            for (int f = 0; f < tr / 4; ++f)
                *reinterpret_cast<Four<T>*>(x + 4 * f) =
                    *reinterpret_cast<const Four<T>*>(&a_panels[at][q][row + f * (rows * 4 / tr)]);
#pragma unroll
            for (int f = 0; f < tc / 4; ++f)
                *reinterpret_cast<Four<T>*>(y + 4 * f) =
                    *reinterpret_cast<const Four<T>*>(&b_panels[at][q][column + f * (columns * 4 / tc)]);
#pragma unroll
            for (int i = 0; i < tr; ++i)
#pragma unroll
                for (int j = 0; j < tc; ++j) acc[i][j] = fma(x[i], y[j], acc[i][j]);
        }
        __syncthreads();
    }
    T* const c = g.c.data + batch * g.c_batch_stride;
#pragma unroll
    for (int i = 0; i < tr; ++i)
#pragma unroll
        for (int j = 0; j < tc; ++j) {
            const int64_t at_i = i0 + row + i / 4 * (rows * 4 / tr) + i % 4;
            const int64_t at_j = j0 + column + j / 4 * (columns * 4 / tc) + j % 4;
            if (at_i >= g.m || at_j >= g.n) continue;
            T* const to = c + at_i * g.c.row_stride + at_j * g.c.column_stride;
            T value = g.alpha * acc[i][j];
            if (g.beta != 0) value = fma(g.beta, *to, value);
            if (g.epilogue.bias)
                value = value + g.epilogue.bias[g.epilogue.bias_axis == BiasAxis::rows ? at_i : at_j];
            *to = value;
        }
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& g) {
    using Large = GemmTile<128, 128, 8, 8, 8>;
    using Small = GemmTile<32, 64, 16, 4, 4>;
    if (g.m >= 128 && g.n >= 128)
        return LAUNCH((gemm_tiles<T, Large>), dim3(unsigned((g.m + 127) / 128), unsigned((g.n + 127) / 128), unsigned(g.batch)),
               Large::threads, 0, g);
    LAUNCH((gemm_tiles<T, Small>), dim3(unsigned((g.m + 31) / 32), unsigned((g.n + 63) / 64), unsigned(g.batch)),
           Small::threads, 0, g);
}
template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
