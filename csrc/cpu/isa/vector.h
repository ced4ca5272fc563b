// One vector type over the compiler's vectors: Vec<float> and Vec<double> of TINYGRAD_NM_VECTOR_BYTES.
//
// Arithmetic is elementwise and never contracted (-ffp-contract=off): fma() is the only fused operation, on
// processors that have one; elsewhere it rounds twice. Everything is in an anonymous namespace: see body.h.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace tinygrad_nm {
namespace {

#define TINYGRAD_NM_INLINE inline __attribute__((always_inline))
#define TINYGRAD_NM_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
struct Native;
template <>
struct Native<float> {
    typedef float Float __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    typedef int32_t Int __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    typedef uint32_t UInt __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    using Integer = int32_t;
};
template <>
struct Native<double> {
    typedef double Float __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    typedef int64_t Int __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    typedef uint64_t UInt __attribute__((vector_size(TINYGRAD_NM_VECTOR_BYTES)));
    using Integer = int64_t;
};

// Int: vector of as many integers of the same size; as a mask, all bits of a lane are set or clear.
template <class T>
using Int = typename Native<T>::Int;
template <class T>
using UInt = typename Native<T>::UInt;

template <class T>
struct Vec {
    using Float = typename Native<T>::Float;
    using Mask = Int<T>;
    static constexpr int lanes = TINYGRAD_NM_VECTOR_BYTES / int(sizeof(T));

    Float v;

    static TINYGRAD_NM_INLINE Vec broadcast(T x) { return {x - Float{}}; }  // x - 0 keeps -0 and NaN
    static TINYGRAD_NM_INLINE Vec zero() { return {Float{}}; }
    // Any alignment of at least one byte.
    static TINYGRAD_NM_INLINE Vec load(const T* p) {
        Vec r;
        memcpy(&r.v, p, sizeof(r.v));
        return r;
    }
    TINYGRAD_NM_INLINE void store(T* p) const { memcpy(p, &v, sizeof(v)); }
    // Past the caches, which saves reading what is overwritten: p on a multiple of the vector's bytes. Before
    // another thread reads it: streamed().
    TINYGRAD_NM_INLINE void stream(T* p) const;
    // The first n lanes, 0 <= n <= lanes; the others become 0 and their memory is not touched.
    static TINYGRAD_NM_INLINE Vec load(const T* p, int n);
    TINYGRAD_NM_INLINE void store(T* p, int n) const;

    friend TINYGRAD_NM_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
    friend TINYGRAD_NM_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
    friend TINYGRAD_NM_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
    friend TINYGRAD_NM_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
    friend TINYGRAD_NM_INLINE Vec operator-(Vec a) { return {-a.v}; }
    friend TINYGRAD_NM_INLINE Mask operator<(Vec a, Vec b) { return a.v < b.v; }
    friend TINYGRAD_NM_INLINE Mask operator<=(Vec a, Vec b) { return a.v <= b.v; }
    friend TINYGRAD_NM_INLINE Mask operator>(Vec a, Vec b) { return a.v > b.v; }
    friend TINYGRAD_NM_INLINE Mask operator>=(Vec a, Vec b) { return a.v >= b.v; }
    friend TINYGRAD_NM_INLINE Mask operator==(Vec a, Vec b) { return a.v == b.v; }
    friend TINYGRAD_NM_INLINE Mask operator!=(Vec a, Vec b) { return a.v != b.v; }
};

// x, loaded once: compilers would rather read memory again for each use, and loads are what then runs out.
template <class T>
TINYGRAD_NM_INLINE Vec<T> in_register(Vec<T> x) {
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
    asm("" : "+v"(x.v));
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__AVX2__)
    asm("" : "+x"(x.v));
#endif
    return x;
}

template <class T>
TINYGRAD_NM_INLINE void Vec<T>::stream(T* p) const {
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
    _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__AVX2__)
    _mm256_stream_si256((__m256i*)p, (__m256i)v);
#else
    store(p);
