// Dropout: Srivastava et al. 2014, with the scaling in training.
//
// out, x (examples, elements); the gradient is the same kernel on dy. Element e of example n is
//   out[n][e] = x[n][e] / (1 - p) where kept, else 0 (also where x is NaN or infinite)
// and is kept iff (word >> 8) 2^-24 >= p, word number e % 4 of
//   Philox4x32-10(key = seed, counter = (e / 4, first_example + n, low word of stream, high word of stream)):
// a function of these numbers alone, so any cut of the work and any machine draw the same.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct Dropout {
    T* out;
    const T* x;
    int64_t examples, elements;
    double p;
    uint64_t seed, stream;
    int64_t first_example;
};

// Throws std::invalid_argument unless 0 <= p <= 1 and the counter's words hold element / 4 and the example.
template <class T>
void dropout(const Dropout<T>& a);

}  // namespace tinygrad_nm
