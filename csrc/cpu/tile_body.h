// The register tile: tile_rows x tile_columns<T> elements of a product, kept in registers while k runs.
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
#include "cpu/gemm.h"
#include "cpu/isa/vector.h"

namespace tinygrad_nm {
namespace {

constexpr int tile_rows = TINYGRAD_NM_TILE_ROWS;  // MR
constexpr int tile_vectors = 2;
template <class T>
constexpr int tile_columns = tile_vectors* Vec<T>::lanes;  // NR
template <class T>
constexpr int64_t block_depth = 1024 / sizeof(T);  // KC: a panel of B stays in the first-level cache

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

template <class T>
using Accumulators = Vec<T>[tile_rows][tile_vectors];

// acc += a column of A, given by element(r), times a row of B.
template <class T, class Element>
TINYGRAD_NM_INLINE void add_outer_product(const Element& element, const T* b, Accumulators<T>& acc) {
    Vec<T> row[tile_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < tile_vectors; ++v) row[v] = Vec<T>::load(b + v * Vec<T>::lanes);
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r) {
        const Vec<T> x = Vec<T>::broadcast(element(r));
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) acc[r][v] = fma(x, row[v], acc[r][v]);
    }
}

template <class T>
TINYGRAD_NM_INLINE void clear(Accumulators<T>& acc) {
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) acc[r][v] = Vec<T>::zero();
}

// acc = the product of two panels; the rows of B's lie b_step apart.
template <class T>
TINYGRAD_NM_INLINE void multiply_panels(int64_t kc, const T* a, const T* b, Accumulators<T>& acc,
                                        int64_t b_step = tile_columns<T>) {
    clear<T>(acc);
    for (int64_t p = 0; p < kc; ++p, a += tile_rows, b += b_step)
        add_outer_product<T>([a](int r) TINYGRAD_NM_INLINE_LAMBDA { return a[r]; }, b, acc);
}

// The same for rows of A that were not packed: element p of row r is rows[r][p * a_step].
template <class T>
TINYGRAD_NM_INLINE void multiply_rows(int64_t kc, const T* const (&rows)[tile_rows], int64_t a_step,
                                      const T* b, int64_t b_step, Accumulators<T>& acc) {
    clear<T>(acc);
    int64_t at = 0;
    for (int64_t p = 0; p < kc; ++p, at += a_step, b += b_step)
        add_outer_product<T>([&rows, at](int r) TINYGRAD_NM_INLINE_LAMBDA { return rows[r][at]; }, b, acc);
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
TINYGRAD_NM_INLINE void store_tile(const Accumulators<T>& acc, const Tile<T>& tile, T* c,
                                   int64_t row_stride) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> alpha = Vec<T>::broadcast(tile.alpha), beta = Vec<T>::broadcast(tile.beta);
    const T* bias = tile.epilogue ? tile.epilogue->bias : nullptr;
    const bool bias_of_rows = bias && tile.epilogue->bias_axis == BiasAxis::rows;
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r) {
        if (r >= tile.rows) continue;
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) {
            const int n = tile.columns - v * lanes;
            if (n <= 0) continue;
            T* p = c + r * row_stride + v * lanes;
            Vec<T> x = alpha * acc[r][v];
            if (tile.beta != 0) x = fma(beta, load_up_to(p, n), x);
            if (bias_of_rows)
                x = x + Vec<T>::broadcast(bias[tile.i0 + r]);
            else if (bias)
                x = x + load_up_to(bias + tile.j0 + v * lanes, n);
            store_up_to(x, p, n);
        }
    }
    if (tile.epilogue && tile.epilogue->activation != Activation::identity)
        for (int r = 0; r < tile.rows; ++r)
            apply_activation<T>(tile.epilogue->activation, tile.epilogue->parameter, c + r * row_stride,
                                tile.columns);
}

}  // namespace
}  // namespace tinygrad_nm