#endif
}
TINYGRAD_NM_INLINE void streamed() {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

// Partial vectors: masked instructions where the set has them, else a copy of n elements.
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
template <>
TINYGRAD_NM_INLINE Vec<float> Vec<float>::load(const float* p, int n) {
    return {(Float)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p)};
}
template <>
TINYGRAD_NM_INLINE Vec<double> Vec<double>::load(const double* p, int n) {
    return {(Float)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p)};
}
template <>
TINYGRAD_NM_INLINE void Vec<float>::store(float* p, int n) const {
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
template <>
TINYGRAD_NM_INLINE void Vec<double>::store(double* p, int n) const {
    _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
}
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__AVX2__)
template <>
TINYGRAD_NM_INLINE Vec<float> Vec<float>::load(const float* p, int n) {
    const Mask lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return {(Float)_mm256_maskload_ps(p, (__m256i)(lane < n))};
}
template <>
TINYGRAD_NM_INLINE Vec<double> Vec<double>::load(const double* p, int n) {
    const Mask lane = {0, 1, 2, 3};
    return {(Float)_mm256_maskload_pd(p, (__m256i)(lane < n))};
}
template <>
TINYGRAD_NM_INLINE void Vec<float>::store(float* p, int n) const {
    const Mask lane = {0, 1, 2, 3, 4, 5, 6, 7};
    _mm256_maskstore_ps(p, (__m256i)(lane < n), (__m256)v);
}
template <>
TINYGRAD_NM_INLINE void Vec<double>::store(double* p, int n) const {
    const Mask lane = {0, 1, 2, 3};
    _mm256_maskstore_pd(p, (__m256i)(lane < n), (__m256d)v);
}
#else
template <class T>
TINYGRAD_NM_INLINE Vec<T> Vec<T>::load(const T* p, int n) {
    Vec r = zero();
    memcpy(&r.v, p, size_t(n) * sizeof(T));
    return r;
}
template <class T>
TINYGRAD_NM_INLINE void Vec<T>::store(T* p, int n) const {
    memcpy(p, &v, size_t(n) * sizeof(T));
}
#endif

// The first min(n, lanes) elements, n >= 0: whole vectors are the fast way.
template <class T>
TINYGRAD_NM_INLINE Vec<T> load_up_to(const T* p, int n) {
    return n >= Vec<T>::lanes ? Vec<T>::load(p) : Vec<T>::load(p, n);
}
template <class T>
TINYGRAD_NM_INLINE void store_up_to(Vec<T> x, T* p, int n) {
    if (n >= Vec<T>::lanes)
        x.store(p);
    else
        x.store(p, n);
}

template <class T>
TINYGRAD_NM_INLINE Vec<T> select(Int<T> mask, Vec<T> a, Vec<T> b) {  // mask ? a : b, lane by lane
    return {mask ? a.v : b.v};
}
template <class T>
TINYGRAD_NM_INLINE Int<T> is_nan(Vec<T> a) {
    return a.v != a.v;
}
// NaN if either is; of two equal ones (0 and -0) the second.
template <class T>
TINYGRAD_NM_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
    return select<T>((a > b) | is_nan(a), a, b);
}
template <class T>
TINYGRAD_NM_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
    return select<T>((a < b) | is_nan(a), a, b);
}

// Two vectors of numbers in a row taken apart into those at even and at odd places, and put together again.
template <class T>
struct Halves {
    Vec<T> first, second;
};
template <class T>
TINYGRAD_NM_INLINE Halves<T> deinterleave(Vec<T> a, Vec<T> b) {
    constexpr int lanes = Vec<T>::lanes;
    if constexpr (lanes == 2)
        return {{__builtin_shufflevector(a.v, b.v, 0, 2)}, {__builtin_shufflevector(a.v, b.v, 1, 3)}};
    else if constexpr (lanes == 4)
        return {{__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6)},
                {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7)}};
    else if constexpr (lanes == 8)
        return {{__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6, 8, 10, 12, 14)},
                {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7, 9, 11, 13, 15)}};
    else
        return {
            {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)},
            {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)}};
}
template <class T>
TINYGRAD_NM_INLINE Halves<T> interleave(Vec<T> a, Vec<T> b) {
    constexpr int lanes = Vec<T>::lanes;
    if constexpr (lanes == 2)
        return {{__builtin_shufflevector(a.v, b.v, 0, 2)}, {__builtin_shufflevector(a.v, b.v, 1, 3)}};
    else if constexpr (lanes == 4)
        return {{__builtin_shufflevector(a.v, b.v, 0, 4, 1, 5)},
                {__builtin_shufflevector(a.v, b.v, 2, 6, 3, 7)}};
    else if constexpr (lanes == 8)
        return {{__builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 2, 10, 3, 11)},
                {__builtin_shufflevector(a.v, b.v, 4, 12, 5, 13, 6, 14, 7, 15)}};
    else
        return {{__builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)},
                {__builtin_shufflevector(a.v, b.v, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                         31)}};
}

