// CUDA's vector types and what makes them, with its alignments: a vector of 4, 8 or 16 bytes is read and
// written at once. Those of 32 bytes are left out: CUDA 13 replaces them.
#pragma once

#define TINYGRAD_NM_VECTORS_OF_2_AND_3(T, name)       \
    struct alignas(2 * sizeof(T)) name##2 {           \
        T x, y;                                       \
    };                                                \
    struct name##3 {                                  \
        T x, y, z;                                    \
    };                                                \
    constexpr name##2 make_##name##2(T x, T y) {      \
        return {x, y};                                \
    }                                                 \
    constexpr name##3 make_##name##3(T x, T y, T z) { \
        return {x, y, z};                             \
    }
#define TINYGRAD_NM_VECTORS(T, name)                       \
    TINYGRAD_NM_VECTORS_OF_2_AND_3(T, name)                \
    struct alignas(4 * sizeof(T)) name##4 {                \
        T x, y, z, w;                                      \
    };                                                     \
    constexpr name##4 make_##name##4(T x, T y, T z, T w) { \
        return {x, y, z, w};                               \
    }
TINYGRAD_NM_VECTORS(signed char, char)
TINYGRAD_NM_VECTORS(unsigned char, uchar)
TINYGRAD_NM_VECTORS(short, short)
TINYGRAD_NM_VECTORS(unsigned short, ushort)
TINYGRAD_NM_VECTORS(int, int)
TINYGRAD_NM_VECTORS(unsigned, uint)
TINYGRAD_NM_VECTORS(float, float)
TINYGRAD_NM_VECTORS_OF_2_AND_3(long long, longlong)
TINYGRAD_NM_VECTORS_OF_2_AND_3(unsigned long long, ulonglong)
TINYGRAD_NM_VECTORS_OF_2_AND_3(double, double)
#undef TINYGRAD_NM_VECTORS
#undef TINYGRAD_NM_VECTORS_OF_2_AND_3

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
