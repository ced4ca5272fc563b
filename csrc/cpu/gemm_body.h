// Matrix multiplication in the manner of BLIS: five loops around a register tile, over packed panels.
//
// Interface for other kernels (conv2d packs patches of images instead of a matrix):
//
//   multiply_packed<T>(m, n, k, pack_a, pack_b, c, alpha, beta, epilogue)
//
// where pack_a and pack_b are any callables that write ONE panel:
//
//   pack_a(T* panel, int64_t i0, int rows, int64_t p0, int64_t kc)
//       panel[p * tile_rows + r] = A(i0 + r, p0 + p)        for 0 <= p < kc, 0 <= r < rows <= tile_rows
//   pack_b(T* panel, int64_t j0, int columns, int64_t p0, int64_t kc)
//       panel[p * tile_columns<T> + c] = B(p0 + p, j0 + c)  for 0 <= p < kc, 0 <= c < columns <= tile_columns<T>
//
// A panel is all of kc * tile_rows (tile_columns<T>) elements wide; what it holds beyond rows (columns) does not
// matter, and what lies behind it belongs to another panel, which another thread may be writing.
// i0 is a multiple of tile_rows and j0 of tile_columns<T>, both from 0; kc <= block_depth<T>. Packers are called
// from several threads at once. pack_matrix_a(Matrix) and pack_matrix_b(Matrix) are the packers of a matrix.
// C needs no particular strides, those with column_stride 1 are the fast ones.
// Work is cut by shape alone and k is never cut between threads, so that threads do not change bits.
#pragma once
#include "cpu/activation_body.h"
#include "cpu/arena.h"
#include "cpu/gemm.h"
#include "cpu/isa/vector.h"
#include "cpu/parallel.h"
#include "shared/checked.h"

namespace tinygrad_nm {
namespace {

constexpr int tile_rows = TINYGRAD_NM_TILE_ROWS;  // MR
constexpr int tile_vectors = 2;
template <class T>
constexpr int tile_columns = tile_vectors * Vec<T>::lanes;  // NR
template <class T>
constexpr int64_t block_depth = 1024 / sizeof(T);              // KC: a B panel stays in the first-level cache
constexpr int64_t block_rows = 168 / tile_rows * tile_rows;    // MC: MC x KC of A stay in the second level
constexpr int64_t block_columns = 4096;                        // NC: KC x NC of B stay in the third level
constexpr int64_t super_rows = 24 * block_rows;                // rows of A packed at a time
constexpr double task_work = 2e6;                              // operations of a task at least

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
// Cuts size into equal blocks of at most `most`, each a multiple of unit.
constexpr int64_t equal_block(int64_t size, int64_t most, int64_t unit) {
    const int64_t blocks = larger(1, divide_up(size, most));
    return larger(unit, divide_up(divide_up(size, blocks), unit) * unit);
}

template <class T>
using Accumulators = Vec<T>[tile_rows][tile_vectors];

// acc = the product of an A panel and a B panel.
template <class T>
TINYGRAD_NM_INLINE void multiply_panels(int64_t kc, const T* a, const T* b, Accumulators<T>& acc) {
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) acc[r][v] = Vec<T>::zero();
    for (int64_t p = 0; p < kc; ++p, a += tile_rows, b += tile_columns<T>) {
        Vec<T> column[tile_vectors];
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) column[v] = Vec<T>::load(b + v * Vec<T>::lanes);
#pragma GCC unroll 16
        for (int r = 0; r < tile_rows; ++r) {
            const Vec<T> x = Vec<T>::broadcast(a[r]);
#pragma GCC unroll 4
            for (int v = 0; v < tile_vectors; ++v) acc[r][v] = fma(x, column[v], acc[r][v]);
        }
    }
}

// Where a tile of C lies and what is to be done with it.
template <class T>
struct Tile {
    int64_t i0, j0;
    int rows, columns;
    T alpha, beta;
    const Epilogue<T>* epilogue;  // null unless this is the last block of k
};

