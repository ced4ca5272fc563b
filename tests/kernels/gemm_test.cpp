// GEMM against plain loops, for every instruction set.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::for_each_isa;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

enum class Layout { rows, columns, padded, reversed, broadcast };
constexpr Layout layouts[] = {Layout::rows, Layout::columns, Layout::padded, Layout::reversed,
                              Layout::broadcast};
enum class Fill { integers, reals };

// A batch of matrices that owns its elements, in some layout.
template <class T>
struct Operand {
    int64_t batch, rows, columns;
    std::vector<T> memory;
    int64_t origin = 0, row_stride, column_stride, batch_stride;

    Operand(int64_t batch, int64_t rows, int64_t columns, Layout layout, Fill fill, unsigned seed)
        : batch(batch), rows(rows), columns(columns) {
        const int64_t step = layout == Layout::padded ? 2 : 1, gap = layout == Layout::padded ? 3 : 0;
        row_stride = (columns + gap) * step, column_stride = step;
        if (layout == Layout::columns) row_stride = 1, column_stride = rows;
        if (layout == Layout::broadcast) row_stride = 0;
        batch_stride = (rows + 1) * (columns + gap) * step;
        memory.assign(size_t(batch * batch_stride + 1), T(not_a_number));
        if (layout == Layout::reversed && rows * columns > 0) {
            origin = rows * columns - 1;
            row_stride = -row_stride, column_stride = -column_stride;
        }
        std::mt19937 random(seed);
        std::uniform_int_distribution<int> integers(-4, 4);
        std::normal_distribution<double> reals;
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < columns; ++j)
                    at(b, i, j) = T(fill == Fill::integers ? integers(random) : reals(random));
    }
    T& at(int64_t b, int64_t i, int64_t j) {
        return memory[size_t(origin + (batch == 1 ? 0 : b) * batch_stride + i * row_stride +
                             j * column_stride)];
    }
    Matrix<T> matrix() { return {memory.data() + origin, row_stride, column_stride}; }
    Matrix<const T> constant() { return {memory.data() + origin, row_stride, column_stride}; }
    int64_t stride() const { return batch == 1 ? 0 : batch_stride; }
};

template <class T>
Gemm<T> product(int64_t batch, Operand<T>& a, Operand<T>& b, Operand<T>& c) {
    return {.batch = batch,
            .m = c.rows,
            .n = c.columns,
            .k = a.columns,
            .a = a.constant(),
            .a_batch_stride = a.stride(),
            .b = b.constant(),
            .b_batch_stride = b.stride(),
            .c = c.matrix(),
            .c_batch_stride = c.stride()};
}

// The plain loops: value and, for error bounds, sum of magnitudes of element (i, j) of matrix s.
struct Sum {
    double value = 0, magnitude = 0;
};
template <class T>
Sum plain_product(Operand<T>& a, Operand<T>& b, int64_t s, int64_t i, int64_t j) {
    Sum sum;
    for (int64_t p = 0; p < a.columns; ++p) {
        sum.value += double(a.at(s, i, p)) * double(b.at(s, p, j));
        sum.magnitude += std::abs(double(a.at(s, i, p)) * double(b.at(s, p, j)));
    }
    return sum;
}

std::string case_text(const std::string& isa, int64_t m, int64_t n, int64_t k) {
    return isa + ", m n k = " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k);
}

