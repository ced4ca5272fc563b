// The gradient of a bias against plain sums: bit for bit on whole numbers.
#include "shared/bias.h"

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

template <class T>
std::vector<T> by_kernel(const std::vector<T>& dy, int64_t examples, int64_t channels, int64_t plane) {
    std::vector<T> out(size_t(channels + 1), T(77));
    kernels<T>().bias_backward({out.data(), dy.data(), examples, channels, plane});
    CHECK_EQUAL(out.back(), T(77));
    out.pop_back();
    return out;
}

template <class T>
void check_whole_numbers(int64_t examples, int64_t channels, int64_t plane) {
    std::vector<T> dy, expected(size_t(channels), T(0));
    for (int64_t i = 0; i < examples * channels * plane; ++i) {
        dy.push_back(T((i * 37 + i / 11) % 9 - 4));
        expected[size_t(i / plane % channels)] += dy.back();
    }
    for_each_isa([&](const std::string& isa) {
        CHECK_THAT(by_kernel(dy, examples, channels, plane) == expected,
                   isa + ": N " + std::to_string(examples) + " O " + std::to_string(channels) + " plane " +
                       std::to_string(plane));
    });
}

}  // namespace

TEST(bias_of_whole_numbers) {
    for (const int64_t examples : {0, 1, 3, 70})
        for (const int64_t channels : {1, 5, 33})
            for (const int64_t plane : {1, 2, 15, 64, 131}) {
                check_whole_numbers<float>(examples, channels, plane);
                check_whole_numbers<double>(examples, channels, plane);
            }
    check_whole_numbers<float>(300, 1000, 1);
}

TEST(bias_keeps_digits_of_long_sums) {
    const int64_t examples = 64, channels = 3, plane = 4000;
    std::vector<float> dy;
    std::vector<double> expected(size_t(channels), 0.0);
    for (int64_t i = 0; i < examples * channels * plane; ++i) {
        dy.push_back(float(1 + 0.5 * std::sin(double(i))));
        expected[size_t(i / plane % channels)] += double(dy.back());
    }
    for_each_isa([&](const std::string& isa) {
        const std::vector<float> out = by_kernel(dy, examples, channels, plane);
        for (size_t o = 0; o < out.size(); ++o)
            CHECK_THAT(std::fabs(out[o] - expected[o]) <= 2e-6 * expected[o], isa);
    });
}

TEST(bias_same_bits_for_any_number_of_threads) {
    for (const int64_t plane : {1, 100}) {
        const int64_t channels = 40, examples = 400'000 / plane / channels;
        std::vector<float> dy;
        for (int64_t i = 0; i < examples * channels * plane; ++i) dy.push_back(float(std::cos(double(i))));
        for_each_isa([&](const std::string& isa) {
            const int before = max_threads();
            set_max_threads(1);
            const std::vector<float> one = by_kernel(dy, examples, channels, plane);
            for (const int threads : {2, 3, 8}) {
                set_max_threads(threads);
                CHECK_THAT(by_kernel(dy, examples, channels, plane) == one, isa);
                CHECK_THAT(threads_used() == threads, isa);
            }
            set_max_threads(before);
        });
    }
}

TEST(bias_propagates_nan) {
    std::vector<double> dy(2 * 3 * 10, 1.0);
    dy[25] = std::numeric_limits<double>::quiet_NaN();  // channel 2 of the first example
    for_each_isa([&](const std::string& isa) {
        const std::vector<double> out = by_kernel(dy, 2, 3, 10);
        CHECK_THAT(out[0] == 20 && out[1] == 20 && std::isnan(out[2]), isa);
    });
}