// c = alpha acc + beta c, then the epilogue; c points to the tile, its columns are adjacent.
template <class T>
TINYGRAD_NM_INLINE void store_tile(const Accumulators<T>& acc, const Tile<T>& tile, T* c, int64_t row_stride) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> alpha = Vec<T>::broadcast(tile.alpha), beta = Vec<T>::broadcast(tile.beta);
    const T* bias = tile.epilogue ? tile.epilogue->bias : nullptr;
    const bool bias_of_rows = bias && tile.epilogue->bias_axis == BiasAxis::rows;
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r) {
        if (r >= tile.rows) continue;
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) {
            const int n = tile.columns - v * lanes < lanes ? tile.columns - v * lanes : lanes;
            if (n <= 0) continue;
            T* p = c + r * row_stride + v * lanes;
            Vec<T> x = alpha * acc[r][v];
            if (tile.beta != 0) x = fma(beta, n == lanes ? Vec<T>::load(p) : Vec<T>::load(p, n), x);
            if (bias_of_rows)
                x = x + Vec<T>::broadcast(bias[tile.i0 + r]);
            else if (bias)
                x = x + Vec<T>::load(bias + tile.j0 + v * lanes, n);
            if (n == lanes)
                x.store(p);
            else
                x.store(p, n);
        }
    }
    if (tile.epilogue && tile.epilogue->activation != Activation::identity)
        for (int r = 0; r < tile.rows; ++r)
            apply_activation<T>(tile.epilogue->activation, tile.epilogue->parameter, c + r * row_stride,
                                tile.columns);
}

// One register tile: for a C whose columns are not adjacent by way of a copy.
template <class T>
void compute_tile(int64_t kc, const T* a, const T* b, const Tile<T>& tile, const Matrix<T>& c) {
    Accumulators<T> acc;
    multiply_panels<T>(kc, a, b, acc);
    T* corner = c.data + tile.i0 * c.row_stride + tile.j0 * c.column_stride;
    if (c.column_stride == 1) {
        store_tile<T>(acc, tile, corner, c.row_stride);
        return;
    }
    T copy[tile_rows * tile_columns<T>];
    for (int r = 0; r < tile.rows; ++r)
        for (int j = 0; j < tile.columns; ++j)
            copy[r * tile_columns<T> + j] = tile.beta != 0 ? corner[r * c.row_stride + j * c.column_stride] : 0;
    store_tile<T>(acc, tile, copy, tile_columns<T>);
    for (int r = 0; r < tile.rows; ++r)
        for (int j = 0; j < tile.columns; ++j)
            corner[r * c.row_stride + j * c.column_stride] = copy[r * tile_columns<T> + j];
}

// panel[p * width + w] = source[w * across + p * along], 0 for used <= w < width.
template <class T, int width>
void pack_panel(T* panel, const T* source, int64_t across, int64_t along, int used, int64_t kc) {
    if (used == width && across == 1) {
        for (int64_t p = 0; p < kc; ++p) memcpy(panel + p * width, source + p * along, width * sizeof(T));
        return;
    }
    for (int64_t p = 0; p < kc; ++p, panel += width, source += along) {
        for (int w = 0; w < used; ++w) panel[w] = source[w * across];
        for (int w = used; w < width; ++w) panel[w] = 0;
    }
}

template <class T>
auto pack_matrix_a(Matrix<const T> a) {
    return [a](T* panel, int64_t i0, int rows, int64_t p0, int64_t kc) {
        pack_panel<T, tile_rows>(panel, a.data + i0 * a.row_stride + p0 * a.column_stride, a.row_stride,
                                 a.column_stride, rows, kc);
    };
}

template <class T>
auto pack_matrix_b(Matrix<const T> b) {
    return [b](T* panel, int64_t j0, int columns, int64_t p0, int64_t kc) {
        pack_panel<T, tile_columns<T>>(panel, b.data + p0 * b.row_stride + j0 * b.column_stride,
                                       b.column_stride, b.row_stride, columns, kc);
    };
}

