// Winograd's convolutions, forced on every shape they can compute, against plain loops. Whole numbers match
// bit for bit where the filters, or in the gradient of the filters dy, are multiples of 576, the product of
// the denominators of the transforms.
#include <cmath>
#include <cstring>

#include "conv2d_problem.h"
#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::Case;
using kernel_tests::for_each_isa;
using kernel_tests::Problem;

namespace {

constexpr int denominators = 576;

Case square(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t filters, int64_t kernel,
            std::array<int64_t, 4> pad, int64_t groups) {
    return {{batch, channels, height, width},
            {filters, channels / groups, kernel, kernel},
            {1, 1, pad[0], pad[1], pad[2], pad[3], 1, 1, groups}};
}

// Whole numbers of at most 4 in size, those of `multiples` times 576 and the others at most 1 in float: sums
// of products in the transforms must not need more bits than a number has.
template <class T>
void check_exact(const Case& c, Winograd winograd = Winograd::always) {
    Problem<T> forward(c.shape());
    const int most = sizeof(T) == 4 ? 1 : 4;
    for (std::vector<T>* array : {&forward.x, &forward.w, &forward.dy})
        for (T& value : *array) value = T(int(value) % (most + 1));
    Problem<T> gradient = forward;
    for (T& value : forward.w) value *= denominators;
    for (T& value : gradient.dy) value *= denominators;
    const auto expected = forward.by_loops(), expected_gradient = gradient.by_loops();
    for_each_isa([&](const std::string& isa) {
        const auto got = forward.by_kernels(winograd);
        const auto got_gradient = gradient.by_kernels(winograd);
        const std::string where = isa + (sizeof(T) == 4 ? " float " : " double ") + c.text();
        CHECK_THAT(got.y == expected.y, "forward " + where);
        CHECK_THAT(got.dx == expected.dx, "backward-input " + where);
        CHECK_THAT(got_gradient.dw == expected_gradient.dw, "backward-weight " + where);
    });
}

double largest_error(const std::vector<float>& got, const std::vector<double>& expected) {
    double error = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        const double e = std::fabs(double(got[i]) - expected[i]);
        error = e <= error ? error : e;  // a NaN stays
        size = std::fmax(size, std::fabs(expected[i]));
    }
    return error / size;
}

}  // namespace

TEST(winograd_grid) {
    const std::array<int64_t, 4> pads[] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2},
                                           {2, 0, 1, 3}, {4, 4, 4, 4}, {0, 3, 0, 1}};
    const int64_t sizes[] = {1, 5, 6, 7, 9, 13, 18};
    int run = 0, turn = 0;
    for (const int64_t kernel : {3, 5})
        for (const auto& pad : pads)
            for (const int64_t channels : {1, 2, 6, 20})
                for (const int64_t groups : {1, 2}) {
                    const int64_t height = sizes[turn % 7], width = sizes[(turn / 2 + 1) % 7];
                    const int64_t batch = turn % 3 + 1, filters = (turn % 5 * 4 + 1) * groups;
                    ++turn;
                    if (channels % groups || height + pad[0] + pad[1] < kernel ||
                        width + pad[2] + pad[3] < kernel)
                        continue;
                    const Case c = square(batch, channels, height, width, filters, kernel, pad, groups);
                    check_exact<float>(c);
                    check_exact<double>(c);
                    ++run;
                }
    CHECK(run > 60);
}

// Several blocks of tiles, of channels, of filters and of sums; parts of a row; channels that leave part of a
// panel.
TEST(winograd_blocks) {
    const Case cases[] = {
        square(9, 8, 13, 13, 20, 3, {1, 1, 1, 1}, 1), square(3, 24, 14, 9, 200, 3, {1, 0, 1, 0}, 2),
        square(1, 530, 6, 6, 8, 3, {1, 1, 1, 1}, 1),  square(1, 2, 8, 300, 3, 3, {0, 0, 0, 0}, 1),
        square(1, 2, 7, 150, 3, 5, {2, 2, 2, 2}, 1),  square(5, 6, 27, 27, 100, 5, {2, 2, 2, 2}, 2),
        square(20, 3, 4, 4, 5, 3, {1, 1, 1, 1}, 1),
    };
    for (const Case& c : cases) {
        check_exact<float>(c);
        check_exact<double>(c);
    }
}

// Few channels at a stride: all pads, taps beyond the kernel, and a batch of two blocks.
TEST(winograd_of_phases) {
    int run = 0;
    for (const int64_t stride : {2, 3, 4})
        for (const int64_t kernel : {5, 8, 9, 10, 11, 12, 18})
            for (const std::array<int64_t, 4>& pad : {std::array<int64_t, 4>{0, 0, 0, 0}, {2, 1, 0, 3}}) {
                Case c = square(2, 1 + run % 3, 23 + run % 5, 21 + run % 4, 1 + run % 7, kernel, pad, 1);
                c.geometry.stride_h = c.geometry.stride_w = stride;
                check_exact<float>(c);
                check_exact<double>(c);
                ++run;
            }
    CHECK(run == 42);
    Case blocks = square(12, 4, 230, 225, 1, 11, {0, 0, 0, 0}, 1);
    blocks.geometry.stride_h = blocks.geometry.stride_w = 4;
    check_exact<float>(blocks);
}

