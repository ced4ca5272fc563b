// Images interleaved: as many images as a vector has lanes, stored as (channel, row, column, lane).
//
// One vector then holds one pixel of each of these images, so that small planes, few channels and borders
// leave no lane idle. What it costs is a transposition on the way in and out, some 0.2 cycles a number. Where
// images are too few for the lanes or the threads, strips of their rows take their place.
#pragma once
#include "cpu/isa/vector.h"

namespace tinygrad_nm {
namespace {

// Lane indices as a list of template arguments, for shuffles of the compiler.
template <int... index>
struct LaneList {};
template <int count, int... index>
struct LanesUpTo : LanesUpTo<count - 1, count - 1, index...> {};
template <int... index>
struct LanesUpTo<0, index...> {
    using List = LaneList<index...>;
};

// Exchanges the lanes k of b and k + step of a, for every k without the bit `step`.
template <class T, int step, int... k>
TINYGRAD_NM_INLINE void exchange_lanes(Vec<T>& a, Vec<T>& b, LaneList<k...>) {
    constexpr int lanes = Vec<T>::lanes;
    const auto low = __builtin_shufflevector(a.v, b.v, ((k & step) ? lanes + k - step : k)...);
    const auto high = __builtin_shufflevector(a.v, b.v, ((k & step) ? lanes + k : k + step)...);
    a.v = low;
    b.v = high;
}

template <class T, int step = Vec<T>::lanes / 2>
TINYGRAD_NM_INLINE void transpose(Vec<T> (&row)[Vec<T>::lanes]) {
    constexpr int lanes = Vec<T>::lanes;
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r)
        if (!(r & step)) exchange_lanes<T, step>(row[r], row[r + step], typename LanesUpTo<lanes>::List());
    if constexpr (step > 1) transpose<T, step / 2>(row);
}

// block[p * lanes + n] = from[n][p] for p < count; 0 where from[n] is null.
template <class T>
void interleave(T* block, const T* const (&from)[Vec<T>::lanes], int64_t count) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t p = 0; p < count; p += lanes) {
        const int n = int(count - p < lanes ? count - p : lanes);
        Vec<T> row[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) row[r] = from[r] ? load_up_to(from[r] + p, n) : Vec<T>::zero();
        transpose<T>(row);
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            if (r < n) row[r].store(block + (p + r) * lanes);
    }
}

// to[n][p] = block[p * lanes + n] for p < count, but where to[n] is null.
template <class T>
void deinterleave(T* const (&to)[Vec<T>::lanes], const T* block, int64_t count) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t p = 0; p < count; p += lanes) {
        const int n = int(count - p < lanes ? count - p : lanes);
        Vec<T> row[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            row[r] = r < n ? Vec<T>::load(block + (p + r) * lanes) : Vec<T>::zero();
        transpose<T>(row);
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r)
            if (to[r]) store_up_to(row[r], to[r] + p, n);
    }
}

// The same for `used` images, `stride` numbers apart.
template <class T>
void interleave(T* block, const T* images, int64_t stride, int used, int64_t count) {
    const T* from[Vec<T>::lanes] = {};
    for (int n = 0; n < used; ++n) from[n] = images + n * stride;
    interleave(block, from, count);
}
template <class T>
void deinterleave(T* images, int64_t stride, int used, const T* block, int64_t count) {
    T* to[Vec<T>::lanes] = {};
    for (int n = 0; n < used; ++n) to[n] = images + n * stride;
    deinterleave(to, block, count);
}

// Some planes of images (N, .., height, width), `image` numbers apart, cut into strips of `rows` rows: strip
// k of an image begins at its row k * step + first. A strip that is read may reach beyond its image.
template <class T>
struct Strips {
    T* data;
    int64_t image, planes, height, width;
    int64_t rows, strips = 1, step = 0, first = 0;  // strips: of an image
};

// What a row of a block holds: `left` zeros, `count` pixels of the image's row, zeros up to `pitch`.
struct RowLayout {
    int64_t left, count, pitch;
};

// Strips [begin, begin + used) as the lanes of a block (planes, rows, pitch, lane). visit(at, row) for each
// of its rows: row[n] is where lane n finds it, null beyond its image or without a strip; `at` is its place
// in the block, in pixels. Rows, and planes, that follow one another on both sides pass as one long row.
template <class T, int lanes, class Visit>
void for_rows(const Strips<T>& s, int64_t begin, int used, RowLayout& layout, const Visit& visit) {
    int64_t planes = s.planes, rows = s.rows, height = s.height, width = s.width;
    const bool inside = s.first >= 0 && (s.strips - 1) * s.step + s.first + rows <= height;
    const bool long_rows = inside && layout.count == layout.pitch && layout.count == width;
    const int64_t plane = height * width, row_stride = width;
    const int64_t adjacent = !long_rows ? 1 : rows == height ? planes * rows : rows;
    if (long_rows) layout.count = layout.pitch = adjacent * width;
    rows = long_rows ? 1 : rows, planes = adjacent > s.rows ? 1 : planes;

    T *image[lanes] = {}, *row[lanes];
    int64_t top[lanes] = {};
    for (int n = 0; n < used; ++n) {
        image[n] = s.data + (begin + n) / s.strips * s.image;
        top[n] = (begin + n) % s.strips * s.step + s.first;
    }
    int64_t at = 0;
    for (int64_t p = 0; p < planes; ++p)
        for (int64_t r = 0; r < rows; ++r, at += layout.pitch) {
            for (int n = 0; n < lanes; ++n) {
                const int64_t h = top[n] + r;
                row[n] = image[n] && h >= 0 && h < height ? image[n] + p * plane + h * row_stride : nullptr;
            }
            visit(at, row);
        }
}

template <class T>
TINYGRAD_NM_INLINE void store_zeros(T* to, int64_t pixels) {
    for (int64_t p = 0; p < pixels; ++p) Vec<T>::zero().store(to + p * Vec<T>::lanes);
}

// block (planes, rows, pitch, lane) = the strips [begin, begin + used), zeros beyond their images and in the
// other lanes.
template <class T>
void interleave_strips(T* block, const Strips<const T>& strips, int64_t begin, int used, RowLayout layout) {
    constexpr int lanes = Vec<T>::lanes;
    for_rows<const T, lanes>(strips, begin, used, layout, [&](int64_t at, const T* const(&row)[lanes]) {
        T* const to = block + at * lanes;
        store_zeros(to, layout.left);
        interleave(to + layout.left * lanes, row, layout.count);
        store_zeros(to + (layout.left + layout.count) * lanes, layout.pitch - layout.left - layout.count);
    });
}

// The pixels of block (planes, rows, pitch, lane) into strips that lie within their images.
template <class T>
void deinterleave_strips(const Strips<T>& strips, int64_t begin, int used, RowLayout layout, const T* block) {
    constexpr int lanes = Vec<T>::lanes;
    for_rows<T, lanes>(strips, begin, used, layout, [&](int64_t at, T* const(&row)[lanes]) {
        deinterleave(row, block + (at + layout.left) * lanes, layout.count);
    });
}

}  // namespace
}  // namespace tinygrad_nm