// The low bytes of the integers, one a lane: __builtin_convertvector moves them one by one.
template <class T>
TINYGRAD_NM_INLINE void store_bytes(Int<T> a, uint8_t* p) {
    for (int i = 0; i < Vec<T>::lanes; ++i) p[i] = uint8_t(a[i]);
}
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
template <>
TINYGRAD_NM_INLINE void store_bytes<float>(Int<float> a, uint8_t* p) {
    _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(-1, (__m512i)a));
}
template <>
TINYGRAD_NM_INLINE void store_bytes<double>(Int<double> a, uint8_t* p) {
    _mm_storel_epi64((__m128i*)p, _mm512_maskz_cvtepi64_epi8(-1, (__m512i)a));
}
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__AVX2__)
template <>
TINYGRAD_NM_INLINE void store_bytes<float>(Int<float> a, uint8_t* p) {
    const __m256i low = _mm256_set1_epi32(0x0c080400), bytes = _mm256_shuffle_epi8((__m256i)a, low);
    _mm_storel_epi64((__m128i*)p,
                     _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}
template <>
TINYGRAD_NM_INLINE void store_bytes<double>(Int<double> a, uint8_t* p) {
    const __m256i low = _mm256_set1_epi16(0x0800), bytes = _mm256_shuffle_epi8((__m256i)a, low);
    _mm_storeu_si32(p, _mm_unpacklo_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}
#endif

// x, but not below low or above high; a NaN in x stays. One instruction where comparing and choosing are two.
// (GCC 12 warns of an undefined operand in _mm512_max_ps: thus the masked form.)
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
TINYGRAD_NM_INLINE Vec<float> at_least(Vec<float> x, Vec<float> low) {
    return {(Vec<float>::Float)_mm512_maskz_max_ps(-1, (__m512)low.v, (__m512)x.v)};
}
TINYGRAD_NM_INLINE Vec<double> at_least(Vec<double> x, Vec<double> low) {
    return {(Vec<double>::Float)_mm512_maskz_max_pd(-1, (__m512d)low.v, (__m512d)x.v)};
}
TINYGRAD_NM_INLINE Vec<float> at_most(Vec<float> x, Vec<float> high) {
    return {(Vec<float>::Float)_mm512_maskz_min_ps(-1, (__m512)high.v, (__m512)x.v)};
}
TINYGRAD_NM_INLINE Vec<double> at_most(Vec<double> x, Vec<double> high) {
    return {(Vec<double>::Float)_mm512_maskz_min_pd(-1, (__m512d)high.v, (__m512d)x.v)};
}
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__AVX2__)
TINYGRAD_NM_INLINE Vec<float> at_least(Vec<float> x, Vec<float> low) {
    return {(Vec<float>::Float)_mm256_max_ps((__m256)low.v, (__m256)x.v)};
}
TINYGRAD_NM_INLINE Vec<double> at_least(Vec<double> x, Vec<double> low) {
    return {(Vec<double>::Float)_mm256_max_pd((__m256d)low.v, (__m256d)x.v)};
}
TINYGRAD_NM_INLINE Vec<float> at_most(Vec<float> x, Vec<float> high) {
    return {(Vec<float>::Float)_mm256_min_ps((__m256)high.v, (__m256)x.v)};
}
TINYGRAD_NM_INLINE Vec<double> at_most(Vec<double> x, Vec<double> high) {
    return {(Vec<double>::Float)_mm256_min_pd((__m256d)high.v, (__m256d)x.v)};
}
#else
template <class T>
TINYGRAD_NM_INLINE Vec<T> at_least(Vec<T> x, Vec<T> low) {
    return select(x < low, low, x);
}
template <class T>
TINYGRAD_NM_INLINE Vec<T> at_most(Vec<T> x, Vec<T> high) {
    return select(x > high, high, x);
}
#endif
template <class T>
TINYGRAD_NM_INLINE Vec<T> clamp(Vec<T> x, Vec<T> low, Vec<T> high) {
    return at_most(at_least(x, low), high);
}

// The bits of the lanes as integers and back; conversion of values (to_int truncates, in range only).
template <class T>
TINYGRAD_NM_INLINE Int<T> bits(Vec<T> a) {
    return (Int<T>)a.v;
}
template <class T>
TINYGRAD_NM_INLINE Vec<T> from_bits(Int<T> i) {
    return {(typename Vec<T>::Float)i};
}
template <class T>
TINYGRAD_NM_INLINE Int<T> to_int(Vec<T> a) {
    return __builtin_convertvector(a.v, Int<T>);
}
template <class T>
TINYGRAD_NM_INLINE Vec<T> to_float(Int<T> i) {
    return {__builtin_convertvector(i, typename Vec<T>::Float)};
}
template <class T>
TINYGRAD_NM_INLINE Vec<T> abs(Vec<T> a) {
    constexpr int sign = int(sizeof(T)) * 8 - 1;
    return from_bits<T>(bits(a) & ~(Int<T>{} + (typename Native<T>::Integer(1) << (sign - 1) << 1)));
}

// a * b + c, rounded once where the instruction set has it.
TINYGRAD_NM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return {(Vec<float>::Float)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__FMA__)
    return {(Vec<float>::Float)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
#elif TINYGRAD_NM_VECTOR_BYTES == 16 && defined(__aarch64__)
    return {(Vec<float>::Float)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)};
#else
    return a * b + c;
#endif
}
TINYGRAD_NM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
    return {(Vec<double>::Float)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
#elif TINYGRAD_NM_VECTOR_BYTES == 32 && defined(__FMA__)
    return {(Vec<double>::Float)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
#elif TINYGRAD_NM_VECTOR_BYTES == 16 && defined(__aarch64__)
    return {(Vec<double>::Float)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v)};
#else
    return a * b + c;
#endif
}

