// Products of few rows, without tiles: each number of B is read once, where it lies.
#pragma once
#include "cpu/parallel.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t dot_rows = 4;   // so few rows are computed by dot products
constexpr double dot_work = 5e5;  // operations of a task of dot products

// c[j .. j + 4) = alpha a . b[j .. j + 4) + beta c, k adjacent in both.
template <class T>
void dot_products(const Gemm<T>& g, int64_t i, int64_t j) {
    constexpr int64_t width = 4, lanes = Vec<T>::lanes;
    const T *a = g.a.data + i * g.a.row_stride, *b[width];
    for (int64_t c = 0; c < width; ++c) b[c] = g.b.data + smaller(j + c, g.n - 1) * g.b.column_stride;
    Vec<T> acc[width] = {};
    int64_t p = 0;
    for (; p + lanes <= g.k; p += lanes) {
        const Vec<T> x = Vec<T>::load(a + p);
        for (int64_t c = 0; c < width; ++c) acc[c] = fma(x, Vec<T>::load(b[c] + p), acc[c]);
    }
    if (const int rest = int(g.k - p)) {
        const Vec<T> x = Vec<T>::load(a + p, rest);
        for (int64_t c = 0; c < width; ++c) acc[c] = fma(x, Vec<T>::load(b[c] + p, rest), acc[c]);
    }
    T* const out = g.c.data + i * g.c.row_stride + j * g.c.column_stride;
    for (int64_t c = 0; c < smaller(width, g.n - j); ++c) {
        T& to = out[c * g.c.column_stride];
        to = g.beta == 0 ? g.alpha * sum(acc[c]) : g.alpha * sum(acc[c]) + g.beta * to;
    }
}

// What follows the last addition, for columns [begin, end) of row i.
template <class T>
void finish_row(const Gemm<T>& g, int64_t i, int64_t begin, int64_t end) {
    const Epilogue<T>& e = g.epilogue;
    T* const c = g.c.data + i * g.c.row_stride;
    const int64_t step = g.c.column_stride;
    for (int64_t j = begin; e.bias && j < end; ++j)
        c[j * step] += e.bias[e.bias_axis == BiasAxis::rows ? i : j];
    if (step == 1) return apply_activation<T>(e.activation, e.parameter, c + begin, end - begin);
    for (int64_t j = begin; j < end; ++j) apply_activation<T>(e.activation, e.parameter, c + j * step, 1);
}

// Few rows, and k adjacent in both operands.
template <class T>
void multiply_dots(const Gemm<T>& g) {
    constexpr int64_t width = 4;
    const int64_t columns = width * (1 + int64_t(dot_work / (2.0 * width * double(g.m) * double(g.k + 1))));
    parallel_for(divide_up(g.n, columns), 2.0 * double(g.m) * double(smaller(columns, g.n)) * double(g.k + 1),
                 [&](int64_t task) {
                     const int64_t begin = task * columns, end = smaller(begin + columns, g.n);
                     for (int64_t j = begin; j < end; j += width)
                         for (int64_t i = 0; i < g.m; ++i) dot_products(g, i, j);
                     for (int64_t i = 0; i < g.m; ++i) finish_row(g, i, begin, end);
                 });
}

// `vectors` of columns from j on, of one row.
template <class T, int vectors>
void multiply_row(const Gemm<T>& g, int64_t j) {
    Accumulators<T, 1, vectors> acc;
    clear<T, 1, vectors>(acc);
    add_products<T, true, 1, vectors>(g.k, g.a.data, g.a.column_stride, g.b.data + j, g.b.row_stride, acc);
    store_tile<T, 1, vectors>(acc, {0, j, 1, vectors * int(Vec<T>::lanes), g.alpha, g.beta, &g.epilogue},
                              g.c.data + j, 0);
}

// One row, and a matrix with adjacent columns that stays in the second-level cache: a tile of several rows
// would compute most of its sums in vain. The last columns end with the matrix, some of them for a second
// time.
template <class T>
bool row_fits(const Gemm<T>& g) {
    return g.m == 1 && g.b.column_stride == 1 && g.c.column_stride == 1 && g.n >= Vec<T>::lanes &&
           g.beta == 0 && g.n * g.k * int64_t(sizeof(T)) <= second_level_bytes;
}
template <class T>
void multiply_row(const Gemm<T>& g) {
    constexpr int64_t lanes = Vec<T>::lanes;
    int64_t j = 0;
    for (; j + 8 * lanes <= g.n; j += 8 * lanes) multiply_row<T, 8>(g, j);
    for (; j + 2 * lanes <= g.n; j += 2 * lanes) multiply_row<T, 2>(g, j);
    for (; j < g.n; j += lanes) multiply_row<T, 1>(g, smaller(j, g.n - lanes));
}

}  // namespace
}  // namespace tinygrad_nm
