// Activations against long double formulas: over all exponents, at the ends, and wherever a number stands.
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
constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

// One row a kind: the parameter, error bounds in units in the last place, and what infinite arguments give.
struct Row {
    const char* name;
    double parameter;
    double ulps;        // of the value
    double derivative;  // of the derivative, where the input is saved; else in units of eps
    double at_plus_inf, at_minus_inf, slope_at_plus_inf, slope_at_minus_inf;
    Real (*value)(Real x, Real p);
    Real (*slope)(Real x, Real p);
};

Real sigmoid(Real x) {
    return 1 / (1 + std::exp(-x));
}
Real normal(Real x) {
    return std::erfc(-x / std::sqrt(Real(2))) / 2;
}
Real density(Real x) {
    return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Real(-1)));
}
constexpr Real height = 1.7159L;

const Row rows[] = {
    {"identity", 0, 0, 0, inf, -inf, 1, 1, [](Real x, Real) { return x; },
     [](Real, Real) { return Real(1); }},
    {"relu", 0, 0, 0, inf, 0, 1, 0, [](Real x, Real) { return x > 0 ? x : 0; },
     [](Real x, Real) { return Real(x > 0); }},
    {"leaky_relu", 0.01, 0.51, 0, inf, -inf, 1, 0.01, [](Real x, Real p) { return x > 0 ? x : p * x; },
     [](Real x, Real p) { return x > 0 ? 1 : p; }},
    {"tanh", 0, 1.5, 4, 1, -1, 0, 0, [](Real x, Real) { return std::tanh(x); },
     [](Real x, Real) { return 1 / (std::cosh(x) * std::cosh(x)); }},
    {"scaled_tanh", 0, 2, 8, 1.7159, -1.7159, 0, 0,
     [](Real x, Real) { return height * std::tanh(2 * x / 3); },
     [](Real x, Real) { return height * 2 / (3 * std::cosh(2 * x / 3) * std::cosh(2 * x / 3)); }},
    {"sigmoid", 0, 2, 2, 1, 0, 0, 0, [](Real x, Real) { return sigmoid(x); },
     [](Real x, Real) { return sigmoid(x) * sigmoid(-x); }},
    {"softsign", 0, 1.5, 4, 1, -1, 0, 0, [](Real x, Real) { return x / (1 + std::fabs(x)); },
     [](Real x, Real) { return 1 / ((1 + std::fabs(x)) * (1 + std::fabs(x))); }},
    {"softplus", 0, 2, 2, inf, 0, 1, 0,
     [](Real x, Real) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); },
     [](Real x, Real) { return sigmoid(x); }},
    {"elu", 1.5, 2, 4, inf, -1.5, 1, 0, [](Real x, Real p) { return x > 0 ? x : p * std::expm1(x); },
     [](Real x, Real p) { return x > 0 ? 1 : p * std::exp(x); }},
    {"gelu", 0, 4, 8, inf, 0, 1, 0, [](Real x, Real) { return x * normal(x); },
     [](Real x, Real) { return normal(x) + x * density(x); }},
    {"sin", 0, 1, 1, nan_value, nan_value, nan_value, nan_value, [](Real x, Real) { return std::sin(x); },
     [](Real x, Real) { return std::cos(x); }},
    {"smooth_relu", 0.1, 4, 4, inf, 0, 1, 0,
     [](Real x, Real p) { return std::fabs(x) <= p ? (x + p) * (x + p) / (4 * p)
                                 : x > 0           ? x
                                                   : 0; },
     [](Real x, Real p) { return std::fabs(x) <= p ? (x + p) / (2 * p) : Real(x > 0); }},
    {"exp", 0, 1, 1, inf, 0, inf, 0, [](Real x, Real) { return std::exp(x); },
     [](Real x, Real) { return std::exp(x); }},
};

Activation kind_of(const Row& row) {
    for (const ActivationName& a : activation_names)
        if (std::string(a.name) == row.name) return a.kind;
    CHECK_THAT(false, std::string("no activation is named ") + row.name);
    return Activation::identity;
}

bool saves_input(Activation kind) {
    bool saves = false;
    with_activation(kind, [&](auto formula) { saves = decltype(formula)::saves_input; });
    return saves;
}

