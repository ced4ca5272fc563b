// Mathematical functions on vectors, under the names that the formulas of shared/activation.h use.
//
// exp, tanh, scaled_tanh, sigmoid, softplus, log1p, expm1 and erfc (vector_math_erf.h) are our own. Their
// largest errors in units in the last place, for every argument and with subnormal results, measured on every
// 97th float and on 300,000 doubles of all exponents against 113-bit arithmetic, with and without a fused
// multiply-add:
//   exp 0.97   tanh 1.35   scaled_tanh 1.95   sigmoid 1.8   log1p 0.85   expm1 1.9   softplus 1.3   erfc 1.9
// tanh, scaled_tanh and sigmoid of floats in vectors of 64 bytes come from tables: 1.0, 1.9 and 1.9.
// softplus and erfc were measured against 64 bits of fraction, and on more doubles where erfc is not
// constant. A lane's result depends on that lane alone. The other functions call the C library for each lane:
// replace one by a polynomial here and every formula gains.
//
// The coefficients are Chebyshev fits computed with 40 digits (mpmath.chebyfit) and rounded:
//   exp(r) = 1 + r + r^2 P(r)   on |r| <= ln(2) / 2     relative error 2^-31 (float), 2^-61 (double)
//   tanh(x) = x + x^3 Q(x^2)    on |x| <= 0.55          relative error 2^-33 (float), 2^-63 (double)
//   1.7159 tanh(2 x / 3) = slope x + x^3 Q(x^2)  on |x| <= 1     2^-29, 2^-57
//   exp(4/3 r) = 1 + r P(r)     on |r| <= 3/8 ln(2)              2^-27, 2^-55
//   log(1 + f) = f - f^2 / 2 + s (f^2 / 2 + s^2 R(s^2)), s = f / (2 + f)     2^-31, 2^-60
#pragma once
#include "cpu/isa/vector.h"
#include "cpu/isa/vector_math_pieces.h"
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
    static constexpr int32_t fraction_mask = 0x7fffff;
    static constexpr double rounding_shift = 0x1.8p23;
    static constexpr double per_ln2 = 0x1.71547652b82fep0;
    static constexpr double ln2_high = 0x1.63p-1, ln2_low = -0x1.bd0105c610ca8p-13;  // high: 9 bits
    static constexpr double scaled_per_ln2 = 0x1.ec709dc3a03fdp0;
    static constexpr double scaled_ln2_high = 0x1.0ap-1, scaled_ln2_low = 0x1.591f9dd5b9b41p-12;
    static constexpr double expm1_low = -20;                // exp(x) - 1 rounds to -1 from here
    static constexpr double tanh_one = 10;                  // tanh rounds to 1 from here
    static constexpr double exp_low = -104, exp_high = 89;  // exp rounds to 0, to infinity
    static constexpr double exp_terms[] = {0x1p-1,       0x1.555556p-3, 0x1.5554e8p-5,
                                           0x1.1110ep-7, 0x1.6d43bp-10, 0x1.a1256cp-13};
    static constexpr double tanh_terms[] = {-0x1.555556p-2, 0x1.111104p-3, -0x1.ba142ep-5,
                                            0x1.657936p-6,  -0x1.17641p-7, 0x1.4b239ap-9};
    static constexpr double scaled_slope_low = 0x1.3ef11ep-25;
    static constexpr double scaled_tanh_terms[] = {-0x1.5b13eep-3, 0x1.ed9f28p-6,   -0x1.63310ap-8,
                                                   0x1.ff6c2p-11,  -0x1.6c9074p-13, 0x1.df6d4ep-16,
                                                   -0x1.a7b9b4p-19};
    static constexpr double scaled_exp_terms[] = {0x1.555556p0,  0x1.c71c72p-1, 0x1.948b1p-2,  0x1.0db184p-3,
                                                  0x1.1fac88p-5, 0x1.00acb4p-7, 0x1.86cbf2p-10};
    static constexpr double log_terms[] = {0x1.555556p-1, 0x1.9999ecp-2, 0x1.245c38p-2, 0x1.ddd172p-3};
};
template <>
struct MathConstants<double> {
    static constexpr int fraction_bits = 52, exponent_bias = 1023;
    static constexpr int64_t fraction_mask = 0xfffffffffffff;
    static constexpr double rounding_shift = 0x1.8p52;
    static constexpr double per_ln2 = 0x1.71547652b82fep0;
    static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;  // high: 32 bits
    static constexpr double scaled_per_ln2 = 0x1.ec709dc3a03fdp0;
    static constexpr double scaled_ln2_high = 0x1.0a2b23f2p-1, scaled_ln2_low = 0x1.bab73681aed59p-33;
    static constexpr double expm1_low = -40;
    static constexpr double tanh_one = 20;
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
    static constexpr double scaled_slope_low = 0x1.9050d3e654ec8p-54;
    static constexpr double scaled_tanh_terms[] = {
        -0x1.5b13edc67bebfp-3,  0x1.ed9f300938c6fp-6,  -0x1.6332e2e77b606p-8,  0x1.ffc66fa412ffep-11,
        -0x1.70bb483a67b95p-13, 0x1.09ac44f449d72p-15, -0x1.7ed66a4020f9ep-18, 0x1.13d4f7fa94c33p-20,
        -0x1.8d617c3c07bfcp-23, 0x1.1da667407b799p-25, -0x1.952ea0f865592p-28, 0x1.0e83e0c35723dp-30,
        -0x1.28ae33e76328dp-33, 0x1.7a30322181e5fp-37};
    static constexpr double scaled_exp_terms[] = {
        0x1.5555555555555p0,   0x1.c71c71c71c71cp-1,  0x1.948b0fcd6e9e6p-2,  0x1.0db20a88f4697p-3,
        0x1.1facd8098b2fcp-5,  0x1.ff6c2abba431dp-8,  0x1.85a7bf190ace1p-10, 0x1.03c52a0c12fd4p-12,
        0x1.33dff83dd909ep-15, 0x1.48666face380ep-18, 0x1.3f2fe690018d2p-21, 0x1.1ba0cba8d0defp-24};
    static constexpr double log_terms[] = {0x1.5555555555555p-1, 0x1.9999999999a38p-2, 0x1.2492492476ba1p-2,
                                           0x1.c71c72017a15cp-3, 0x1.745cf8f6c9119p-3, 0x1.3b1c38474d3eep-3,
                                           0x1.0fbe478772696p-3, 0x1.0c06cf14c641bp-3};
};

