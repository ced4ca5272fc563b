// The loops behind the roofline compute what their formulas say: whole numbers, so that every sum is exact.
#include "shared/peak.h"

#include <vector>

#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

template <class T>
std::vector<T> whole(int64_t n) {
    std::vector<T> x;
    for (int64_t i = 0; i < n; ++i) x.push_back(T((i * 7) % 11 - 5));
    return x;
}

template <class T>
void check_arithmetic() {
    for (const int64_t n : {0, 1, 5, 48, 95, 192, 193, 400})
        for (const int64_t repeats : {0, 1, 9})
            for_each_isa([&](const std::string& isa) {
                const int64_t rows = 3;
                const std::vector<T> x = whole<T>(rows * n);
                std::vector<T> out(size_t(rows * n) + 1, T(77));
                kernels<T>().peak_arithmetic({out.data(), x.data(), rows, n, repeats, T(2), T(-3)});
                CHECK_EQUAL(out.back(), T(77));
                for (size_t i = 0; i < x.size(); ++i) {
                    T y = x[i];
                    for (int64_t j = 0; j < repeats; ++j) y = 2 * y - 3;
                    CHECK_THAT(out[i] == y, isa + ", number " + std::to_string(i));
                }
            });
}

template <class T>
void check_memory() {
    for (const int64_t n : {0, 1, 7, 100, 16384, 40001})
        for_each_isa([&](const std::string& isa) {
            const std::vector<T> x = whole<T>(n), z = whole<T>(n + 3);
            for (const int form : {0, 1, 2}) {  // copy, triad, update
                std::vector<T> out(size_t(n) + 1, T(77));
                const T* other = form == 0 ? nullptr : z.data() + 3;
                kernels<T>().peak_memory({out.data(), form == 2 ? nullptr : x.data(), other, n, T(3)});
                CHECK_EQUAL(out.back(), T(77));
                for (size_t i = 0; i < x.size(); ++i) {
                    const T base = form == 2 ? T(77) : x[i];
                    CHECK_THAT(out[i] == (form == 0 ? base : base + 3 * z[i + 3]),
                               isa + ", number " + std::to_string(i));
                }
            }
            for (const int64_t rows : {1, 3, 16}) {
                const std::vector<T> numbers = whole<T>(rows * n);
                std::vector<T> out(size_t(rows) + 1, T(77));
                kernels<T>().peak_read({out.data(), numbers.data(), rows, n});
                CHECK_EQUAL(out.back(), T(77));
                for (int64_t row = 0; row < rows; ++row) {
                    T total = 0;
                    for (int64_t i = 0; i < n; ++i) total += numbers[size_t(row * n + i)];
                    CHECK_THAT(out[size_t(row)] == total, isa + ", row " + std::to_string(row));
                }
            }
        });
}

}  // namespace

TEST(peak_arithmetic_is_its_recurrence) {
    check_arithmetic<float>();
    check_arithmetic<double>();
}

TEST(peak_memory_is_its_sum) {
    check_memory<float>();
    check_memory<double>();
}