template <class T>
std::vector<T> forward(const Row& row, const std::vector<T>& x) {
    std::vector<T> y(x.size());
    kernels<T>().activation_forward({y.data(), x.data(), int64_t(x.size()), kind_of(row), T(row.parameter)});
    return y;
}
template <class T>
std::vector<T> backward(const Row& row, const std::vector<T>& dy, const std::vector<T>& x) {
    const std::vector<T> saved = saves_input(kind_of(row)) ? x : forward(row, x);
    std::vector<T> dx(x.size());
    kernels<T>().activation_backward(
        {dx.data(), dy.data(), saved.data(), int64_t(x.size()), kind_of(row), T(row.parameter)});
    return dx;
}

// Every binade (outside the interesting ones every seventh) with four mantissas, and a grid; both signs.
template <class T>
std::vector<T> samples() {
    using Limits = std::numeric_limits<T>;
    std::vector<T> x = {T(0), T(-0.0), Limits::max(), -Limits::max()};
    for (int e = Limits::min_exponent - Limits::digits; e < Limits::max_exponent; ++e) {
        if (std::abs(e) > 70 && e % 7 != 0) continue;
        for (const double m : {1.0, 1.0 + double(Limits::epsilon()), 1.2345678, 1.99999})
            for (const double sign : {1.0, -1.0}) x.push_back(std::ldexp(T(sign * m), e));
    }
    for (int i = -3000; i < 3000; ++i) x.push_back(T(i * 0.0371 + 0.0012345));
    for (int i = -3000; i < 3000; ++i) x.push_back(T(i * 0.00137));
    return x;
}

// The distance of `got` from the exact value in units in the last place of T there; values that T rounds to
// infinity may be infinite.
template <class T>
double ulps(T got, Real exact) {
    using Limits = std::numeric_limits<T>;
    if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) == std::isnan(got) ? 0 : inf;
    if (std::isinf(T(exact)) || std::isinf(got))
        return std::isinf(got) && std::fabs(exact) >= Real(Limits::max()) * (1 - 2 * Real(Limits::epsilon()))
                   ? 0
               : T(exact) == got ? 0
                                 : inf;
    int e = 0;
    std::frexp(exact, &e);
    e = std::max(e, Limits::min_exponent);
    return double(std::fabs(Real(got) - exact) / std::ldexp(Real(1), e - Limits::digits));
}

template <class T>
std::string place(const Row& row, const std::string& isa, T x, double error) {
    char text[160];
    std::snprintf(text, sizeof(text), "%s float%d %s at %a: %.3f", row.name, int(8 * sizeof(T)), isa.c_str(),
                  double(x), error);
    return text;
}

// gelu's own condition: a relative change of x changes its left tail x^2 times as much.
double condition(const Row& row, double x) {
    return row.name == std::string("gelu") && x < 0 ? 1 + std::min(x * x, 2000.0) : 1;
}

template <class T>
void check_values() {
    const std::vector<T> x = samples<T>(), one(x.size(), T(1));
    for (const Row& row : rows) {
        const Real p = Real(T(row.parameter));
        std::vector<Real> value, slope;
        for (const T v : x) value.push_back(row.value(v, p)), slope.push_back(row.slope(v, p));
        for_each_isa([&](const std::string& isa) {
            const std::vector<T> y = forward(row, x), dx = backward(row, one, x);
            const bool input = saves_input(kind_of(row));
            for (size_t i = 0; i < x.size(); ++i) {
                const double c = condition(row, double(x[i])), error = ulps(y[i], value[i]);
                CHECK_THAT(error <= row.ulps * c, place(row, isa, x[i], error));
                // gelu' has a zero near -0.75: there, and where y determines it, the error is absolute.
                const bool absolute = !input || c > 1;
                const Real scale = std::numeric_limits<T>::epsilon() * std::max<Real>(1, std::fabs(slope[i]));
                const double miss = absolute && !std::isinf(dx[i])
                                        ? double(std::fabs(dx[i] - slope[i]) / scale)
                                        : ulps(dx[i], slope[i]);
                CHECK_THAT(miss <= row.derivative, "slope of " + place(row, isa, x[i], miss));
            }
        });
    }
}

// Every 7919th float: all exponents, with mantissas of all kinds.
void check_floats_by_stride() {
    std::vector<float> x;
    for (uint64_t bits = 0; bits < uint64_t(1) << 32; bits += 7919) {
        const uint32_t pattern = uint32_t(bits);
        float value;
        std::memcpy(&value, &pattern, sizeof(value));
        if (!std::isnan(value)) x.push_back(value);
    }
    for (const Row& row : rows) {
        std::vector<Real> value;
        for (const float v : x) value.push_back(row.value(v, Real(float(row.parameter))));
        for_each_isa([&](const std::string& isa) {
            const std::vector<float> y = forward(row, x);
            double worst = 0;
            size_t where = 0;
            for (size_t i = 0; i < x.size(); ++i)
                if (const double error = ulps(y[i], value[i]) / condition(row, double(x[i])); error > worst)
                    worst = error, where = i;
            CHECK_THAT(worst <= row.ulps, place(row, isa, x[where], worst));
        });
    }
}