// Integers are exact in any order: every element must agree bit for bit.
template <class T>
void check_integers(const std::string& isa, int64_t batch, int64_t m, int64_t n, int64_t k, Layout la,
                    Layout lb, Layout lc, T alpha, T beta) {
    Operand<T> a(batch, m, k, la, Fill::integers, 1), b(1, k, n, lb, Fill::integers, 2),
        c(batch, m, n, lc, Fill::integers, 3);
    Operand<T> before = c;
    if (beta == 0)  // C is not read
        for (int64_t e = 0; e < batch * m * n; ++e) c.at(e / (m * n), e / n % m, e % n) = T(not_a_number);
    Gemm<T> g = product(batch, a, b, c);
    g.alpha = alpha, g.beta = beta;
    kernels<T>().gemm(g);
    int64_t wrong = 0;
    for (int64_t s = 0; s < batch; ++s)
        for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
                const double expected = double(alpha) * plain_product(a, b, s, i, j).value +
                                        double(beta) * double(before.at(s, i, j));
                wrong += double(c.at(s, i, j)) != expected;
                c.at(s, i, j) = before.at(s, i, j) = 0;
            }
    CHECK_THAT(wrong == 0, case_text(isa, m, n, k) + ", layouts " + std::to_string(int(la)) +
                               std::to_string(int(lb)) + std::to_string(int(lc)) + ": " +
                               std::to_string(wrong));
    // Padding between the elements of C was not touched.
    CHECK_THAT(std::memcmp(c.memory.data(), before.memory.data(), c.memory.size() * sizeof(T)) == 0,
               case_text(isa, m, n, k));
}

}  // namespace

TEST(gemm_layouts) {
    for_each_isa([](const std::string& isa) {
        for (Layout la : layouts)
            for (Layout lb : layouts)
                for (Layout lc : {Layout::rows, Layout::columns, Layout::padded, Layout::reversed})
                    for (int64_t size : {1, 7, 37}) {
                        check_integers<float>(isa, 2, size, size + 9, size + 3, la, lb, lc, 1, 0);
                        check_integers<double>(isa, 2, size, size + 9, size + 3, la, lb, lc, 2, -1);
                    }
    });
}

TEST(gemm_tile_edges) {
    for_each_isa([](const std::string& isa) {
        for (int64_t m = 1; m <= 26; ++m)
            for (int64_t n = 1; n <= 66; n += (n > 34 ? 5 : 1)) {
                check_integers<float>(isa, 1, m, n, 5, Layout::rows, Layout::rows, Layout::rows, 1, 0);
                check_integers<float>(isa, 1, m, n, 4, Layout::columns, Layout::columns, Layout::rows, 1, 1);
                check_integers<double>(isa, 1, m, n, 3, Layout::rows, Layout::columns, Layout::rows, 1, 2);
            }
    });
}