// Where channels are few the tiles are made of interleaved images: the second layers of LeNet-5 and of a
// smaller one, padding, groups.
TEST(winograd_on_interleaved_images) {
    const Case cases[] = {square(40, 6, 14, 14, 16, 5, {0, 0, 0, 0}, 1),
                          square(17, 4, 12, 12, 12, 5, {0, 0, 0, 0}, 1),
                          square(16, 12, 9, 8, 10, 5, {2, 1, 0, 4}, 2)};
    for (const Case& c : cases) {
        check_exact<float>(c, Winograd::where_it_pays);
        check_exact<double>(c, Winograd::where_it_pays);
        const Problem<float> p(c.shape(), false);
        for_each_isa([&](const std::string& isa) {
            const auto plain = p.by_kernels(), tiles = p.by_kernels(Winograd::where_it_pays);
            CHECK_THAT(tiles.y != plain.y && tiles.dx != plain.dx, isa + " by tiles " + c.text());
        });
    }
}

TEST(winograd_bias_and_activation) {
    const Case c = square(2, 3, 9, 10, 7, 3, {1, 1, 1, 1}, 1);
    Problem<double> p(c.shape());
    for (double& value : p.w) value *= denominators;
    std::vector<double> expected = p.by_loops().y;
    for (double& value : expected) value = value > 0 ? value : 0;
    for_each_isa([&](const std::string& isa) {
        std::vector<double> y(expected.size(), NAN);
        kernels<double>().conv2d_forward({y.data(), p.x.data(), p.w.data(), p.bias.data(), p.shape,
                                          Activation::relu, 0, Winograd::always});
        CHECK_THAT(y == expected, isa);
    });
}

// Fractions: the error that conv2d.h states, relative to the largest result.
TEST(winograd_error) {
    for (const int64_t kernel : {3, 5}) {
        const Case c = square(4, 64, 13, 13, 40, kernel, {kernel / 2, kernel / 2, kernel / 2, kernel / 2}, 1);
        const Problem<float> p(c.shape(), false);
        Problem<double> exact(c.shape());
        exact.x.assign(p.x.begin(), p.x.end());
        exact.w.assign(p.w.begin(), p.w.end());
        exact.bias.assign(p.bias.begin(), p.bias.end());
        exact.dy.assign(p.dy.begin(), p.dy.end());
        const auto expected = exact.by_loops();
        for_each_isa([&](const std::string& isa) {
            const auto got = p.by_kernels(Winograd::always);
            CHECK_THAT(largest_error(got.y, expected.y) < 2e-5, isa);
            CHECK_THAT(largest_error(got.dx, expected.dx) < 2e-5, isa);
            CHECK_THAT(largest_error(got.dw, expected.dw) < 2e-5, isa);
            const auto close = exact.by_kernels(Winograd::always);
            for (size_t i = 0; i < expected.dw.size(); ++i)
                CHECK_THAT(std::fabs(close.dw[i] - expected.dw[i]) < 1e-10, isa);
        });
    }
}

TEST(winograd_same_bits_for_any_number_of_threads) {
    const int before = max_threads();
    for (const int64_t kernel : {3, 5}) {
        const Case c = square(16, 16, 13, 14, 24, kernel, {1, 1, 1, 1}, 2);
        const Problem<float> problem(c.shape(), false);
        for_each_isa([&](const std::string& isa) {
            set_max_threads(1);
            const auto expected = problem.by_kernels(Winograd::always);
            for (const int threads : {2, 3, 8}) {
                set_max_threads(threads);
                const auto got = problem.by_kernels(Winograd::always);
                const std::string where = isa + ", " + std::to_string(threads) + " threads, " + c.text();
                CHECK_THAT(got.y == expected.y, "forward " + where);
                CHECK_THAT(got.dx == expected.dx, "backward-input " + where);
                CHECK_THAT(got.dw == expected.dw, "backward-weight " + where);
            }
        });
    }
    set_max_threads(before);
}

// A NaN or infinity reaches all outputs of the tiles that read it, and no others.
TEST(winograd_spread_of_nan_and_infinity) {
    const Case c = square(2, 1, 12, 12, 1, 3, {1, 1, 1, 1}, 1);
    for (const double bad : {double(NAN), double(INFINITY)}) {
        Problem<double> p(c.shape());
        p.x[5 * 12 + 2] = bad;  // row 5, column 2: rows 3..8 of tiles 1, columns -1..4 of tile 0
        for_each_isa([&](const std::string& isa) {
            const auto y = p.by_kernels(Winograd::always).y;
            for (int64_t h = 0; h < 24; ++h)
                for (int64_t w = 0; w < 12; ++w) {
                    const bool reached = h >= 4 && h < 8 && w < 4, may = reached;
                    const bool finite = std::isfinite(y[size_t(h * 12 + w)]);
                    CHECK_THAT(finite != may, isa + " " + std::to_string(h) + " " + std::to_string(w));
                }
        });
    }
}

TEST(winograd_empty_batch) {
    const Case c = square(0, 2, 5, 5, 4, 3, {1, 1, 1, 1}, 1);
    const Problem<float> problem(c.shape());
    for_each_isa([&](const std::string& isa) {
        const auto got = problem.by_kernels(Winograd::always);
        CHECK_THAT(got.y.empty() && got.dx.empty(), isa);
        CHECK_THAT(got.dw == std::vector<float>(4 * 2 * 9, 0.0f), isa);
    });
}
