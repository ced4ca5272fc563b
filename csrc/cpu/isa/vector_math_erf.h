// erfc on vectors, for gelu; its largest error stands with the others in vector_math.h.
//
// Up to 0.75 the odd series of erf, elsewhere exp(-x^2) and the slowly varying rest, with relative errors of
//   erf(x) = x + x P(x^2)                       2^-29 (float), 2^-60 (double)
//   exp(x^2) erfc(x) = r + r Q(r - middle),     2^-28, 2^-56
//       r = numerator / (x + 1/2), up to the x whose erfc rounds to 0
// The numerator is the mean height of exp(x^2) erfc(x) (x + 1/2), which lies between 0.574 and 0.642: Q is
// small. The coefficients are Chebyshev fits computed with 50 digits (mpmath.chebyfit) and rounded.
#pragma once
#include "cpu/isa/vector_math.h"

namespace tinygrad_nm {
namespace {

constexpr double erfc_numerator = 0x1.34p-1, erfc_middle = 0.25, erfc_near = 0.75;

// zero: erfc(x) rounds to 0 from here. half_mask: the leading half of a number's bits.
template <class T>
struct ErfcConstants;
template <>
struct ErfcConstants<float> {
    static constexpr double zero = 10.1;
    static constexpr int32_t half_mask = ~0xfff;
    static constexpr double near_terms[] = {0x1.06eba8p-3, -0x1.81273ap-2, 0x1.ce2ae2p-4,
                                            -0x1.b7aaap-6, 0x1.4f3d08p-8,  -0x1.623bfp-11};
    static constexpr double far_terms[] = {0x1.02ad74p-4, 0x1.6af558p-3, -0x1.36d822p0, 0x1.0d91a2p0,
                                           0x1.4ece16p0,  -0x1.6357ecp2, 0x1.ee4546p2,  0x1.556d0ep1,
                                           -0x1.47558p5,  0x1.4bb88ap6,  0x1.646446p2,  -0x1.56d4f2p7};
};
template <>
struct ErfcConstants<double> {
    static constexpr double zero = 27.3;
    static constexpr int64_t half_mask = ~0x7ffffff;
    static constexpr double near_terms[] = {
        0x1.06eba8214db69p-3,  -0x1.812746b0379ep-2,   0x1.ce2f21a0424c3p-4,  -0x1.b82ce31257412p-6,
        0x1.565bcd03657cp-8,   -0x1.c02db1220cfe6p-11, 0x1.f9a2afa3a8f86p-14, -0x1.f4c5debf1228ap-17,
        0x1.b90ecd4aeec12p-20, -0x1.564f71bbc0d35p-23, 0x1.8a312cb07e6ccp-27};
    static constexpr double far_terms[] = {
        0x1.02ad73fd73f16p-4,  0x1.6af56be203cb5p-3,  -0x1.36d84d5f43263p0,  0x1.0d8cef563e03ep0,
        0x1.4f0150aa084a5p0,   -0x1.62b7c21657133p2,  0x1.e88dcb69dc021p2,   0x1.14b4304e4f3f2p1,
        -0x1.222081776be59p5,  0x1.6ec1afb17c2a7p6,   -0x1.a411045cff8b3p6,  -0x1.c633a5e54695bp6,
        0x1.bbbc850eaa00bp9,   -0x1.27b3c6c0a8066p11, 0x1.a83520dab38a9p11,  0x1.ca8b27a14aacbp9,
        -0x1.682d8f8ef708ap14, 0x1.4cc26809e1bc9p16,  -0x1.3fd150fc2d826p17, -0x1.1a8db6a775d31p15,
        0x1.dc80f0aaf9fcp18,   0x1.79400be2e6122p20,  0x1.28372714e4da7p22,  -0x1.2b867f6ab046dp26,
        0x1.41def1656d1b8p26,  0x1.3285b087138a5p29,  -0x1.2c8fe63a19b23p30, -0x1.96970028cf557p30,
        0x1.01e3dbde0aaccp32};
};

// The leading half of x's bits: products of two such numbers are exact.
template <class T>
TINYGRAD_NM_INLINE Vec<T> leading_half(Vec<T> x) {
    return from_bits<T>(bits(x) & ErfcConstants<T>::half_mask);
}

// terms[0] + terms[1] x + ... as two chains, of the even and of the odd powers, which run side by side.
template <class T, int count>
TINYGRAD_NM_INLINE Vec<T> polynomial_in_two(Vec<T> x, const double (&terms)[count]) {
    using N = Number<Vec<T>>;
    const Vec<T> square = x * x;
    Vec<T> even = N::constant(terms[(count - 1) & ~1]), odd = N::constant(terms[(count - 2) | 1]);
#pragma GCC unroll 32
    for (int i = ((count - 1) & ~1) - 2; i >= 0; i -= 2) even = fma(even, square, N::constant(terms[i]));
#pragma GCC unroll 32
    for (int i = ((count - 2) | 1) - 2; i >= 0; i -= 2) odd = fma(odd, square, N::constant(terms[i]));
    return fma(odd, x, even);
}

// erfc(x) for 0.75 <= x <= zero. r carries what its division rounded off, x^2 is an exact square and a rest,
// and all factors but r are kept as their small differences from 1: only the last sum rounds visibly.
template <class T>
TINYGRAD_NM_INLINE Vec<T> erfc_far(Vec<T> x) {
    using M = MathConstants<T>;
    using N = Number<Vec<T>>;
    const Vec<T> half = N::constant(0.5), numerator = N::constant(erfc_numerator);
    const Vec<T> d = x + half, d_low = half - (d - x), r = numerator / d;
    const Vec<T> d_top = leading_half(d), r_top = leading_half(r);
    const Vec<T> missing = ((numerator - d_top * r_top) - d_top * (r - r_top)) - (d - d_top) * r;
    const Vec<T> r_low = r * ((missing - d_low * r) * N::constant(1 / erfc_numerator));
    const Vec<T> q = polynomial_in_two((r - N::constant(erfc_middle)) + r_low, ErfcConstants<T>::far_terms);

    const Vec<T> top = leading_half(x), square = top * top, square_low = (x - top) * (x + top);
    const Vec<T> shift = N::constant(M::rounding_shift);
    const Vec<T> shifted = fma(square, N::constant(-M::per_ln2), shift), n = shifted - shift;
    const Vec<T> rest =
        fma(n, N::constant(-M::ln2_high), -square) - fma(n, N::constant(M::ln2_low), square_low);
    const Vec<T> curve = rest * rest * polynomial(rest, M::exp_terms);
    const Vec<T> more = rest + fma(q, rest + curve, q + curve);  // exp(rest) (1 + q) - 1
    const Int<T> power = (Int<T>)((UInt<T>)bits(shifted) - (UInt<T>)bits(shift));
    return scale(r + fma(r, more, r_low), power);
}

// Near zero 1 - x is exact together with what it rounds off. Negative x far out: 2 - erfc(-x).
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_erfc(Vec<T> x) {
    using N = Number<Vec<T>>;
    const Vec<T> one = N::constant(1), size = abs(x), whole = one - x, lost = (one - whole) - x;
    const Vec<T> near = whole + (lost - x * polynomial(x * x, ErfcConstants<T>::near_terms));
    const Vec<T> tail = erfc_far(clamp(size, N::constant(erfc_near), N::constant(ErfcConstants<T>::zero)));
    const Vec<T> far = select(x < Vec<T>::zero(), N::constant(2) - tail, tail);
    return select(size <= N::constant(erfc_near), near, far);
}

}  // namespace
}  // namespace tinygrad_nm