// gelu is (x / 2) erfc(a), a = -x / sqrt(2) rounded to T. With this a taken as exact, what is wrong is erfc,
// within 2 units in its last place, and the rounding of the product.
template <class T>
void check_erfc(const std::vector<T>& x) {
    using Limits = std::numeric_limits<T>;
    const Row& gelu = *std::find_if(std::begin(rows), std::end(rows),
                                    [](const Row& row) { return row.name == std::string("gelu"); });
    const auto unit = [](Real value) {  // in the last place of T
        int e = 0;
        std::frexp(value, &e);
        return std::ldexp(Real(1), std::max(e, Limits::min_exponent) - Limits::digits);
    };
    std::vector<Real> exact, bound;
    for (const T v : x) {
        const T a = T(-Gelu::root_half) * v;
        const Real half = Real(std::max(v, T(-Gelu::beyond))) / 2, erfc = std::erfc(Real(a));
        exact.push_back(half * erfc);
        bound.push_back(2 * unit(erfc) * std::fabs(half) + unit(half * erfc) / 2);
    }
    for_each_isa([&](const std::string& isa) {
        const std::vector<T> y = forward(gelu, x);
        for (size_t i = 0; i < x.size(); ++i) {
            if (std::isinf(x[i])) continue;
            const double share = double(std::fabs(y[i] - exact[i]) / bound[i]);
            CHECK_THAT(share <= 1, "erfc in " + place(gelu, isa, x[i], share) + " of the bound");
        }
    });
}

template <class T>
std::vector<T> samples_of_erfc() {
    std::vector<T> x = samples<T>();
    const double end = sizeof(T) == 4 ? 14.5 : 38.8;  // where erfc rounds to 0, times sqrt(2)
    for (int i = 0; i < 200'000; ++i) x.push_back(T(4 - (end + 4) * (i + 0.37) / 200'000));
    for (int i = 0; i < 200'000; ++i) x.push_back(T(-6 * (i + 0.61) / 200'000));
    return x;
}

template <class T>
bool same(T a, double b) {
    return std::isnan(b) ? std::isnan(a) : a == T(b);
}

template <class T>
void check_ends() {
    for (const Row& row : rows)
        for_each_isa([&](const std::string& isa) {
            const std::vector<T> x = {T(inf), T(-inf), T(nan_value), T(-0.0)};
            const std::vector<T> y = forward(row, x), dx = backward<T>(row, {1, 1, 1, 1}, x);
            const std::string which = row.name + std::string(" ") + isa;
            CHECK_THAT(same(y[0], row.at_plus_inf), which);
            CHECK_THAT(same(y[1], row.at_minus_inf), which);
            CHECK_THAT(same(dx[0], row.slope_at_plus_inf), which);
            CHECK_THAT(same(dx[1], row.slope_at_minus_inf), which);
            CHECK_THAT(std::isnan(y[2]), which);
            if (kind_of(row) != Activation::identity) CHECK_THAT(std::isnan(dx[2]), which);
            CHECK_THAT(std::isnan(backward<T>(row, {T(nan_value)}, {T(1)})[0]), which);
            CHECK_THAT(y[3] != 0 || row.name == std::string("relu") || std::signbit(y[3]), which);
        });
}

template <class T>
bool same_bits(const T* a, const T* b, size_t n) {
    return n == 0 || std::memcmp(a, b, n * sizeof(T)) == 0;
}

// The same bits for a number alone as anywhere in an array of any length; nothing is written past the end.
template <class T>
void check_positions() {
    std::vector<T> x, dy;
    for (int i = 0; i < 70; ++i) x.push_back(T((i - 35) * 0.217)), dy.push_back(T(0.3 + i * 0.01));
    for (const Row& row : rows)
        for_each_isa([&](const std::string& isa) {
            const std::vector<T> y = forward(row, x), dx = backward(row, dy, x);
            const std::vector<T> saved = saves_input(kind_of(row)) ? x : y;
            for (size_t n = 0; n < 35; ++n)
                for (const size_t start : {size_t(0), size_t(1), 35 - n}) {
                    std::vector<T> out(n + 1, T(77));
                    kernels<T>().activation_forward(
                        {out.data(), x.data() + start, int64_t(n), kind_of(row), T(row.parameter)});
                    bool ok = same_bits(out.data(), y.data() + start, n) && out[n] == T(77);
                    kernels<T>().activation_backward({out.data(), dy.data() + start, saved.data() + start,
                                                      int64_t(n), kind_of(row), T(row.parameter)});
                    ok = ok && same_bits(out.data(), dx.data() + start, n) && out[n] == T(77);
                    CHECK_THAT(ok, row.name + std::string(" ") + isa + ", length " + std::to_string(n));
                }
        });
}

