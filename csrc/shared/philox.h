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

// Ten rounds on the counters, in place; all lanes share the key (low word, high word).
template <int lanes>
TINYGRAD_NM_HOST_DEVICE void philox4x32_10(Philox4x32<lanes>& counter, uint32_t key_low, uint32_t key_high) {
    for (int round = 0; round < 10; ++round) {
        for (int lane = 0; lane < lanes; ++lane) {
            const uint64_t a = uint64_t(0xD2511F53u) * counter.word[0][lane];
            const uint64_t b = uint64_t(0xCD9E8D57u) * counter.word[2][lane];
            counter.word[0][lane] = uint32_t(b >> 32) ^ counter.word[1][lane] ^ key_low;
            counter.word[1][lane] = uint32_t(b);
            counter.word[2][lane] = uint32_t(a >> 32) ^ counter.word[3][lane] ^ key_high;
            counter.word[3][lane] = uint32_t(a);
        }
        key_low += 0x9E3779B9u;   // golden ratio
        key_high += 0xBB67AE85u;  // sqrt 3 - 1
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