// terms[0] + terms[1] x + ...
template <class T, int count>
TINYGRAD_NM_INLINE Vec<T> polynomial(Vec<T> x, const double (&terms)[count]) {
    Vec<T> sum = Number<Vec<T>>::constant(terms[count - 1]);
#pragma GCC unroll 16
    for (int i = count - 2; i >= 0; --i) sum = fma(sum, x, Number<Vec<T>>::constant(terms[i]));
    return sum;
}

// x = n period + rest with n whole; period is high + low, of which high has so few bits that n high is exact.
template <class T>
struct Reduced {
    Vec<T> rest;
    Int<T> n;
};
template <class T>
TINYGRAD_NM_INLINE Reduced<T> reduce(Vec<T> x, double per_period, double high, double low) {
    using N = Number<Vec<T>>;
    const Vec<T> shift = N::constant(MathConstants<T>::rounding_shift);
    const Vec<T> shifted = fma(x, N::constant(per_period), shift), n = shifted - shift;
    const UInt<T> whole = (UInt<T>)bits(shifted) - (UInt<T>)bits(shift);  // of a NaN anything
    return {fma(n, N::constant(-low), fma(n, N::constant(-high), x)), (Int<T>)whole};
}

// 2^n for normal results.
template <class T>
TINYGRAD_NM_INLINE Vec<T> power_of_two(Int<T> n) {
    const UInt<T> biased = (UInt<T>)n + MathConstants<T>::exponent_bias;
    return from_bits<T>((Int<T>)(biased << MathConstants<T>::fraction_bits));
}

