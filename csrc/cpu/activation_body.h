// The activation kernels of one instruction set; shapes and sums in activation.h.
//
// Every number, those of an array's last incomplete vector too, goes through the same vector code: its result
// does not depend on where it stands or on how the work is cut.
#pragma once
#include "cpu/elementwise_body.h"
#include "cpu/isa/vector_math.h"
#include "cpu/isa/vector_math_erf.h"
#include "shared/activation_arguments.h"

namespace tinygrad_nm {
namespace {

// Operations for one number, to decide whether threads pay.
static inline double activation_work(Activation kind, int64_t bytes) {
    switch (kind) {
        case Activation::identity:
        case Activation::relu:
        case Activation::leaky_relu:
        case Activation::softsign:
        case Activation::smooth_relu:
            return double(2 * bytes);
        case Activation::tanh:
        case Activation::scaled_tanh:
        case Activation::sigmoid:
        case Activation::exp:
        case Activation::elu:
            return 20;
        case Activation::softplus:
            return 40;
        case Activation::gelu:
            return 80;
        case Activation::sin:
            return 150;  // the C library, lane by lane
    }
    return 0;
}

// Two vectors at a time with their instructions mixed: the formulas are long chains, and a processor does not
// look far enough ahead to fill the gaps of one with the next. GCC mixes them only if asked to.
#if defined(__GNUC__) && !defined(__clang__)
#define TINYGRAD_NM_MIXED __attribute__((optimize("schedule-insns")))
#else
#define TINYGRAD_NM_MIXED
#endif

template <class T, class Formula>
TINYGRAD_NM_MIXED void activation_range(T* out, const T* x, int64_t n, T parameter) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> p = Vec<T>::broadcast(parameter);
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const Vec<T> first = Formula::forward(Vec<T>::load(x + i), p);
        const Vec<T> second = Formula::forward(Vec<T>::load(x + i + lanes), p);
        first.store(out + i);
        second.store(out + i + lanes);
    }
    for (; i < n; i += lanes) {
        const int count = n - i < lanes ? int(n - i) : lanes;
        Formula::forward(Vec<T>::load(x + i, count), p).store(out + i, count);
    }
}

template <class T, class Formula>
TINYGRAD_NM_MIXED void activation_backward_range(T* out, const T* dy, const T* saved, int64_t n,
                                                 T parameter) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> p = Vec<T>::broadcast(parameter);
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const int64_t j = i + lanes;
        const Vec<T> first = Formula::backward(Vec<T>::load(dy + i), Vec<T>::load(saved + i), p);
        const Vec<T> second = Formula::backward(Vec<T>::load(dy + j), Vec<T>::load(saved + j), p);
        first.store(out + i);
        second.store(out + j);
    }
    for (; i < n; i += lanes) {
        const int count = n - i < lanes ? int(n - i) : lanes;
        Formula::backward(Vec<T>::load(dy + i, count), Vec<T>::load(saved + i, count), p)
            .store(out + i, count);
    }
}

// In place on n numbers, by this thread alone: for the tiles of GEMM and convolution.
template <class T>
static inline void apply_activation(Activation kind, T parameter, T* data, int64_t n) {
    if (kind == Activation::identity) return;
    with_activation(kind,
                    [=](auto formula) { activation_range<T, decltype(formula)>(data, data, n, parameter); });
}

template <class T>
void activation_forward(const ActivationForward<T>& a) {
    const bool streaming = a.out != a.x && a.n * int64_t(sizeof(T)) >= streaming_bytes;
    with_activation(a.kind, [&](auto formula) {
        for_elements(a.n, activation_work(a.kind, sizeof(T)), [&](int64_t start, int64_t count) {
            const T* x = a.x + start;
            write_range(a.out + start, count, streaming, [&](T* to, int64_t first, int64_t n) {
                activation_range<T, decltype(formula)>(to, x + first, n, a.parameter);
            });
        });
    });
}

template <class T>
void activation_backward(const ActivationBackward<T>& a) {
    const bool streaming = a.out != a.dy && a.n * int64_t(sizeof(T)) >= streaming_bytes_of_two;
    with_activation(a.kind, [&](auto formula) {
        for_elements(a.n, activation_work(a.kind, sizeof(T)), [&](int64_t start, int64_t count) {
            const T *dy = a.dy + start, *saved = a.saved + start;
            write_range(a.out + start, count, streaming, [&](T* to, int64_t first, int64_t n) {
                activation_backward_range<T, decltype(formula)>(to, dy + first, saved + first, n,
                                                                a.parameter);
            });
        });
    });
}

}  // namespace
}  // namespace tinygrad_nm