template <class T>
void check_threads() {
    std::vector<T> x(50001), dy(50001);
    for (size_t i = 0; i < x.size(); ++i) x[i] = T(std::sin(double(i)) * 5), dy[i] = T(std::cos(double(i)));
    const int before = max_threads();
    for (const Row& row : rows) {
        set_max_threads(1);
        const std::vector<T> y = forward(row, x), dx = backward(row, dy, x);
        for (const int threads : {2, 3, 8}) {
            set_max_threads(threads);
            CHECK_THAT(same_bits(forward(row, x).data(), y.data(), x.size()), row.name);
            CHECK_THAT(same_bits(backward(row, dy, x).data(), dx.data(), x.size()), row.name);
        }
    }
    set_max_threads(before);
}

// Results from 32 or 48 MiB up are written past the caches: what stands before the first whole vector and
// after the last one, and the borders of the tasks, must come out like all else, and nothing beside the
// array.
void check_large() {
    constexpr size_t n = 13'000'001, before = 3, after = 8;  // so begin and end are not those of a vector
    constexpr float mark = 77;
    static_assert(n * sizeof(float) > size_t(48) << 20);
    std::vector<float> x(n), y(n), dx(n), out(before + n + after);
    for (size_t i = 0; i < n; ++i) {
        x[i] = float(int32_t(uint32_t(i) * 2654435761u) >> 8);
        y[i] = x[i] > 0 ? x[i] : 0;
        dx[i] = y[i] > 0 ? x[i] : 0;  // for dy = x
    }
    const auto check = [&](const std::vector<float>& expected, const std::string& which, const auto& kernel) {
        std::fill(out.begin(), out.end(), mark);
        kernel(out.data() + before);
        bool beside = true;
        for (size_t i = 0; i < before; ++i) beside = beside && out[i] == mark;
        for (size_t i = 0; i < after; ++i) beside = beside && out[before + n + i] == mark;
        CHECK_THAT(beside, which + ": written beside the array");
        CHECK_THAT(same_bits(out.data() + before, expected.data(), n), which);
    };
    const int threads_before = max_threads();
    for_each_isa([&](const std::string& isa) {
        for (const int threads : {1, 3}) {
            set_max_threads(threads);
            const std::string which = isa + ", threads: " + std::to_string(threads);
            check(y, "relu " + which, [&](float* to) {
                kernels<float>().activation_forward({to, x.data(), int64_t(n), Activation::relu, 0});
            });
            check(dx, "gradient of relu " + which, [&](float* to) {
                kernels<float>().activation_backward(
                    {to, x.data(), y.data(), int64_t(n), Activation::relu, 0});
            });
        }
    });
    set_max_threads(threads_before);
}

}  // namespace

TEST(activation_values_and_derivatives) {
    check_values<float>();
    check_values<double>();
}

TEST(activation_values_of_floats_by_stride) {
    check_floats_by_stride();
}

TEST(activation_erfc_within_two_units) {
    check_erfc(samples_of_erfc<float>());
    check_erfc(samples_of_erfc<double>());
}

TEST(activation_at_infinity_nan_and_zero) {
    check_ends<float>();
    check_ends<double>();
}

TEST(activation_does_not_depend_on_position) {
    check_positions<float>();
    check_positions<double>();
}

TEST(activation_same_bits_for_any_threads) {
    check_threads<float>();
    check_threads<double>();
}

TEST(activation_of_arrays_beyond_the_caches) {
    check_large();
}

TEST(activation_has_a_row_for_every_kind) {
    for (const ActivationName& a : activation_names) {
        int found = 0;
        for (const Row& row : rows) {
            found += row.name == std::string(a.name);
            if (row.name == std::string(a.name)) CHECK_EQUAL(a.has_parameter, row.parameter != 0);
        }
        CHECK_THAT(found == 1, a.name);
    }
}
