// The activation kernels of one instruction set; shapes and sums in activation.h.
//
// Every number, those of an array's last incomplete vector too, goes through the same vector code: its result
// does not depend on where it stands or on how the work is cut.
#pragma once
#include "cpu/activation.h"
#include "cpu/elementwise_body.h"
#include "cpu/isa/vector_math.h"
#include "cpu/isa/vector_math_erf.h"

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

template <class T, class Formula>
void activation_range(T* out, const T* x, int64_t n, T parameter) {
    const Vec<T> p = Vec<T>::broadcast(parameter);
    int64_t i = 0;
    for (; i + Vec<T>::lanes <= n; i += Vec<T>::lanes)
        Formula::forward(Vec<T>::load(x + i), p).store(out + i);
    if (const int rest = int(n - i)) Formula::forward(Vec<T>::load(x + i, rest), p).store(out + i, rest);
}

template <class T, class Formula>
void activation_backward_range(T* out, const T* dy, const T* saved, int64_t n, T parameter) {
    const Vec<T> p = Vec<T>::broadcast(parameter);
    int64_t i = 0;
    for (; i + Vec<T>::lanes <= n; i += Vec<T>::lanes)
        Formula::backward(Vec<T>::load(dy + i), Vec<T>::load(saved + i), p).store(out + i);
    if (const int rest = int(n - i))
        Formula::backward(Vec<T>::load(dy + i, rest), Vec<T>::load(saved + i, rest), p).store(out + i, rest);
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
