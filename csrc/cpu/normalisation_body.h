// The local response normalisation kernels of one instruction set; shapes and sums in normalisation.h.
#pragma once
#include "cpu/arena.h"
#include "cpu/isa/vector_math.h"
#include "cpu/parallel.h"
#include "shared/normalisation.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t lrn_block = 512;  // positions: some channels of them, what a window needs, stay in L1

// The channels of one group at `width` positions side by side.
template <class T>
struct LrnBlock {
    const LocalResponseNorm<T>& a;
    int64_t offset;  // of the group's first channel at the first position
    int64_t channels, width;

    int64_t at(int64_t channel) const { return offset + channel * a.plane; }
    // The window of `before` channels below c and `after` above it, cut at the group's ends.
    int64_t first(int64_t c, int64_t before) const { return c > before ? c - before : 0; }
    int64_t last(int64_t c, int64_t after) const { return after < channels - c ? c + after + 1 : channels; }
};

// d^-beta and 1 / d. The paper's beta 0.75 takes two square roots and one division, and is within 3 units in
// the last place.
template <class T>
struct LrnPower {
    Vec<T> scale, inverse;

    TINYGRAD_NM_INLINE LrnPower(Vec<T> d, double beta) {
        const Vec<T> one = Vec<T>::broadcast(1);
        if (beta == 0.75) {
            const Vec<T> r = one / math_sqrt(d);
            scale = r * math_sqrt(r), inverse = r * r;
        } else {
            scale = math_pow(d, T(-beta)), inverse = one / d;
        }
    }
};

// use(place in the block, numbers there, LrnPower of d[c]) along the block. d[c] is summed afresh for each
// channel: a running sum would keep rounding errors, Inf and NaN.
template <class T, class Use>
TINYGRAD_NM_INLINE void lrn_channel(const LrnBlock<T>& b, int64_t c, const Use& use) {
    constexpr int lanes = Vec<T>::lanes;
    const LocalResponseNorm<T>& a = b.a;
    const int64_t first = b.first(c, a.size / 2), last = b.last(c, (a.size - 1) / 2), plane = a.plane;
    const Vec<T> alpha = Vec<T>::broadcast(T(a.alpha)), k = Vec<T>::broadcast(T(a.k));
    for (int64_t p = 0; p < b.width; p += lanes) {
        const int n = int(b.width - p < lanes ? b.width - p : lanes);
        const T* from = a.x + b.at(first) + p;
        Vec<T> sum = Vec<T>::zero();
        for (int64_t j = first; j < last; ++j, from += plane) {
            const Vec<T> x = load_up_to(from, n);
            sum = fma(x, x, sum);
        }
        use(p, n, LrnPower<T>(fma(sum, alpha, k), a.beta));
    }
}

template <class T>
void lrn_forward_block(const LrnBlock<T>& b) {
    for (int64_t c = 0; c < b.channels; ++c) {
        const T* x = b.a.x + b.at(c);
        T* out = b.a.out + b.at(c);
        lrn_channel(b, c, [&](int64_t p, int n, const LrnPower<T>& power) TINYGRAD_NM_INLINE_LAMBDA {
            store_up_to(load_up_to(x + p, n) * power.scale, out + p, n);
        });
    }
}

// out[i] += factor x[i] times the sum of the terms (channels, lrn_block) that i is in.
template <class T>
TINYGRAD_NM_INLINE void lrn_add_terms(const LrnBlock<T>& b, int64_t i, const T* terms) {
    constexpr int lanes = Vec<T>::lanes;
    const LocalResponseNorm<T>& a = b.a;
    const Vec<T> factor = Vec<T>::broadcast(T(-2 * a.alpha * a.beta));
    const int64_t first = b.first(i, (a.size - 1) / 2), last = b.last(i, a.size / 2);
    const T* x = a.x + b.at(i);
    T* out = a.out + b.at(i);
    for (int64_t p = 0; p < b.width; p += lanes) {
        const int n = int(b.width - p < lanes ? b.width - p : lanes);
        Vec<T> sum = Vec<T>::zero();
        for (int64_t c = first; c < last; ++c) sum = sum + Vec<T>::load(terms + c * lrn_block + p);
        store_up_to(fma(factor * load_up_to(x + p, n), sum, load_up_to(out + p, n)), out + p, n);
    }
}

// Channel by channel dy d^-beta to out and the sum's terms to `terms`; as soon as a channel's terms are
// there, their sum.
template <class T>
void lrn_backward_block(const LrnBlock<T>& b, T* terms) {
    const LocalResponseNorm<T>& a = b.a;
    int64_t complete = 0;
    for (int64_t c = 0; c < b.channels; ++c) {
        const T *x = a.x + b.at(c), *dy = a.dy + b.at(c);
        T *out = a.out + b.at(c), *term = terms + c * lrn_block;
        lrn_channel(b, c, [&](int64_t p, int n, const LrnPower<T>& power) TINYGRAD_NM_INLINE_LAMBDA {
            const Vec<T> scaled = load_up_to(dy + p, n) * power.scale;
            store_up_to(scaled, out + p, n);
            (scaled * load_up_to(x + p, n) * power.inverse).store(term + p);
        });
        for (; complete < b.channels && b.last(complete, a.size / 2) <= c + 1; ++complete)
            lrn_add_terms(b, complete, terms);
    }
}

// A task is one group of one example at `lrn_block` positions.
template <class T, class Body>
void lrn_blocks(const LocalResponseNorm<T>& a, double work_per_number, const Body& body) {
    const int64_t blocks = (a.plane + lrn_block - 1) / lrn_block, channels = a.channels / a.groups;
    const int64_t width = a.plane < lrn_block ? a.plane : lrn_block;
    parallel_for(a.examples * a.groups * blocks, double(channels * width) * work_per_number,
                 [&](int64_t task) {
                     const int64_t start = task % blocks * lrn_block;
                     body(LrnBlock<T>{a, task / blocks * channels * a.plane + start, channels,
                                      a.plane - start < lrn_block ? a.plane - start : lrn_block});
                 });
}

template <class T>
void local_response_norm_forward(const LocalResponseNorm<T>& a) {
    const double power = a.beta == 0.75 ? 10 : 100;
    lrn_blocks(a, double(a.size) + power, [](const LrnBlock<T>& block) { lrn_forward_block(block); });
}

template <class T>
void local_response_norm_backward(const LocalResponseNorm<T>& a) {
    const double power = a.beta == 0.75 ? 20 : 100;
    lrn_blocks(a, 2 * double(a.size) + power, [](const LrnBlock<T>& block) {
        const Scratch terms(block.channels * lrn_block, sizeof(T));
        lrn_backward_block(block, static_cast<T*>(terms.data));
    });
}

}  // namespace
}  // namespace tinygrad_nm