#if !(TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__))
// x 2^n, 2^n as a product of two normal numbers: multiplied in one after the other they round a subnormal
// result once, and make an overflow infinite. Both are 1 for n = 0.
template <class T>
TINYGRAD_NM_INLINE Vec<T> scale(Vec<T> x, Int<T> n) {
    using M = MathConstants<T>;
    const UInt<T> both = (UInt<T>)n + 2 * M::exponent_bias, half = both >> 1;
    return x * from_bits<T>((Int<T>)(half << M::fraction_bits)) *
           from_bits<T>((Int<T>)((both - half) << M::fraction_bits));
}
// x 2^floor(k) for k in whole 32nds.
TINYGRAD_NM_INLINE Vec<float> scale_by_floor(Vec<float> x, Vec<float> k) {
    const Vec<float> shift = Vec<float>::broadcast(0x1.8p18f);
    return scale(x, (Int<float>)((UInt<float>)bits(k + shift) - (UInt<float>)bits(shift)) >> 5);
}
#endif

// exp(x) = 2^n (1 + more), |more| < 0.42, for x of moderate size.
template <class T>
struct ExpParts {
    Vec<T> more;
    Int<T> n;
};
template <class T>
TINYGRAD_NM_INLINE ExpParts<T> exp_parts(Vec<T> x) {
    using M = MathConstants<T>;
    const Reduced<T> x_reduced = reduce<T>(x, M::per_ln2, M::ln2_high, M::ln2_low);
    const Vec<T> r = x_reduced.rest;
    return {fma(r * r, polynomial(r, M::exp_terms), r), x_reduced.n};
}

template <class T>
TINYGRAD_NM_INLINE Vec<T> math_exp(Vec<T> x) {
    using M = MathConstants<T>;
    using N = Number<Vec<T>>;
    const ExpParts<T> e = exp_parts(clamp(x, N::constant(M::exp_low), N::constant(M::exp_high)));
    return scale(N::constant(1) + e.more, e.n);
}

// y with the sign bit of x set: for y that is positive, 0 or of the sign of x.
template <class T>
TINYGRAD_NM_INLINE Vec<T> with_sign_of(Vec<T> x, Vec<T> y) {
    return from_bits<T>(bits(y) | (bits(x) ^ bits(abs(x))));
}

// exp(x) - 1 = 2^n more + (2^n - 1), both halved, so that 2^n may be just beyond the largest number.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_expm1(Vec<T> x) {
    using M = MathConstants<T>;
    using N = Number<Vec<T>>;
    const ExpParts<T> e = exp_parts(clamp(x, N::constant(M::expm1_low), N::constant(M::exp_high)));
    const Vec<T> power = power_of_two<T>((Int<T>)((UInt<T>)e.n - 1)), half = N::constant(0.5);
    const Vec<T> far = N::constant(2) * fma(e.more, power, power - half);
    return with_sign_of(x, select(e.n == 0, e.more, far));  // that of -0 is lost on the way
}

// 1 / (x + low), |low| at most about a unit in the last place of x.
template <class T>
TINYGRAD_NM_INLINE Vec<T> reciprocal(Vec<T> x, Vec<T> low) {
    using N = Number<Vec<T>>;
    Vec<T> r = estimate_reciprocal(x);
    if constexpr (reciprocal_steps<T> == 0) return fma(-(low * r), r, r);
    for (int i = 1; i < reciprocal_steps<T>; ++i) r = fma(r, fma(-x, r, N::constant(1)), r);
    return fma(r, fma(-low, r, fma(-x, r, N::constant(1))), r);
}

// An odd function from its pieces (vector_math_pieces.h), constant from `end` on: no exponential, no
// division. For vectors of 16 floats, whose processors look 32 numbers up at once.
template <class T>
constexpr bool has_pieces = TINYGRAD_NM_VECTOR_BYTES == 64 && sizeof(T) == 4;
TINYGRAD_NM_INLINE Vec<float> from_pieces(Vec<float> x, const float (&pieces)[7][32], double end) {
    using N = Number<Vec<float>>;
    const Vec<float> size = at_most(abs(x), N::constant(end));
    const Int<float> piece = bits(at_least(size, N::constant(0x1p-4))) >> 21;
    const Vec<float> t = size - lookup(pieces[0], piece);
    Vec<float> slope = lookup(pieces[6], piece);
#pragma GCC unroll 4
    for (int row = 5; row >= 2; --row) slope = fma(slope, t, lookup(pieces[row], piece));
    return with_sign_of(x, fma(slope, t, lookup(pieces[1], piece)));
}

