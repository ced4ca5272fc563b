// Checked 64-bit arithmetic for shapes: every product or sum of sizes goes through these functions.
#pragma once
#include <cstdint>
#include <initializer_list>

namespace tinygrad_nm {

// Throws std::overflow_error "<operation>: a size exceeds 64-bit integers, use smaller shapes".
// Defined in checked.cpp: files compiled for one instruction set must not instantiate library templates.
[[noreturn]] void throw_size_overflow(const char* operation);

static inline int64_t checked_add(const char* operation, int64_t a, int64_t b) {
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) throw_size_overflow(operation);
    return sum;
}

static inline int64_t checked_subtract(const char* operation, int64_t a, int64_t b) {
    int64_t difference;
    if (__builtin_sub_overflow(a, b, &difference)) throw_size_overflow(operation);
    return difference;
}

static inline int64_t checked_product(const char* operation, std::initializer_list<int64_t> factors) {
    // A zero factor makes the product zero whatever the others are (an empty array of huge other sizes).
    for (const int64_t* f = factors.begin(); f != factors.end(); ++f)
        if (*f == 0) return 0;
    int64_t product = 1;
    for (const int64_t* f = factors.begin(); f != factors.end(); ++f)
        if (__builtin_mul_overflow(product, *f, &product)) throw_size_overflow(operation);
    return product;
}

}  // namespace tinygrad_nm
