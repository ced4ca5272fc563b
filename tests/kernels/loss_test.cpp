// Softmax-cross-entropy against plain loops in long double.
#include "shared/loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

using Real = long double;
constexpr int64_t ignored = -100;
constexpr double inf = std::numeric_limits<double>::infinity();

template <class T>
struct Problem {
    int64_t examples, classes, positions;
    std::vector<T> logits, dloss;
    std::vector<int64_t> labels;

    Problem(int64_t examples, int64_t classes, int64_t positions, double scale, unsigned seed)
        : examples(examples), classes(classes), positions(positions) {
        std::mt19937 random(seed);
        std::normal_distribution<double> normal;
        for (int64_t i = 0; i < examples * classes * positions; ++i)
            logits.push_back(T(scale * normal(random)));
        for (int64_t i = 0; i < examples * positions; ++i) {
            dloss.push_back(T(normal(random)));
            labels.push_back(i % 5 == 3 ? ignored : int64_t(random() % unsigned(classes)));
        }
    }
    SoftmaxCrossEntropy<T> arguments(T* out) const {
        return {out, dloss.data(), logits.data(), labels.data(), examples, classes, positions, ignored};
    }
    std::vector<T> forward() const {
        std::vector<T> out(labels.size() + 1, T(77));
        softmax_cross_entropy_forward(arguments(out.data()));
        CHECK_EQUAL(out.back(), T(77));
        out.pop_back();
        return out;
    }
    std::vector<T> backward() const {
        std::vector<T> out(logits.size() + 1, T(77));
        softmax_cross_entropy_backward(arguments(out.data()));
        CHECK_EQUAL(out.back(), T(77));
        out.pop_back();
        return out;
    }
    size_t at(int64_t n, int64_t c, int64_t s) const { return size_t((n * classes + c) * positions + s); }
    std::string text(const std::string& isa) const {
        char buffer[120];
        std::snprintf(buffer, sizeof(buffer), "%s float%d: N %d C %d S %d", isa.c_str(), int(8 * sizeof(T)),
                      int(examples), int(classes), int(positions));
        return buffer;
    }
};

// The sum of exp(x[c] - shift) over the classes but one (none for without = -1).
template <class T>
Real sum_exp(const Problem<T>& p, int64_t n, int64_t s, Real shift, int64_t without) {
    Real sum = 0;
    for (int64_t c = 0; c < p.classes; ++c)
        if (c != without) sum += std::exp(Real(p.logits[p.at(n, c, s)]) - shift);
    return sum;
}

// All errors are relative, also those of tiny losses and of gradients at sure labels: some roundings, and
// that of a difference of logits, up to 100 here, in an exponent.
template <class T>
void check(const Problem<T>& p) {
    const Real bound = 100 * Real(std::numeric_limits<T>::epsilon());
    const Real subnormal = 4 * Real(std::numeric_limits<T>::denorm_min());
    for_each_isa([&](const std::string& isa) {
        const std::vector<T> loss = p.forward(), gradient = p.backward();
        for (int64_t n = 0; n < p.examples; ++n)
            for (int64_t s = 0; s < p.positions; ++s) {
                const size_t row = size_t(n * p.positions + s);
                const int64_t label = p.labels[row];
                if (label == ignored) {
                    CHECK_THAT(loss[row] == 0, p.text(isa));
                    for (int64_t c = 0; c < p.classes; ++c)
                        CHECK_THAT(gradient[p.at(n, c, s)] == 0, p.text(isa));
                    continue;
                }
                const Real x = p.logits[p.at(n, label, s)];
                const Real expected = std::log1p(sum_exp(p, n, s, x, label));
                CHECK_THAT(std::fabs(loss[row] - expected) <= bound * expected, p.text(isa));
                for (int64_t c = 0; c < p.classes; ++c) {
                    const Real v = p.logits[p.at(n, c, s)], sum = sum_exp(p, n, s, v, -1);
                    const Real softmax = c == label ? -sum_exp(p, n, s, v, c) / sum : 1 / sum;
                    const Real g = p.dloss[row] * softmax;
                    CHECK_THAT(std::fabs(gradient[p.at(n, c, s)] - g) <= bound * std::fabs(g) + subnormal,
                               p.text(isa));
                }
            }
    });
}

template <class T>
void check_all() {
    unsigned seed = 0;
    for (const int64_t classes : {1, 2, 10, 17, 35})
        for (const int64_t positions : {1, 2, 8, 9, 70})
            for (const double scale : {0.0, 1.0, 15.0})
                check(Problem<T>(positions > 9 ? 1 : 4, classes, positions, scale, ++seed));
}

}  // namespace

TEST(cross_entropy_values_and_gradients) {
    check_all<float>();
    check_all<double>();
}

