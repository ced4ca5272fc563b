// The register tile: `rows` x `vectors` vectors of elements of a product, kept in registers while k runs.
//
// GEMM (gemm_body.h) and convolution (conv2d_body.h) put it to use in the same way:
//
//   Accumulators<T> acc;
//   multiply_panels<T>(depth, a_panel, b_panel, acc);
//   store_tile<T>(acc, tile, c, row_stride);
//
// on panels  a_panel[p * tile_rows + r] = A(i0 + r, p)  and  b_panel[p * tile_columns<T> + c] = B(p, j0 + c).
// Panels are always as wide as the tile; what they hold beyond tile.rows and tile.columns does not matter.
#pragma once
#include "cpu/activation_body.h"
#include "cpu/isa/vector.h"
#include "shared/gemm.h"

namespace tinygrad_nm {
namespace {

constexpr int tile_rows = TINYGRAD_NM_TILE_ROWS;  // MR
constexpr int tile_vectors = 2;
template <class T>
constexpr int tile_columns = tile_vectors* Vec<T>::lanes;  // NR
template <class T>
constexpr int64_t block_depth = 256;  // KC: a panel of B stays in the first-level cache

// Of a matrix that stays in the second-level cache beside what it meets there.
constexpr int64_t second_level_bytes = 320 << 10;

constexpr int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
constexpr int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
constexpr int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}
// Cuts size into equal blocks of at most `most`, each a multiple of unit.
constexpr int64_t equal_block(int64_t size, int64_t most, int64_t unit) {
    const int64_t blocks = larger(1, divide_up(size, most));
    return larger(unit, divide_up(divide_up(size, blocks), unit) * unit);
}

// Heights of tiles, so that the edges of a small matrix do not cost whole ones.
constexpr int tile_heights[4] = {(tile_rows + 2) / 3, (2 * tile_rows + 2) / 3, (5 * tile_rows + 5) / 6,
                                 tile_rows};
constexpr int height_class(int64_t rows) {
    int i = 0;
    while (rows > tile_heights[i]) ++i;
    return i;
}

template <class T, int rows = tile_rows, int vectors = tile_vectors>
using Accumulators = Vec<T>[rows][vectors];

template <class T, int rows, int vectors>
TINYGRAD_NM_INLINE void clear(Accumulators<T, rows, vectors>& acc) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) acc[r][v] = Vec<T>::zero();
}

// acc += the sum over p < kc of a column of A times a row of B: element r of the column is a[p * a_step + r]
// if `adjacent` (a panel, or a transposed matrix), else a[r * a_step + p]; the rows of B's lie b_step apart.
template <class T, bool adjacent, int rows, int vectors>
TINYGRAD_NM_INLINE void add_products(int64_t kc, const T* a, int64_t a_step, const T* b, int64_t b_step,
                                     Accumulators<T, rows, vectors>& acc) {
    for (int64_t p = 0; p < kc; ++p, a += adjacent ? a_step : 1, b += b_step) {
        Vec<T> row[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) row[v] = in_register(Vec<T>::load(b + v * Vec<T>::lanes));
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Vec<T> x = Vec<T>::broadcast(adjacent ? a[r] : a[r * a_step]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) acc[r][v] = fma(x, row[v], acc[r][v]);
        }
    }
}

template <class T>
TINYGRAD_NM_INLINE void multiply_panels(int64_t kc, const T* a, const T* b, Accumulators<T>& acc,
                                        int64_t b_step = tile_columns<T>) {
    clear<T, tile_rows, tile_vectors>(acc);
    add_products<T, true, tile_rows, tile_vectors>(kc, a, tile_rows, b, b_step, acc);
}

// Where a tile of C lies and what is to be done with it.
template <class T>
struct Tile {
    int64_t i0, j0;
    int rows, columns;
    T alpha, beta;
    const Epilogue<T>* epilogue;  // null unless this is the last block of k
};

// c = alpha acc + beta c + bias; c points to the tile, its columns are adjacent. full: no element is left
// out.
template <class T, bool full, int rows, int vectors>
TINYGRAD_NM_INLINE void store_elements(const Accumulators<T, rows, vectors>& acc, const Tile<T>& tile, T* c,
                                       int64_t row_stride) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> alpha = Vec<T>::broadcast(tile.alpha), beta = Vec<T>::broadcast(tile.beta);
    const T* bias = tile.epilogue ? tile.epilogue->bias : nullptr;
    const bool bias_of_rows = bias && tile.epilogue->bias_axis == BiasAxis::rows;
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
        if (!full && r >= tile.rows) continue;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            const int n = full ? lanes : tile.columns - v * lanes;
            if (!full && n <= 0) continue;
            T* p = c + r * row_stride + v * lanes;
            Vec<T> x = alpha * acc[r][v];
            if (tile.beta != 0) x = fma(beta, full ? Vec<T>::load(p) : load_up_to(p, n), x);
            if (bias_of_rows)
                x = x + Vec<T>::broadcast(bias[tile.i0 + r]);
            else if (bias)
                x = x + load_up_to(bias + tile.j0 + v * lanes, n);
            if (full)
                x.store(p);
            else
                store_up_to(x, p, n);
        }
    }
}

// The same, and the epilogue's activation.
template <class T, int rows = tile_rows, int vectors = tile_vectors>
TINYGRAD_NM_INLINE void store_tile(const Accumulators<T, rows, vectors>& acc, const Tile<T>& tile, T* c,
                                   int64_t row_stride) {
    if (tile.rows == rows && tile.columns == vectors * Vec<T>::lanes)
        store_elements<T, true, rows, vectors>(acc, tile, c, row_stride);
    else
        store_elements<T, false, rows, vectors>(acc, tile, c, row_stride);
    if (tile.epilogue && tile.epilogue->activation != Activation::identity)
        for (int r = 0; r < tile.rows; ++r)
            apply_activation<T>(tile.epilogue->activation, tile.epilogue->parameter, c + r * row_stride,
                                tile.columns);
}

}  // namespace
}  // namespace tinygrad_nm
