// Philox4x32-10, the counter-based random generator of Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011: four random 32-bit words are a function of a 128-bit counter and a
// 64-bit key.
#pragma once
#include <stdint.h>

#include "shared/activation.h"  // TINYGRAD_NM_HOST_DEVICE

namespace tinygrad_nm {

// `lanes` generators side by side, which a compiler turns into vector instructions: word[i][lane].
template <int lanes>
struct Philox4x32 {
    uint32_t word[4][lanes];
};

// Ten rounds on the counters, in place; all lanes share the key (low word, high word). The rounds are
// unrolled so that the loop over lanes becomes vector instructions.
template <int lanes>
TINYGRAD_NM_HOST_DEVICE void philox4x32_10(Philox4x32<lanes>& counter, uint32_t key_low, uint32_t key_high) {
    for (int lane = 0; lane < lanes; ++lane) {
        uint32_t w0 = counter.word[0][lane], w1 = counter.word[1][lane];
        uint32_t w2 = counter.word[2][lane], w3 = counter.word[3][lane];
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
        for (uint32_t round = 0; round < 10; ++round) {
            const uint64_t a = uint64_t(0xD2511F53u) * w0, b = uint64_t(0xCD9E8D57u) * w2;
            w0 = uint32_t(b >> 32) ^ w1 ^ (key_low + round * 0x9E3779B9u);  // golden ratio
            w1 = uint32_t(b);
            w2 = uint32_t(a >> 32) ^ w3 ^ (key_high + round * 0xBB67AE85u);  // sqrt 3 - 1
            w3 = uint32_t(a);
        }
        counter.word[0][lane] = w0, counter.word[1][lane] = w1;
        counter.word[2][lane] = w2, counter.word[3][lane] = w3;
    }
}

// A random word keeps its element iff u = (word >> 8) 2^-24, uniform on [0, 1), is at least p: as integers,
// exactly. 0 <= p <= 1; p = 1 keeps nothing.
TINYGRAD_NM_HOST_DEVICE uint32_t dropout_threshold(double p) {
    return uint32_t(ceil(p * 16777216.0));
}
TINYGRAD_NM_HOST_DEVICE bool dropout_keeps(uint32_t word, uint32_t threshold) {
    return word >> 8 >= threshold;
}

}  // namespace tinygrad_nm