TEST(cross_entropy_of_many_classes) {
    for (const int64_t positions : {1, 2})
        for_each_isa([&](const std::string& isa) {
            Problem<float> p(1, 300007, positions, 1.0, 3);
            const std::vector<float> loss = p.forward();
            const Real x = p.logits[p.at(0, p.labels[0], 0)];
            const Real expected = std::log(sum_exp(p, 0, 0, x, -1));
            CHECK_THAT(std::fabs(loss[0] - expected) < 2e-6L * expected, p.text(isa));
            double sum = 0;
            const std::vector<float> gradient = p.backward();
            for (int64_t c = 0; c < p.classes; ++c) sum += gradient[p.at(0, c, 0)];
            CHECK_THAT(std::fabs(sum) < 1e-5, p.text(isa));
        });
}

TEST(cross_entropy_nan_and_infinity) {
    for (const int64_t positions : {1, 3})
        for_each_isa([&](const std::string& isa) {
            const auto at_zero = [&](double logit, int64_t label) {
                Problem<double> p(1, 20, positions, 1.0, 4);
                p.logits[p.at(0, 18, 0)] = logit;
                p.labels[0] = label;
                const std::vector<double> loss = p.forward(), gradient = p.backward();
                if (positions > 1) CHECK_THAT(std::isfinite(loss[1]) && std::isfinite(gradient[1]), isa);
                return std::pair(loss[0], gradient[p.at(0, 7, 0)]);
            };
            for (const int64_t label : {18, 2}) {
                CHECK_THAT(std::isnan(at_zero(std::nan(""), label).first), isa);
                CHECK_THAT(std::isnan(at_zero(std::nan(""), label).second), isa);
                CHECK_THAT(std::isnan(at_zero(inf, label).first), isa);
                CHECK_THAT(std::isnan(at_zero(inf, label).second), isa);
            }
            CHECK_THAT(at_zero(-inf, 18).first == inf, isa);
            CHECK_THAT(std::isfinite(at_zero(-inf, 2).first) && std::isfinite(at_zero(-inf, 18).second), isa);
            CHECK_THAT(
                at_zero(std::nan(""), ignored).first == 0 && at_zero(std::nan(""), ignored).second == 0, isa);
            CHECK_THAT(std::isfinite(at_zero(1e308, 2).first), isa);
            Problem<double> none(1, 9, positions, 0, 5);
            std::fill(none.logits.begin(), none.logits.end(), -inf);
            CHECK_THAT(std::isnan(none.forward()[0]), isa);
        });
}

TEST(cross_entropy_refuses_labels_out_of_range) {
    for (const int64_t positions : {1, 3})
        for (const int64_t bad :
             {int64_t(10), int64_t(-1), int64_t(-99), std::numeric_limits<int64_t>::min()}) {
            Problem<float> p(40, 10, positions, 1.0, 6);
            p.labels[size_t(17 * positions + positions - 1)] = bad;
            CHECK_THROWS(p.forward(), std::out_of_range);
            CHECK_THROWS(p.backward(), std::out_of_range);
            try {
                p.forward();
            } catch (const std::out_of_range& e) {
                const std::string text = e.what();
                for (const std::string& part :
                     {std::string("softmax_cross_entropy_forward: "), "label " + std::to_string(bad) + " ",
                      std::string("example 17"), "position " + std::to_string(positions - 1),
                      std::string("10 classes")})
                    CHECK_THAT(text.find(part) != std::string::npos, text);
            }
        }
}

TEST(cross_entropy_ignores_also_a_class) {
    Problem<double> p(2, 4, 1, 1.0, 7);
    p.labels = {2, 3};
    std::vector<double> out(2, 77.0);
    SoftmaxCrossEntropy<double> a = p.arguments(out.data());
    a.ignore_index = 2;
    softmax_cross_entropy_forward(a);
    CHECK_EQUAL(out[0], 0.0);
    CHECK(out[1] > 0);
}

TEST(cross_entropy_does_not_depend_on_the_cut_or_threads) {
    for (const int64_t positions : {1, 150}) {
        const Problem<float> p(positions > 1 ? 4 : 3000, 10, positions, 2.0, 8);
        for_each_isa([&](const std::string& isa) {
            const int before = max_threads();
            set_max_threads(1);
            const std::vector<float> loss = p.forward(), gradient = p.backward();
            for (const int threads : {2, 3, 8}) {
                set_max_threads(threads);
                CHECK_THAT(p.forward() == loss && p.backward() == gradient, isa);
            }
            set_max_threads(before);
            // the last example alone
            Problem<float> last(1, 10, positions, 1.0, 1);
            const auto tail = [&](auto& to, const auto& from) {
                std::copy(from.end() - to.size(), from.end(), to.begin());
            };
            tail(last.logits, p.logits), tail(last.labels, p.labels), tail(last.dloss, p.dloss);
            const std::vector<float> l = last.forward(), g = last.backward();
            CHECK_THAT(std::equal(l.rbegin(), l.rend(), loss.rbegin()), isa);
            CHECK_THAT(std::equal(g.rbegin(), g.rend(), gradient.rbegin()), isa);
        });
    }
}