// About 1 / x, the relative error below 2^-14, for normal x with a normal 1 / x; Newton's steps from there to
// full precision. Where vectors divide fast the estimate is the quotient itself.
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
TINYGRAD_NM_INLINE Vec<float> estimate_reciprocal(Vec<float> x) {
    return {(Vec<float>::Float)_mm512_maskz_rcp14_ps(-1, (__m512)x.v)};
}
TINYGRAD_NM_INLINE Vec<double> estimate_reciprocal(Vec<double> x) {
    return {(Vec<double>::Float)_mm512_maskz_rcp14_pd(-1, (__m512d)x.v)};
}
template <class T>
constexpr int reciprocal_steps = sizeof(T) == 4 ? 1 : 2;
// x 2^n, rounded once; elsewhere vector_math.h has it.
TINYGRAD_NM_INLINE Vec<float> scale(Vec<float> x, Int<float> n) {
    return {(Vec<float>::Float)_mm512_maskz_scalef_ps(-1, (__m512)x.v, (__m512)to_float<float>(n).v)};
}
TINYGRAD_NM_INLINE Vec<double> scale(Vec<double> x, Int<double> n) {
    return {(Vec<double>::Float)_mm512_maskz_scalef_pd(-1, (__m512d)x.v, (__m512d)to_float<double>(n).v)};
}
TINYGRAD_NM_INLINE Vec<float> scale_by_floor(Vec<float> x, Vec<float> k) {
    return {(Vec<float>::Float)_mm512_maskz_scalef_ps(-1, (__m512)x.v, (__m512)k.v)};
}
#else
template <class T>
TINYGRAD_NM_INLINE Vec<T> estimate_reciprocal(Vec<T> x) {
    return Vec<T>::broadcast(1) / x;
}
template <class T>
constexpr int reciprocal_steps = 0;
#endif

// table[i mod 32], lane by lane: one instruction on AVX-512, elsewhere slow.
TINYGRAD_NM_INLINE Vec<float> lookup(const float (&table)[32], Int<float> i) {
    Vec<float> found;
#if TINYGRAD_NM_VECTOR_BYTES == 64 && defined(__AVX512F__)
    const __m512 low = _mm512_loadu_ps(table), high = _mm512_loadu_ps(table + 16);
    found.v = (Vec<float>::Float)_mm512_permutex2var_ps(low, (__m512i)i, high);
#else
    for (int lane = 0; lane < Vec<float>::lanes; ++lane) found.v[lane] = table[i[lane] & 31];
#endif
    return found;
}

// The sum of the lanes, in an order that depends on nothing but their number: halves are added pairwise.
template <class T>
TINYGRAD_NM_INLINE T sum(Vec<T> a) {
    T lane[Vec<T>::lanes];
    a.store(lane);
    for (int width = Vec<T>::lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    return lane[0];
}

}  // namespace
}  // namespace tinygrad_nm