// Each block of every loop, and one more or less than it.
TEST(gemm_block_edges) {
    for_each_isa([](const std::string& isa) {
        for (int64_t k : {127, 128, 129, 255, 256, 257, 520})
            check_integers<float>(isa, 1, 13, 33, k, Layout::rows, Layout::columns, Layout::rows, -2, 3);
        for (int64_t m : {161, 168, 169, 340})
            check_integers<double>(isa, 1, m, 9, 130, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        check_integers<float>(isa, 1, 4100, 17, 3, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        check_integers<float>(isa, 1, 5, 4100, 3, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        check_integers<float>(isa, 1, 200, 150, 300, Layout::rows, Layout::rows, Layout::rows, 1, 1);
    });
}

TEST(gemm_few_rows_or_columns) {
    for_each_isa([](const std::string& isa) {
        for (Layout la : layouts)
            for (Layout lb : layouts)
                for (int64_t few : {1, 2, 3, 5, 8})
                    for (int64_t many : {64, 301}) {
                        check_integers<float>(isa, 1, few, many, 270, la, lb, Layout::rows, 1, 0);
                        check_integers<float>(isa, 1, many, few, 270, la, lb, Layout::rows, 1, 1);
                        check_integers<double>(isa, 1, few, few, 10 * many, la, lb, Layout::rows, 1, 1);
                    }
    });
}

TEST(gemm_batches) {
    for_each_isa([](const std::string& isa) {
        for (int64_t batch : {1, 3, 40}) {
            check_integers<float>(isa, batch, 9, 20, 11, Layout::rows, Layout::rows, Layout::rows, 1, 1);
            check_integers<double>(isa, batch, 40, 31, 70, Layout::rows, Layout::columns, Layout::rows, 1, 0);
        }
    });
}

TEST(gemm_empty) {
    for_each_isa([](const std::string& isa) {
        check_integers<float>(isa, 1, 0, 5, 3, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        check_integers<float>(isa, 1, 5, 0, 3, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        check_integers<float>(isa, 0, 5, 4, 3, Layout::rows, Layout::rows, Layout::rows, 1, 1);
        for (int64_t m : {1, 5, 30})  // k = 0: C = beta C, an empty sum is 0
            for (double beta : {0.0, 1.0, 3.0}) {
                check_integers<float>(isa, 2, m, 40, 0, Layout::rows, Layout::rows, Layout::rows, 1,
                                      float(beta));
                check_integers<double>(isa, 1, m, 3, 0, Layout::rows, Layout::rows, Layout::padded, 2, beta);
            }
    });
}

TEST(gemm_rounding) {
    for_each_isa([](const std::string& isa) {
        for (auto [m, n, k] :
             {std::array<int64_t, 3>{40, 50, 1000}, {1, 300, 700}, {300, 1, 700}, {150, 90, 60}}) {
            Operand<float> a(1, m, k, Layout::rows, Fill::reals, 1),
                b(1, k, n, Layout::columns, Fill::reals, 2), c(1, m, n, Layout::rows, Fill::reals, 3);
            kernels<float>().gemm(product(1, a, b, c));
            const double eps = std::numeric_limits<float>::epsilon();
            double worst = 0;
            for (int64_t i = 0; i < m; ++i)
                for (int64_t j = 0; j < n; ++j) {
                    const Sum sum = plain_product(a, b, 0, i, j);
                    const double bound = 2 * std::sqrt(double(k)) * eps * sum.magnitude;
                    worst = std::max(worst, std::abs(double(c.at(0, i, j)) - sum.value) / bound);
                }
            CHECK_THAT(worst <= 1, case_text(isa, m, n, k) + ": " + std::to_string(worst) + " of the bound");
        }
    });
}

TEST(gemm_nan) {
    for_each_isa([](const std::string& isa) {
        for (int64_t size : {1, 5, 40}) {
            Operand<float> a(1, size, size, Layout::rows, Fill::integers, 1), b = a, c = a;
            for (int64_t i = 0; i < size; ++i)
                for (int64_t j = 0; j < size; ++j) c.at(0, i, j) = float(not_a_number);
            Gemm<float> g = product(1, a, b, c);
            kernels<float>().gemm(g);  // beta = 0 does not read C
            int64_t numbers = 0;
            for (int64_t i = 0; i < size * size; ++i) numbers += !std::isnan(c.at(0, i / size, i % size));
            CHECK_THAT(numbers == size * size, isa + ", NaN in C");
            // 0 * NaN is NaN: zeros are not skipped, not even alpha = 0.
            for (int64_t j = 0; j < size; ++j) a.at(0, size - 1, j) = 0;
            b.at(0, 0, size / 2) = float(not_a_number);
            for (float alpha : {1.0f, 0.0f}) {
                g.alpha = alpha;
                kernels<float>().gemm(g);
                CHECK_THAT(std::isnan(c.at(0, size - 1, size / 2)), isa + ", 0 * NaN");
                CHECK_THAT(size == 1 || !std::isnan(c.at(0, size - 1, 0)), isa + ", its neighbour");
            }
        }
    });
}

TEST(gemm_subnormals) {
    for_each_isa([](const std::string& isa) {
        const float tiny = std::numeric_limits<float>::denorm_min();
        for (int64_t size : {1, 9, 40}) {
            Operand<float> a(1, size, 3, Layout::rows, Fill::integers, 1),
                b(1, 3, size, Layout::rows, Fill::integers, 2),
                c(1, size, size, Layout::rows, Fill::integers, 3);
            for (int64_t j = 0; j < size; ++j)
                for (int64_t p = 0; p < 3; ++p) b.at(0, p, j) = 5 * tiny;
            for (int64_t p = 0; p < 3; ++p) a.at(0, 0, p) = 1;
            kernels<float>().gemm(product(1, a, b, c));
            CHECK_THAT(c.at(0, 0, size - 1) == 15 * tiny, isa);
        }
    });
}

TEST(gemm_epilogue) {
    for_each_isa([](const std::string& isa) {
        for (BiasAxis axis : {BiasAxis::columns, BiasAxis::rows})
            for (Layout lc : {Layout::rows, Layout::columns})
                for (auto [m, n, k] :
                     {std::array<int64_t, 3>{1, 70, 9}, {70, 1, 9}, {31, 45, 300}, {3, 4, 0}}) {
                    Operand<double> a(2, m, k, Layout::rows, Fill::integers, 1),
                        b(2, k, n, Layout::rows, Fill::integers, 2), c(2, m, n, lc, Fill::integers, 3),
                        before = c;
                    std::vector<double> bias(size_t(axis == BiasAxis::rows ? m : n));
                    for (size_t i = 0; i < bias.size(); ++i) bias[i] = double(i % 7) - 3;
                    Gemm<double> g = product(2, a, b, c);
                    g.beta = 2;
                    g.epilogue = {bias.data(), axis, Activation::leaky_relu, 0.25};
                    kernels<double>().gemm(g);
                    int64_t wrong = 0;
                    for (int64_t s = 0; s < 2; ++s)
                        for (int64_t i = 0; i < m; ++i)
                            for (int64_t j = 0; j < n; ++j) {
                                const double x = plain_product(a, b, s, i, j).value + 2 * before.at(s, i, j) +
                                                 bias[size_t(axis == BiasAxis::rows ? i : j)];
                                wrong += c.at(s, i, j) != (x > 0 ? x : x / 4);
                            }
                    CHECK_THAT(wrong == 0, case_text(isa, m, n, k));
                }
    });
}

// The kernels promise to read and write at any address that is a multiple of the element size.
TEST(gemm_addresses) {
    for_each_isa([](const std::string& isa) {
        const int64_t size = 35;
        for (int64_t shift = 0; shift < 4; ++shift) {
            std::vector<float> a(4000, 1), b(4000, 2), c(4000, -1);
            Gemm<float> g{1,
                          size,
                          size,
                          size,
                          {a.data() + shift, size, 1},
                          0,
                          {b.data() + 3 - shift, size, 1},
                          0,
                          {c.data() + shift, size, 1},
                          0};
            kernels<float>().gemm(g);
            int64_t wrong = 0;
            for (int64_t i = 0; i < 4000; ++i)
                wrong += c[size_t(i)] != (i >= shift && i < shift + size * size ? 70.0f : -1.0f);
            CHECK_THAT(wrong == 0, isa);
        }
    });
}

TEST(gemm_same_bits_for_any_number_of_threads) {
    const int before = max_threads();
    for_each_isa([](const std::string& isa) {
        for (auto [batch, m, n, k] :
             {std::array<int64_t, 4>{1, 300, 280, 290}, {1, 4, 4000, 1000}, {30, 40, 50, 60}}) {
            std::vector<std::vector<float>> results;
            for (int threads : {1, 2, 3, 8}) {
                Operand<float> a(batch, m, k, Layout::rows, Fill::reals, 1),
                    b(batch, k, n, Layout::rows, Fill::reals, 2),
                    c(batch, m, n, Layout::rows, Fill::integers, 3);
                set_max_threads(threads);
                kernels<float>().gemm(product(batch, a, b, c));
                if (max_threads() == threads) CHECK_EQUAL(threads_used(), threads);
                results.push_back(c.memory);
                CHECK_THAT(
                    std::memcmp(results[0].data(), c.memory.data(), c.memory.size() * sizeof(float)) == 0,
                    case_text(isa, m, n, k) + ", threads " + std::to_string(threads));
            }
        }
    });
    set_max_threads(before);
}