// top - 2 top / (exp + 1): top tanh(y) from the parts of exp(2 y), y >= 0.
template <class T>
TINYGRAD_NM_INLINE Vec<T> tanh_from(ExpParts<T> e, double top) {
    using N = Number<Vec<T>>;
    const Vec<T> power = power_of_two<T>(e.n);
    return N::constant(top) - N::constant(2 * top) / fma(e.more, power, power + N::constant(1));
}

// Near zero the odd series; elsewhere 1 - 2 / (exp(2 |x|) + 1), which is 1 where exp is clamped.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_tanh(Vec<T> x) {
    using N = Number<Vec<T>>;
    using M = MathConstants<T>;
    if constexpr (has_pieces<T>) return from_pieces(x, tanh_pieces, 9.5);
    const Vec<T> size = abs(x), square = x * x;
    const Vec<T> near = fma(size * square, polynomial(square, M::tanh_terms), size);
    const Vec<T> y = at_most(size, N::constant(M::tanh_one));
    const Vec<T> far = tanh_from(exp_parts(y + y), 1);
    return with_sign_of(x, select(size <= N::constant(0.55), near, far));
}

// 1.7159 tanh(2 x / 3) in the same way, both constants inside of the polynomials: two roundings less.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_scaled_tanh(Vec<T> x) {
    using N = Number<Vec<T>>;
    using M = MathConstants<T>;
    if constexpr (has_pieces<T>) return from_pieces(x, scaled_tanh_pieces, 15);
    constexpr double slope = ScaledTanh::height * ScaledTanh::rate;
    const Vec<T> size = abs(x), square = x * x;
    const Vec<T> small =
        fma(square, polynomial(square, M::scaled_tanh_terms), N::constant(M::scaled_slope_low));
    const Vec<T> near = fma(size, N::constant(slope), size * small);
    const Vec<T> y = at_most(size, N::constant(M::tanh_one / ScaledTanh::rate));
    const Reduced<T> y_reduced = reduce<T>(y, M::scaled_per_ln2, M::scaled_ln2_high, M::scaled_ln2_low);
    const Vec<T> more = y_reduced.rest * polynomial(y_reduced.rest, M::scaled_exp_terms);
    const Vec<T> far = tanh_from(ExpParts<T>{more, y_reduced.n}, ScaledTanh::height);
    return with_sign_of(x, select(size <= N::constant(1), near, far));
}

// exp(-|x|) = e = 2^k (1 + r + r^2 / 2 + r^3 / 6), k a multiple of 1/32, |r| <= ln(2) / 64; 2^k from a table
// and an exponent. Then 1 / (1 + e), times e for x < 0. 1 - estimate is exact, so that the reciprocal makes
// up for what is lost in rounding 1 + e.
TINYGRAD_NM_INLINE Vec<float> sigmoid_from_powers(Vec<float> x) {
    using N = Number<Vec<float>>;
    using M = MathConstants<float>;
    const Vec<float> shift = N::constant(M::rounding_shift / 32), one = N::constant(1);
    const Vec<float> minus = from_bits<float>(bits(x) | bits(N::constant(-0.0)));
    const Vec<float> y = at_least(minus, N::constant(M::exp_low));
    const Vec<float> shifted = fma(y, N::constant(M::per_ln2), shift), k = shifted - shift;
    const Vec<float> r = fma(k, N::constant(-M::ln2_low), fma(k, N::constant(-M::ln2_high), y));
    const Vec<float> power = lookup(powers_of_two[0], bits(shifted));
    const Vec<float> rest = r + lookup(powers_of_two[1], bits(shifted));
    const Vec<float> more = fma(r * r, fma(r, N::constant(1.0 / 6), N::constant(0.5)), rest);
    const Vec<float> e = scale_by_floor(fma(power, more, power), k);
    const Vec<float> estimate = estimate_reciprocal(one + e);
    const Vec<float> upper = fma(estimate, fma(-e, estimate, one - estimate), estimate);
    return select(bits(x) < 0, e * upper, upper);
}

