// Mathematical functions on vectors, under the names that the formulas of shared/activation.h use.
//
// exp and tanh are our own: within 1 and 1.5 units in the last place, for every argument (subnormal results
// too), on every instruction set. A lane's result depends on that lane alone. The other functions call the C
// library for each lane: replace one by a polynomial here and every formula gains.
//
// The coefficients are Chebyshev fits computed with 40 digits (mpmath.chebyfit) and rounded:
//   exp(r) = 1 + r + r^2 P(r)   on |r| <= ln(2) / 2     relative error 2^-31 (float), 2^-61 (double)
//   tanh(x) = x + x^3 Q(x^2)    on |x| <= 0.55          relative error 2^-33 (float), 2^-63 (double)
#pragma once
#include "cpu/isa/vector.h"
#include "shared/activation.h"

namespace tinygrad_nm {

template <class T>
struct Number<Vec<T>> {
    using Scalar = T;
    static TINYGRAD_NM_INLINE Vec<T> constant(double c) { return Vec<T>::broadcast(T(c)); }
};

namespace {

template <class T>
struct MathConstants;
template <>
struct MathConstants<float> {
    static constexpr int fraction_bits = 23, exponent_bias = 127;
    static constexpr double ln2_high = 0x1.63p-1, ln2_low = -0x1.bd0105c610ca8p-13;  // high: 9 bits
    static constexpr double exp_low = -104, exp_high = 89;  // exp rounds to 0, to infinity
    static constexpr double exp_terms[] = {0x1p-1,       0x1.555556p-3, 0x1.5554e8p-5,
                                           0x1.1110ep-7, 0x1.6d43bp-10, 0x1.a1256cp-13};
    static constexpr double tanh_terms[] = {-0x1.555556p-2, 0x1.111104p-3, -0x1.ba142ep-5,
                                            0x1.657936p-6,  -0x1.17641p-7, 0x1.4b239ap-9};
};
template <>
struct MathConstants<double> {
    static constexpr int fraction_bits = 52, exponent_bias = 1023;
    static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;  // high: 32 bits
    static constexpr double exp_low = -746, exp_high = 710;
    static constexpr double exp_terms[] = {0x1p-1,
                                           0x1.5555555555557p-3,
                                           0x1.5555555555556p-5,
                                           0x1.11111111100bep-7,
                                           0x1.6c16c16c162c3p-10,
                                           0x1.a01a01abf85abp-13,
                                           0x1.a01a01a6e1e2ap-16,
                                           0x1.71de01fdbf9cap-19,
                                           0x1.27e4db46cddd1p-22,
                                           0x1.af4e554377204p-26,
                                           0x1.1f7340dbc337ep-29};
    static constexpr double tanh_terms[] = {
        -0x1.5555555555555p-2,  0x1.1111111111109p-3,  -0x1.ba1ba1ba1a732p-5,  0x1.664f48822e9a5p-6,
        -0x1.226e3539b9272p-7,  0x1.d6d3c60009e9cp-9,  -0x1.7da25da5066b5p-10, 0x1.3547bfaa42508p-11,
        -0x1.f41d11ba745a0p-13, 0x1.8c93b7d5aba25p-14, -0x1.1adede7706052p-15, 0x1.08378067f032ap-17};
};

// terms[0] + terms[1] x + ...
template <class T, int count>
TINYGRAD_NM_INLINE Vec<T> polynomial(Vec<T> x, const double (&terms)[count]) {
    Vec<T> sum = Number<Vec<T>>::constant(terms[count - 1]);
#pragma GCC unroll 16
    for (int i = count - 2; i >= 0; --i) sum = fma(sum, x, Number<Vec<T>>::constant(terms[i]));
    return sum;
}

// A whole number held as floating point and as integer, from adding 1.5 * 2^fraction_bits, which leaves the
// number, rounded to nearest, in the low bits.
template <class T>
struct Whole {
    Vec<T> number;
    Int<T> integer;
};
template <class T>
TINYGRAD_NM_INLINE Whole<T> round_to_whole(Vec<T> x) {
    const Vec<T> shift =
        Number<Vec<T>>::constant(MathConstants<T>::fraction_bits == 23 ? 0x1.8p23 : 0x1.8p52);
    const Vec<T> shifted = x + shift;
    return {shifted - shift, bits(shifted) - bits(shift)};
}

// 2^n for normal results.
template <class T>
TINYGRAD_NM_INLINE Vec<T> power_of_two(Int<T> n) {
    return from_bits<T>((n + MathConstants<T>::exponent_bias) << MathConstants<T>::fraction_bits);
}

// x = n ln 2 + r, exp(x) = 2^n exp(r). The power is applied in two halves, so that a subnormal result is
// rounded once and an overflow becomes infinite.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_exp(Vec<T> x) {
    using M = MathConstants<T>;
    using N = Number<Vec<T>>;
    x = clamp(x, N::constant(M::exp_low), N::constant(M::exp_high));
    const Whole<T> n = round_to_whole(x * N::constant(0x1.71547652b82fep0));  // 1 / ln 2
    const Whole<T> half = round_to_whole(n.number * N::constant(0.5));
    const Vec<T> r = (x - n.number * N::constant(M::ln2_high)) - n.number * N::constant(M::ln2_low);
    const Vec<T> e = N::constant(1) + fma(r * r, polynomial(r, M::exp_terms), r);
    return e * power_of_two<T>(half.integer) * power_of_two<T>(n.integer - half.integer);
}

// Near zero the odd series; elsewhere 1 - 2 / (exp(2 |x|) + 1) with the sign of x.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_tanh(Vec<T> x) {
    using N = Number<Vec<T>>;
    const Vec<T> size = abs(x), square = x * x, one = N::constant(1);
    const Vec<T> near = fma(size * square, polynomial(square, MathConstants<T>::tanh_terms), size);
    const Vec<T> far = one - N::constant(2) / (math_exp(size + size) + one);
    const Vec<T> y = select(size <= N::constant(0.55), near, far);
    return from_bits<T>(bits(y) | (bits(x) ^ bits(size)));
}

