// Local response normalisation against plain loops over the matrix of its derivatives.
#include "shared/normalisation.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

using Real = long double;

template <class T>
struct Problem {
    int64_t examples, channels, plane, size, groups;
    double alpha, beta, k;
    std::vector<T> x, dy;

    void fill(unsigned seed) {
        std::mt19937 random(seed);
        std::normal_distribution<double> normal;
        const size_t n = size_t(examples * channels * plane);
        x.resize(n), dy.resize(n);
        for (T& v : x) v = T(normal(random));
        for (T& v : dy) v = T(normal(random));
    }
    LocalResponseNorm<T> arguments(T* out) const {
        return {out, dy.data(), x.data(), examples, channels, plane, size, groups, alpha, beta, k};
    }
    std::vector<T> forward() const {
        std::vector<T> out(x.size() + 1, T(77));
        kernels<T>().local_response_norm_forward(arguments(out.data()));
        CHECK_EQUAL(out.back(), T(77));
        out.pop_back();
        return out;
    }
    std::vector<T> backward() const {
        std::vector<T> out(x.size() + 1, T(77));
        kernels<T>().local_response_norm_backward(arguments(out.data()));
        CHECK_EQUAL(out.back(), T(77));
        out.pop_back();
        return out;
    }
    std::string text(const std::string& isa) const {
        char buffer[160];
        std::snprintf(buffer, sizeof(buffer), "%s float%d: C %d plane %d size %d groups %d beta %g",
                      isa.c_str(), int(8 * sizeof(T)), int(channels), int(plane), int(size), int(groups),
                      beta);
        return buffer;
    }

    size_t at(int64_t n, int64_t c, int64_t s) const { return size_t((n * channels + c) * plane + s); }
    // Channel j normalises channel c: PyTorch's window, size / 2 below and (size - 1) / 2 above, in c's
    // group.
    bool sees(int64_t c, int64_t j) const {
        const int64_t width = channels / groups;
        return j / width == c / width && j >= c - size / 2 && j <= c + (size - 1) / 2;
    }
    Real denominator(int64_t n, int64_t c, int64_t s) const {
        Real sum = 0;
        for (int64_t j = 0; j < channels; ++j)
            if (sees(c, j)) sum += Real(x[at(n, j, s)]) * Real(x[at(n, j, s)]);
        return k + alpha * sum;
    }
    // d out[c] / d x[i], in its two parts
    Real direct(int64_t n, int64_t c, int64_t i, int64_t s) const {
        return i == c ? std::pow(denominator(n, c, s), Real(-beta)) : 0;
    }
    Real through(int64_t n, int64_t c, int64_t i, int64_t s) const {
        if (!sees(c, i)) return 0;
        return -2 * Real(alpha) * Real(beta) * x[at(n, c, s)] * x[at(n, i, s)] *
               std::pow(denominator(n, c, s), Real(-beta - 1));
    }
};

template <class T>
void check(const Problem<T>& p) {
    std::vector<Real> value, gradient, magnitude;
    for (int64_t n = 0; n < p.examples; ++n)
        for (int64_t c = 0; c < p.channels; ++c)
            for (int64_t s = 0; s < p.plane; ++s) {
                value.push_back(p.x[p.at(n, c, s)] * std::pow(p.denominator(n, c, s), Real(-p.beta)));
                Real sum = 0, size = 0;
                for (int64_t o = 0; o < p.channels; ++o) {
                    const Real a = Real(p.dy[p.at(n, o, s)]) * p.direct(n, o, c, s);
                    const Real b = Real(p.dy[p.at(n, o, s)]) * p.through(n, o, c, s);
                    sum += a + b, size += std::fabs(a) + std::fabs(b);
                }
                gradient.push_back(sum), magnitude.push_back(size);
            }
    const Real eps = std::numeric_limits<T>::epsilon();
    for_each_isa([&](const std::string& isa) {
        const std::vector<T> y = p.forward(), dx = p.backward();
        for (size_t i = 0; i < value.size(); ++i) {
            CHECK_THAT(std::fabs(y[i] - value[i]) <= 8 * eps * std::fabs(value[i]), p.text(isa));
            CHECK_THAT(std::fabs(dx[i] - gradient[i]) <= (16 + Real(p.size)) * eps * magnitude[i],
                       p.text(isa));
        }
    });
}

template <class T>
void check_all() {
    unsigned seed = 0;
    for (const int64_t size : {1, 2, 3, 4, 5, 8, 20})
        for (const int64_t groups : {1, 2, 6})
            for (const int64_t plane : {1, 3, 8, 17, 70}) {
                const double betas[] = {0.75, 0.5, 1.0, 0.61};
                Problem<T> p{2, 6, plane, size, groups, 0.3, betas[seed % 4], 1.5, {}, {}};
                p.fill(++seed);
                check(p);
            }
}

}  // namespace

TEST(local_response_norm_values_and_gradients) {
    check_all<float>();
    check_all<double>();
}

TEST(local_response_norm_keeps_nan_in_its_window) {
    for_each_isa([&](const std::string& isa) {
        Problem<float> p{1, 12, 5, 3, 2, 0.3, 0.75, 2.0, {}, {}};
        p.fill(1);
        p.x[p.at(0, 5, 2)] = std::numeric_limits<float>::quiet_NaN();  // the last channel of the first group
        const std::vector<float> y = p.forward(), dx = p.backward();
        for (int64_t c = 0; c < 12; ++c)
            for (int64_t s = 0; s < 5; ++s) {
                CHECK_THAT(std::isnan(y[p.at(0, c, s)]) == (s == 2 && (c == 4 || c == 5)), isa);
                CHECK_THAT(std::isnan(dx[p.at(0, c, s)]) == (s == 2 && c >= 3 && c <= 5), isa);
            }
    });
}

TEST(local_response_norm_empty) {
    for (const int64_t zero : {0, 1, 2}) {
        Problem<double> p{
            zero == 0 ? 0 : 2, zero == 1 ? 0 : 4, zero == 2 ? 0 : 3, 5, 2, 0.1, 0.75, 1, {}, {}};
        p.fill(1);
        CHECK_EQUAL(p.forward().size(), size_t(0));
        CHECK_EQUAL(p.backward().size(), size_t(0));
    }
}

TEST(local_response_norm_does_not_depend_on_the_cut_or_threads) {
    Problem<float> p{3, 16, 200, 5, 2, 1e-2, 0.75, 1.0, {}, {}};
    p.fill(5);
    for_each_isa([&](const std::string& isa) {
        const int before = max_threads();
        set_max_threads(1);
        const std::vector<float> y = p.forward(), dx = p.backward();
        for (const int threads : {2, 3, 8}) {
            set_max_threads(threads);
            CHECK_THAT(p.forward() == y && p.backward() == dx, isa);
        }
        set_max_threads(before);
        // 37 positions from the third on, as a problem of their own
        Problem<float> part = p;
        part.plane = 37;
        part.fill(1);
        const auto copy = [&](std::vector<float>& to, const std::vector<float>& from) {
            for (int64_t row = 0; row < 3 * 16; ++row)
                for (int64_t s = 0; s < 37; ++s) to[size_t(row * 37 + s)] = from[size_t(row * 200 + 2 + s)];
        };
        copy(part.x, p.x), copy(part.dy, p.dy);
        std::vector<float> y_part(part.x.size()), dx_part(part.x.size());
        copy(y_part, y), copy(dx_part, dx);
        CHECK_THAT(part.forward() == y_part && part.backward() == dx_part, isa);
    });
}
