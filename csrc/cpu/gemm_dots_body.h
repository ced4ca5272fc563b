// Products of few rows whose operands both have k adjacent, as dot products.
#pragma once
#include "cpu/parallel.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t dot_rows = 4;   // so few rows are computed by dot products
constexpr double dot_work = 5e5;  // operations of a task of dot products

// Few rows, and k adjacent in both operands: four dot products at a time, B is read once and never copied.
template <class T>
void multiply_dots(const Gemm<T>& g) {
    constexpr int64_t width = 4, lanes = Vec<T>::lanes;
    const int64_t columns = width * (1 + int64_t(dot_work / (2.0 * width * double(g.m) * double(g.k + 1))));
    const int64_t tasks = divide_up(g.n, columns);
    const auto dots = [&](int64_t i, int64_t j) {
        const T *a = g.a.data + i * g.a.row_stride, *b[width];
        for (int64_t c = 0; c < width; ++c) b[c] = g.b.data + smaller(j + c, g.n - 1) * g.b.column_stride;
        Vec<T> acc[width] = {};
        for (int64_t p = 0; p < g.k; p += lanes) {
            const int rest = int(smaller(lanes, g.k - p));
            const Vec<T> x = load_up_to(a + p, rest);
            for (int64_t c = 0; c < width; ++c) acc[c] = fma(x, load_up_to(b[c] + p, rest), acc[c]);
        }
        const Epilogue<T>& e = g.epilogue;
        for (int64_t c = 0; c < smaller(width, g.n - j); ++c) {
            T* out = g.c.data + i * g.c.row_stride + (j + c) * g.c.column_stride;
            T x = g.alpha * sum(acc[c]);
            if (g.beta != 0) x += g.beta * *out;
            if (e.bias) x += e.bias[e.bias_axis == BiasAxis::rows ? i : j + c];
            *out = x;
            apply_activation<T>(e.activation, e.parameter, out, 1);
        }
    };
    parallel_for(tasks, 2.0 * double(g.m) * double(smaller(columns, g.n)) * double(g.k + 1),
                 [&](int64_t task) {
                     for (int64_t j = task * columns; j < smaller((task + 1) * columns, g.n); j += width)
                         for (int64_t i = 0; i < g.m; ++i) dots(i, j);
                 });
}

}  // namespace
}  // namespace tinygrad_nm
