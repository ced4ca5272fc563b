// The SGD update against its formulas in long double.
#include "shared/sgd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

using Real = long double;

struct Rule {
    bool velocity, lr_in_velocity, nesterov;
    double weight_decay;
};

std::vector<Rule> rules() {
    std::vector<Rule> list;
    for (const double decay : {0.0, 5e-4}) {
        list.push_back({false, false, false, decay});
        for (const bool inside : {false, true})
            for (const bool nesterov : {false, true}) list.push_back({true, inside, nesterov, decay});
    }
    return list;
}

template <class T>
struct State {
    std::vector<T> weight, gradient, velocity;

    explicit State(int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
            weight.push_back(T(std::sin(double(i))));
            gradient.push_back(T(std::cos(3.0 * double(i))));
            velocity.push_back(T(std::sin(7.0 * double(i)) / 2));
        }
    }
    void step(const Rule& r, int64_t start, int64_t end) {
        kernels<T>().sgd_update({weight.data() + start, gradient.data() + start,
                                 r.velocity ? velocity.data() + start : nullptr, end - start, T(0.1), T(0.9),
                                 T(r.weight_decay), r.nesterov, r.lr_in_velocity});
    }
    bool operator==(const State& other) const {
        return weight == other.weight && velocity == other.velocity && gradient == other.gradient;
    }
};

// One number's update, as the formulas of sgd.h are written.
template <class T>
void reference(const Rule& r, Real& w, Real g, Real& v) {
    const Real lr = T(0.1), momentum = T(0.9), d = g + Real(T(r.weight_decay)) * w;
    if (!r.velocity) {
        w = w - lr * d;
    } else if (r.lr_in_velocity) {
        v = momentum * v + lr * d;
        w = w - (r.nesterov ? momentum * v + lr * d : v);
    } else {
        v = momentum * v + d;
        w = w - lr * (r.nesterov ? d + momentum * v : v);
    }
}

template <class T>
void check_formulas() {
    for (const Rule& rule : rules())
        for (const int64_t n : {0, 1, 7, 16, 37, 1000})
            for_each_isa([&](const std::string& isa) {
                const State<T> before(n);
                State<T> after = before;
                after.step(rule, 0, n);
                const Real bound = 4 * std::numeric_limits<T>::epsilon();
                for (size_t i = 0; i < size_t(n); ++i) {
                    Real w = before.weight[i], v = before.velocity[i];
                    reference<T>(rule, w, before.gradient[i], v);
                    CHECK_THAT(std::fabs(Real(after.weight[i]) - w) <= bound, isa);
                    CHECK_THAT(std::fabs(Real(after.velocity[i]) - v) <= bound, isa);
                }
                CHECK_THAT(after.gradient == before.gradient, isa);
            });
}

}  // namespace

TEST(sgd_formulas) {
    check_formulas<float>();
    check_formulas<double>();
}

TEST(sgd_does_not_depend_on_the_cut_or_threads) {
    const int64_t n = 140003;  // enough for threads
    for (const Rule& rule : rules())
        for_each_isa([&](const std::string& isa) {
            const int before = max_threads();
            set_max_threads(1);
            State<float> whole(n), parts(n);
            whole.step(rule, 0, n);
            for (int64_t start = 0, length = 1; start < n; start += length, length = length * 2 + 1)
                parts.step(rule, start, std::min(n, start + length));
            CHECK_THAT(parts == whole, isa);
            for (const int threads : {2, 3, 8}) {
                set_max_threads(threads);
                State<float> state(n);
                state.step(rule, 0, n);
                CHECK_THAT(state == whole, isa);
            }
            set_max_threads(before);
        });
}

TEST(sgd_propagates_nan_and_keeps_subnormals) {
    for (const Rule& rule : rules())
        for_each_isa([&](const std::string& isa) {
            State<float> state(20);
            state.gradient[3] = std::numeric_limits<float>::quiet_NaN();
            state.weight[5] = 3e-41f, state.gradient[5] = 0, state.velocity[5] = 0;
            state.step(rule, 0, 20);
            CHECK_THAT(std::isnan(state.weight[3]), isa);
            CHECK_THAT(state.weight[5] > 2.9e-41f && state.weight[5] < 3.1e-41f, isa);
            CHECK_THAT(!std::isnan(state.weight[2]) && !std::isnan(state.weight[4]), isa);
        });
}
