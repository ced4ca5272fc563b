// The SGD kernel of one instruction set; shapes and formulas in sgd.h.
#pragma once
#include "cpu/elementwise_body.h"
#include "shared/sgd.h"

namespace tinygrad_nm {
namespace {

// Up to here one thread updates all: the parameters of a small network stay in its second-level cache, with
// the gradients that it mostly computed itself.
constexpr int64_t sgd_alone_bytes = 320 << 10;

enum class SgdForm { plain, lr_in_velocity, lr_outside };

template <class T, SgdForm form, bool nesterov>
void sgd_range(const SgdUpdate<T>& a, int64_t start, int64_t end) {
    constexpr int lanes = Vec<T>::lanes;
    const Vec<T> lr = Vec<T>::broadcast(a.lr), momentum = Vec<T>::broadcast(a.momentum);
    const Vec<T> decay = Vec<T>::broadcast(a.weight_decay);
    const bool decays = a.weight_decay != 0;
    for (int64_t i = start; i < end; i += lanes) {
        const int width = int(end - i < lanes ? end - i : lanes);
        const auto load = [&](const T* p) {
            return width == lanes ? Vec<T>::load(p + i) : Vec<T>::load(p + i, width);
        };
        const auto store = [&](Vec<T> v, T* p) { width == lanes ? v.store(p + i) : v.store(p + i, width); };
        const Vec<T> w = load(a.weight);
        Vec<T> d = load(a.gradient);
        if (decays) d = d + decay * w;
        if constexpr (form == SgdForm::plain) {
            store(w - lr * d, a.weight);
        } else {
            const Vec<T> push = form == SgdForm::lr_in_velocity ? lr * d : d;
            const Vec<T> v = momentum * load(a.velocity) + push;
            const Vec<T> step = nesterov ? momentum * v + push : v;
            store(v, a.velocity);
            store(form == SgdForm::lr_in_velocity ? w - step : w - lr * step, a.weight);
        }
    }
}

template <class T>
void sgd_update(const SgdUpdate<T>& a) {
    constexpr SgdForm inside = SgdForm::lr_in_velocity, outside = SgdForm::lr_outside;
    auto range = sgd_range<T, SgdForm::plain, false>;
    if (a.velocity && a.lr_in_velocity)
        range = a.nesterov ? sgd_range<T, inside, true> : sgd_range<T, inside, false>;
    if (a.velocity && !a.lr_in_velocity)
        range = a.nesterov ? sgd_range<T, outside, true> : sgd_range<T, outside, false>;
    if (a.n * int64_t(sizeof(T)) <= sgd_alone_bytes) return range(a, 0, a.n);
    for_elements(a.n, 4.0 * sizeof(T), [&](int64_t start, int64_t count) { range(a, start, start + count); });
}

}  // namespace
}  // namespace tinygrad_nm
