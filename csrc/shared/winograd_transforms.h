// The transforms of Winograd's minimal filtering: products of polynomials modulo 6 points. Each formula once,
// for the CPU's vectors and for CUDA's scalars: V is either (see activation.h).
//
// A tile of R outputs of a filter of K taps (R + K - 1 = 6) is, along one axis and with all of B, G, A below,
//     y = A'[(G g) * (B' d)]            d: 6 inputs, g: K taps, y: R outputs, *: number by number,
// for the points 0, 1, -1, 2, -2 and infinity, whatever R and K: B belongs to the points alone. Its transpose
// gives the gradient of the taps, G'[(A dy) * (B' d)]. Row q of A is (1, p, p^2, ..) at point p, the last one
// picks the last number (infinity); G is the same for K taps times 1/4, -1/6, -1/6, 1/24, 1/24, 1. B gives
// the gradient of the inputs, B[(G g) * (A dy)]. So there are four functions: FilterInputs (B'), SpreadInputs
// (B), Evaluate (A or G) and Interpolate (A' or G'). B and A hold
// integers; all fractions are in G, and integers times 576 = 24^2 stay integers there, in two dimensions.
//
// Each is applied to the columns of a tile, then to the rows.
#pragma once
#include <math.h>

#include "shared/activation.h"

#if defined(__CUDACC__)
#define TINYGRAD_NM_UNROLL _Pragma("unroll")
#else
#define TINYGRAD_NM_UNROLL _Pragma("GCC unroll 6")
#endif

namespace tinygrad_nm {

constexpr int winograd_size = 6;                                // of a tile of inputs
constexpr int winograd_points = winograd_size * winograd_size;  // numbers of a transformed tile

// The factors of G at the six points.
template <class V>
TINYGRAD_NM_HOST_DEVICE void scale_points(V (&v)[winograd_size]) {
    const V sixth = Number<V>::constant(-1.0 / 6.0), small = Number<V>::constant(1.0 / 24.0);
    v[0] = v[0] * Number<V>::constant(0.25);
    v[1] = v[1] * sixth;
    v[2] = v[2] * sixth;
    v[3] = v[3] * small;
    v[4] = v[4] * small;
}

// v = B' d: for points p and -p the even numbers plus and minus the odd ones.
template <class V>
struct FilterInputs {
    static constexpr int in = winograd_size, out = winograd_size;
    static TINYGRAD_NM_HOST_DEVICE void along(const V (&d)[in], V (&v)[out]) {
        const V two = Number<V>::constant(2), four = Number<V>::constant(4), five = Number<V>::constant(5);
        const V even1 = fma(-four, d[2], d[4]), odd1 = fma(-four, d[1], d[3]);
        const V even2 = d[4] - d[2], odd2 = two * (d[3] - d[1]);
        v[0] = fma(four, d[0], fma(-five, d[2], d[4]));
        v[1] = even1 + odd1;
        v[2] = even1 - odd1;
        v[3] = even2 + odd2;
        v[4] = even2 - odd2;
        v[5] = fma(four, d[1], fma(-five, d[3], d[5]));
    }
};

// d = B m, the transpose of the above.
template <class V>
struct SpreadInputs {
    static constexpr int in = winograd_size, out = winograd_size;
    static TINYGRAD_NM_HOST_DEVICE void along(const V (&m)[in], V (&d)[out]) {
        const V four = Number<V>::constant(4), five = Number<V>::constant(5);
        const V even1 = m[1] + m[2], odd1 = m[1] - m[2];
        const V even2 = m[3] + m[4], half = m[3] - m[4], odd2 = half + half;
        d[0] = four * m[0];
        d[1] = fma(four, m[5] - odd1, -odd2);
        d[2] = -fma(five, m[0], fma(four, even1, even2));
        d[3] = fma(-five, m[5], odd1 + odd2);
        d[4] = m[0] + (even1 + even2);
        d[5] = m[5];
    }
};

// v[q] = sum over k < count of p_q^k d[k]: row q of A, or of G if scaled.
template <class V, int count, bool scaled>
struct Evaluate {
    static constexpr int in = count, out = winograd_size;
    static TINYGRAD_NM_HOST_DEVICE void along(const V (&d)[in], V (&v)[out]) {
        V at1[2] = {d[0], d[1]}, at2[2] = {d[0], d[1] + d[1]};  // even and odd powers of 1 and 2
        TINYGRAD_NM_UNROLL
        for (int k = 2; k < count; ++k) {
            at1[k % 2] = at1[k % 2] + d[k];
            at2[k % 2] = fma(Number<V>::constant(1 << k), d[k], at2[k % 2]);
        }
        v[0] = d[0];
        v[1] = at1[0] + at1[1];
        v[2] = at1[0] - at1[1];
        v[3] = at2[0] + at2[1];
        v[4] = at2[0] - at2[1];
        v[5] = d[count - 1];
        if constexpr (scaled) scale_points(v);
    }
};

// y[k] = sum over q of p_q^k m[q], the transpose of the above.
template <class V, int count, bool scaled>
struct Interpolate {
    static constexpr int in = winograd_size, out = count;
    static TINYGRAD_NM_HOST_DEVICE void along(const V (&points)[in], V (&y)[out]) {
        V m[in];
        TINYGRAD_NM_UNROLL
        for (int q = 0; q < in; ++q) m[q] = points[q];
        if constexpr (scaled) scale_points(m);
        const V at1[2] = {m[1] + m[2], m[1] - m[2]}, at2[2] = {m[3] + m[4], m[3] - m[4]};
        TINYGRAD_NM_UNROLL
        for (int k = 0; k < count; ++k) y[k] = fma(Number<V>::constant(1 << k), at2[k % 2], at1[k % 2]);
        y[0] = y[0] + m[0];
        y[count - 1] = y[count - 1] + m[5];
    }
};

}  // namespace tinygrad_nm