// The five loops: blocks of columns (jc), of depth (pc), of rows (ic), then tiles (jr, ir). Panels of A and B
// are packed by all threads, then tasks of one row block times several column panels are computed.
template <class T, class PackA, class PackB>
void multiply_packed(int64_t m, int64_t n, int64_t k, const PackA& pack_a, const PackB& pack_b,
                     const Matrix<T>& c, T alpha, T beta, const Epilogue<T>& epilogue) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    if (m == 0 || n == 0) return;
    const int64_t depth = equal_block(k, block_depth<T>, 1), width = equal_block(n, block_columns, nr);
    const int64_t super = equal_block(m, super_rows, mr);
    Scratch a_memory(super * depth, sizeof(T)), b_memory(width * depth, sizeof(T));
    T* const a_panels = static_cast<T*>(a_memory.data);
    T* const b_panels = static_cast<T*>(b_memory.data);

    for (int64_t jc = 0; jc < n; jc += width) {
        const int64_t nc = smaller(width, n - jc), n_panels = divide_up(nc, nr);
        for (int64_t pc = 0; pc < larger(k, 1); pc += depth) {  // k = 0: one empty block writes C
            const int64_t kc = smaller(depth, k - pc);
            parallel_for(n_panels, double(nr * kc), [&](int64_t q) {
                const int columns = int(smaller(nr, nc - q * nr));
                pack_b(b_panels + q * nr * kc, jc + q * nr, columns, pc, kc);
            });
            for (int64_t sc = 0; sc < m; sc += super) {
                const int64_t sm = smaller(super, m - sc), m_panels = divide_up(sm, mr);
                parallel_for(m_panels, double(mr * kc), [&](int64_t q) {
                    const int rows = int(smaller(mr, sm - q * mr));
                    pack_a(a_panels + q * mr * kc, sc + q * mr, rows, pc, kc);
                });
                const int64_t mc = equal_block(sm, block_rows, mr) / mr;  // panels of A a task
                const double panel_work = 2.0 * double(mc * mr) * double(nr) * double(larger(kc, 1));
                const int64_t jn = smaller(n_panels, 1 + int64_t(task_work / panel_work));  // of B a task
                const int64_t row_blocks = divide_up(m_panels, mc), column_blocks = divide_up(n_panels, jn);
                parallel_for(row_blocks * column_blocks, panel_work * double(jn), [&](int64_t task) {
                    const int64_t ic = task % row_blocks * mc, jq = task / row_blocks * jn;
                    for (int64_t jr = jq; jr < smaller(jq + jn, n_panels); ++jr)
                        for (int64_t ir = ic; ir < smaller(ic + mc, m_panels); ++ir) {
                            const Tile<T> tile = {sc + ir * mr,
                                                  jc + jr * nr,
                                                  int(smaller(mr, sm - ir * mr)),
                                                  int(smaller(nr, nc - jr * nr)),
                                                  alpha,
                                                  pc == 0 ? beta : T(1),
                                                  pc + kc >= k ? &epilogue : nullptr};
                            compute_tile<T>(kc, a_panels + ir * mr * kc, b_panels + jr * nr * kc, tile, c);
                        }
                });
            }
        }
    }
}

template <class T>
void gemm(const Gemm<T>& g) {
    for (int64_t i = 0; i < g.batch; ++i) {
        Matrix<const T> a = g.a, b = g.b;
        Matrix<T> c = g.c;
        a.data += i * g.a_batch_stride;
        b.data += i * g.b_batch_stride;
        c.data += i * g.c_batch_stride;
        multiply_packed<T>(g.m, g.n, g.k, pack_matrix_a(a), pack_matrix_b(b), c, g.alpha, g.beta, g.epilogue);
    }
}

}  // namespace
}  // namespace tinygrad_nm
