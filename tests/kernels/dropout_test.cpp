// Dropout and its generator: published answers, plain loops, and independence of how the work is cut.
#include "shared/dropout.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "shared/philox.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

Philox4x32<1> philox(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t key_low, uint32_t key_high) {
    Philox4x32<1> state = {{{a}, {b}, {c}, {d}}};
    philox4x32_10(state, key_low, key_high);
    return state;
}

template <class T>
struct Case {
    int64_t examples, elements;
    double p;
    uint64_t seed = 0x123456789abcdef0u, stream = 0xfedcba9876543210u;
    int64_t first_example = 0;

    std::vector<T> run(const std::vector<T>& x) const {
        std::vector<T> out(x.size() + 1, T(77));
        dropout<T>({out.data(), x.data(), examples, elements, p, seed, stream, first_example});
        CHECK_EQUAL(out.back(), T(77));
        out.pop_back();
        return out;
    }
    // The definition, element by element, with u in floating point.
    bool kept(int64_t example, int64_t element) const {
        const Philox4x32<1> random =
            philox(uint32_t(element / 4), uint32_t(first_example + example), uint32_t(stream & 0xffffffffu),
                   uint32_t(stream >> 32), uint32_t(seed & 0xffffffffu), uint32_t(seed >> 32));
        return std::ldexp(double(random.word[element % 4][0] >> 8), -24) >= p;
    }
};

template <class T>
std::vector<T> numbers(int64_t n) {
    std::vector<T> x;
    for (int64_t i = 0; i < n; ++i) x.push_back(T(1 + std::sin(double(i)) / 2));
    return x;
}

template <class T>
void check_definition() {
    for (const double p : {0.0, 0.1, 0.5, 0.99, 1 - 0x1p-24, 1 - 0x1p-30, 1.0})
        for (const int64_t elements : {0, 1, 3, 4, 63, 64, 65, 200, 4097}) {
            const Case<T> c{3, elements, p};
            const std::vector<T> x = numbers<T>(3 * elements);
            std::vector<T> expected;
            for (int64_t i = 0; i < 3 * elements; ++i)
                expected.push_back(c.kept(i / elements, i % elements) ? x[size_t(i)] * T(1 / (1 - p)) : T(0));
            for_each_isa([&](const std::string& isa) { CHECK_THAT(c.run(x) == expected, isa); });
        }
}

template <class T>
void check_dropped_nan() {
    const T values[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()};
    for (const T value : values)
        for (const double p : {0.5, 1.0}) {
            const Case<T> c{2, 100, p};
            const std::vector<T> out = c.run(std::vector<T>(200, value));
            for (int64_t i = 0; i < 200; ++i) CHECK_EQUAL(c.kept(i / 100, i % 100), !(out[size_t(i)] == 0));
        }
}

}  // namespace

// kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
TEST(philox_published_answers) {
    const auto check = [](const Philox4x32<1>& r, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
        CHECK_EQUAL(r.word[0][0], a);
        CHECK_EQUAL(r.word[1][0], b);
        CHECK_EQUAL(r.word[2][0], c);
        CHECK_EQUAL(r.word[3][0], d);
    };
    check(philox(0, 0, 0, 0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    const uint32_t f = 0xffffffff;
    check(philox(f, f, f, f, f, f), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    check(philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0), 0xd16cfe09,
          0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST(dropout_is_its_definition) {
    check_definition<float>();
    check_definition<double>();
}

TEST(dropout_selects_rather_than_multiplies) {
    check_dropped_nan<float>();
    check_dropped_nan<double>();
}

TEST(dropout_does_not_depend_on_the_cut) {
    const int64_t elements = 5003;
    const std::vector<float> x = numbers<float>(7 * elements);
    for_each_isa([&](const std::string& isa) {
        const std::vector<float> all = Case<float>{7, elements, 0.3}.run(x);
        const std::vector<float> part(x.begin() + 3 * elements, x.begin() + 5 * elements);
        Case<float> rest{2, elements, 0.3};
        rest.first_example = 3;
        const std::vector<float> out = rest.run(part);
        CHECK_THAT(!std::memcmp(out.data(), all.data() + 3 * elements, out.size() * sizeof(float)), isa);
        const int before = max_threads();
        for (const int threads : {1, 2, 3, 8}) {
            set_max_threads(threads);
            CHECK_THAT((Case<float>{7, elements, 0.3}.run(x) == all), isa);
        }
        set_max_threads(before);
    });
}

TEST(dropout_draws_anew_for_seed_stream_and_example) {
    const std::vector<double> x(256, 1.0);
    Case<double> c{1, 256, 0.5};
    const std::vector<double> base = c.run(x);
    double sum = 0;
    for (const double v : base) sum += v / 2;
    CHECK(std::fabs(sum - 128) < 5 * 8);  // five standard deviations
    for (const int change : {0, 1, 2, 3, 4}) {
        Case<double> other = c;
        if (change == 0) other.seed ^= 1;
        if (change == 1) other.seed ^= uint64_t(1) << 40;
        if (change == 2) other.stream ^= 1;
        if (change == 3) other.stream ^= uint64_t(1) << 40;
        if (change == 4) other.first_example = 1;
        CHECK(other.run(x) != base);
    }
}

TEST(dropout_refuses_what_it_cannot_do) {
    const std::vector<float> x(8, 1.0f);
    Case<float> c{2, 4, 0.5};
    for (const double p : {-0.1, 1.5, std::nan("")}) {
        c.p = p;
        CHECK_THROWS(c.run(x), std::invalid_argument);
    }
    c.p = 0.5;
    c.first_example = (int64_t(1) << 32) - 2;
    CHECK_EQUAL(c.run(x).size(), x.size());
    for (const int64_t first : {(int64_t(1) << 32) - 1, int64_t(-1), std::numeric_limits<int64_t>::max()}) {
        c.first_example = first;
        CHECK_THROWS(c.run(x), std::invalid_argument);
    }
    float none = 0;
    CHECK_THROWS(dropout<float>({&none, &none, 1, (int64_t(1) << 34) + 1, 0.5, 0, 0, 0}),
                 std::invalid_argument);
}