// With exp(-x) = 2^n (1 + more): 2^-n / (2^-n + 1 + more), where the reciprocal makes up for what is lost in
// rounding the sum. x is clamped to where sigmoid rounds to 0 and to 1.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_sigmoid(Vec<T> x) {
    using N = Number<Vec<T>>;
    using M = MathConstants<T>;
    if constexpr (has_pieces<T>) return sigmoid_from_powers(x);
    const ExpParts<T> e = exp_parts(clamp(-x, N::constant(M::expm1_low), N::constant(-M::exp_low)));
    const Int<T> n = (Int<T>)(-(UInt<T>)e.n);
    const Vec<T> one = N::constant(1), whole = scale(one, n) + one, sum = whole + e.more;
    return scale(reciprocal(sum, e.more - (sum - whole)), n);
}

// log(m 2^k (1 + c)) with tiny c: for m - 1 = f the series of atanh(s), s = f / (2 + f).
template <class T>
TINYGRAD_NM_INLINE Vec<T> log_with(Vec<T> x, Vec<T> c) {
    using N = Number<Vec<T>>;
    using M = MathConstants<T>;
    const Int<T> root_half = bits(N::constant(0.70710678118654752440)), one = bits(N::constant(1));
    const Int<T> above = (Int<T>)((UInt<T>)bits(x) + (UInt<T>)(one - root_half));
    const Int<T> exponent = (Int<T>)((UInt<T>)above >> M::fraction_bits) - M::exponent_bias;
    const Vec<T> shift = N::constant(M::rounding_shift), k = from_bits<T>(bits(shift) + exponent) - shift;
    const Vec<T> f = from_bits<T>((above & M::fraction_mask) + root_half) - N::constant(1);
    const Vec<T> s = f / (N::constant(2) + f), z = s * s, half_square = N::constant(0.5) * f * f;
    const Vec<T> more =
        fma(s, fma(z, polynomial(z, M::log_terms), half_square), fma(k, N::constant(M::ln2_low), c));
    return k * N::constant(M::ln2_high) - ((half_square - more) - f);
}

// log(1 + x) for x > -1; -infinity at -1, NaN below.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_log1p(Vec<T> x) {
    using N = Number<Vec<T>>;
    const Vec<T> one = N::constant(1), infinite = N::constant(HUGE_VAL);
    const Vec<T> u = one + x, v = u - x;
    const Vec<T> lost = (x - (u - v)) + (one - v);
    Vec<T> y = log_with(u, lost / u);
    y = select(x == -one, -infinite, y);
    y = select(x < -one, infinite - infinite, y);
    return select((x == infinite) | is_nan(x), x, y);
}

// log(1 + exp(x)) = max(x, 0) + log(1 + e), e = exp(-|x|); the logarithm takes what e and 1 + e lost.
template <class T>
TINYGRAD_NM_INLINE Vec<T> math_softplus(Vec<T> x) {
    using N = Number<Vec<T>>;
    using M = MathConstants<T>;
    const Vec<T> zero = Vec<T>::zero(), one = N::constant(1);
    const ExpParts<T> parts = exp_parts(at_least(-abs(x), N::constant(M::exp_low)));
    const Vec<T> rounded = one + parts.more, e = scale(rounded, parts.n), u = one + e;
    const Vec<T> e_low = scale(parts.more - (rounded - one), parts.n);
    const Vec<T> y = at_least(x, zero) + log_with(u, ((e - (u - one)) + e_low) / u);
    return select(is_nan(x), x, y);
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
TINYGRAD_NM_LANE_MATH(sin)
TINYGRAD_NM_LANE_MATH(cos)
#undef TINYGRAD_NM_LANE_MATH

}  // namespace
}  // namespace tinygrad_nm
