// The transforms of Winograd's minimal filtering (shared/winograd_transforms.h) on vectors: one pixel of
// several channels each.
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/isa/vector_math.h"
#include "cpu/tile_body.h"
#include "shared/winograd_transforms.h"

namespace tinygrad_nm {
namespace {

// n numbers rounded up to an odd number of cache lines: the same number of 36 points that lie so far apart
// falls into 36 different sets of a cache.
template <class T>
constexpr int64_t point_stride(int64_t n) {
    constexpr int64_t line = 64 / sizeof(T);
    return (divide_up(n, line) | 1) * line;
}

// The transform of a square of vectors, down the columns and along the rows: number (i, j) of the square is
// at from[i * row + j * column], and store(i, j, vector) takes those of the result.
template <class T, class Transform, class Store>
TINYGRAD_NM_INLINE void transform_square(const T* from, int64_t row, int64_t column, const Store& store) {
    constexpr int in = Transform::in, out = Transform::out;
    Vec<T> half[out][in];
    for (int j = 0; j < in; ++j) {
        Vec<T> d[in], v[out];
#pragma GCC unroll 6
        for (int i = 0; i < in; ++i) d[i] = Vec<T>::load(from + i * row + j * column);
        Transform::along(d, v);
#pragma GCC unroll 6
        for (int i = 0; i < out; ++i) half[i][j] = v[i];
    }
    for (int i = 0; i < out; ++i) {
        Vec<T> v[out];
        Transform::along(half[i], v);
#pragma GCC unroll 6
        for (int j = 0; j < out; ++j) store(i, j, v[j]);
    }
}

}  // namespace
}  // namespace tinygrad_nm
