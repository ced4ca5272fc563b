// Packing: a part of a matrix becomes a panel that the register tile (tile_body.h) reads from end to end.
#pragma once
#include "cpu/interleaved_body.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

// The panel's rows lie in the source as they are, `along` apart. Row after row: where the rows are a power of
// two apart, more than a few of them would not fit into the first-level cache together.
template <class T, int width, bool whole>
void copy_rows(T* panel, const T* source, int64_t along, int used, int64_t kc) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t p = 0; p < kc; ++p, source += along, panel += width)
#pragma GCC unroll 8
        for (int w = 0; w < width; w += lanes) {
            const Vec<T> row = whole      ? Vec<T>::load(source + w)
                               : used > w ? load_up_to(source + w, used - w)
                                          : Vec<T>::zero();
            // May run over into the next row, which is written later; the last row is cut.
            if (width - w >= lanes || p + 1 < kc)
                row.store(panel + w);
            else
                row.store(panel + w, width - w);
        }
}

// panel[p * width + w] = source[w * across + p * along] for p < kc, w < used; zeros for the other w.
template <class T, int width>
void pack_panel(T* panel, const T* source, int64_t across, int64_t along, int used, int64_t kc) {
    constexpr int lanes = Vec<T>::lanes;
    if (across == 1) {
        if (width % lanes == 0 && used == width)
            return copy_rows<T, width, true>(panel, source, along, used, kc);
        return copy_rows<T, width, false>(panel, source, along, used, kc);
    }
    if (along != 1) {
        for (int64_t p = 0; p < kc; ++p)
            for (int w = 0; w < width; ++w)
                panel[p * width + w] = w < used ? source[w * across + p * along] : T(0);
        return;
    }
    // A store may run over into the next row of the panel, whose first lanes are written last; the last row
    // is cut.
    for (int w = (width - 1) / lanes * lanes; w >= 0; w -= lanes) {
        const int here = used - w < lanes ? used - w : lanes;
        int64_t p = 0;
        // Whole squares of a whole panel, but the last: no test and no mask.
        if (here == smaller(lanes, width - w))
            for (; p + lanes < kc; p += lanes) {
                Vec<T> row[lanes];
#pragma GCC unroll 16
                for (int r = 0; r < lanes; ++r) {
                    const T* const from = source + (w + r) * across + p;
                    row[r] = r < here ? Vec<T>::load(from) : Vec<T>::zero();
                }
                transpose<T>(row);
#pragma GCC unroll 16
                for (int r = 0; r < lanes; ++r) row[r].store(panel + (p + r) * width + w);
            }
        for (; p < kc; p += lanes) {
            const int steps = int(smaller(lanes, kc - p));
            Vec<T> row[lanes];
#pragma GCC unroll 16
            for (int r = 0; r < lanes; ++r) {
                const T* const from = source + (w + r) * across + p;
                __builtin_prefetch(from + width * across);
                row[r] = r < here ? load_up_to(from, steps) : Vec<T>::zero();
            }
            transpose<T>(row);
#pragma GCC unroll 16
            for (int r = 0; r < lanes; ++r) {
                T* const to = panel + (p + r) * width + w;
                if (width - w >= lanes || p + r + 1 < kc)
                    if (r < steps) row[r].store(to);
                if (width - w < lanes && p + r + 1 == kc) row[r].store(to, width - w);
            }
        }
    }
}

}  // namespace
}  // namespace tinygrad_nm
