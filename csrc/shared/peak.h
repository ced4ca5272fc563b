// What the processor can do at most: loops that only compute, and loops that only move memory. They measure
// the two limits of a roofline, with the vectors and threads of the other kernels.
//
// PeakArithmetic  out, x (rows, n): out = y_repeats of y_0 = x, y_{j+1} = scale y_j + shift: rows n repeats
//                 multiply-adds. A row is a task; n a multiple of 192 fills the registers of every set.
// PeakMemory      out, x, z (n). Triad: out = x + scale z (3 n numbers move). Copy, without z: out = x (2 n).
//                 Update, without x: out += scale z (3 n); what is written was read before, so no line of the
//                 cache is fetched only to be overwritten.
// PeakRead        out (rows), x (rows, n): out = the sums of the rows (rows n numbers move).
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct PeakArithmetic {
    T* out;
    const T* x;
    int64_t rows, n, repeats;
    T scale, shift;
};

template <class T>
struct PeakMemory {
    T* out;
    const T *x, *z;  // either or null
    int64_t n;
    T scale;
};

template <class T>
struct PeakRead {
    T* out;
    const T* x;
    int64_t rows, n;
};

}  // namespace tinygrad_nm