template <class T>
TINYGRAD_NM_INLINE Vec<T> math_abs(Vec<T> x) {
    return abs(x);
}

// Loops that compile to vector instructions: square root is rounded correctly everywhere.
TINYGRAD_NM_INLINE Vec<float> math_sqrt(Vec<float> x) {
    for (int i = 0; i < Vec<float>::lanes; ++i) x.v[i] = ::sqrtf(x.v[i]);
    return x;
}
TINYGRAD_NM_INLINE Vec<double> math_sqrt(Vec<double> x) {
    for (int i = 0; i < Vec<double>::lanes; ++i) x.v[i] = ::sqrt(x.v[i]);
    return x;
}

TINYGRAD_NM_INLINE Vec<float> math_pow(Vec<float> x, float exponent) {
    for (int i = 0; i < Vec<float>::lanes; ++i) x.v[i] = ::powf(x.v[i], exponent);
    return x;
}
TINYGRAD_NM_INLINE Vec<double> math_pow(Vec<double> x, double exponent) {
    for (int i = 0; i < Vec<double>::lanes; ++i) x.v[i] = ::pow(x.v[i], exponent);
    return x;
}

#define TINYGRAD_NM_LANE_MATH(name)                                                            \
    template <class T>                                                                         \
    TINYGRAD_NM_INLINE Vec<T> math_##name(Vec<T> x) {                                          \
        T lane[Vec<T>::lanes];                                                                 \
        x.store(lane);                                                                         \
        for (int i = 0; i < Vec<T>::lanes; ++i) lane[i] = ::tinygrad_nm::math_##name(lane[i]); \
        return Vec<T>::load(lane);                                                             \
    }
TINYGRAD_NM_LANE_MATH(expm1)
TINYGRAD_NM_LANE_MATH(log1p)
TINYGRAD_NM_LANE_MATH(sin)
TINYGRAD_NM_LANE_MATH(cos)
TINYGRAD_NM_LANE_MATH(erfc)
#undef TINYGRAD_NM_LANE_MATH

}  // namespace
}  // namespace tinygrad_nm
