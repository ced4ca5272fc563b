// The three passes of conv2d against plain loops over the definition in conv2d_shape.h. Small integers must
// match bit for bit: their sums are exact in any order.
#include <cmath>
#include <cstring>
#include <limits>

#include "conv2d_problem.h"
#include "cpu/parallel.h"
#include "instruction_sets.h"
#include "test.h"

using namespace tinygrad_nm;
using kernel_tests::Case;
using kernel_tests::for_each_isa;
using kernel_tests::Problem;

namespace {

template <class T>
void check_exact(const Case& c) {
    const Problem<T> problem(c.shape());
    const auto expected = problem.by_loops();
    for_each_isa([&](const std::string& isa) {
        const auto got = problem.by_kernels();
        const std::string where = isa + (sizeof(T) == 4 ? " float " : " double ") + c.text();
        CHECK_THAT(got.y == expected.y, "forward " + where);
        CHECK_THAT(got.dx == expected.dx, "backward-input " + where);
        CHECK_THAT(got.dw == expected.dw, "backward-weight " + where);
    });
}

std::string error_of(const Case& c) {
    try {
        c.shape();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "no error";
}

}  // namespace

TEST(conv2d_in_the_padding_alone) {
    for (const int64_t batch : {1, 16, 17}) {
        const Case c{{batch, 1, 4, 1}, {1, 1, 1, 3}, {1, 100'000'000, 0, 0, 1'000'000, 1'000'000, 1, 1, 1}};
        check_exact<float>(c);
        check_exact<double>(c);
    }
}

TEST(conv2d_grid_of_geometries) {
    const int64_t strides[][2] = {{1, 1}, {2, 2}, {3, 1}, {2, 3}};
    const int64_t pads[][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 0, 1, 3}, {0, 3, 2, 0}};
    const int64_t dilations[][2] = {{1, 1}, {2, 2}, {1, 3}, {3, 2}};
    const int64_t kernels_hw[][2] = {{1, 1}, {3, 3}, {2, 3}, {5, 5}, {4, 1}};
    const int64_t sizes[] = {1, 5, 7, 8, 13, 17};
    int run = 0, turn = 0;
    for (const auto& stride : strides)
        for (const auto& pad : pads)
            for (const auto& dilation : dilations)
                for (const auto& kernel : kernels_hw)
                    for (const int64_t groups : {1, 2, 0}) {  // 0: as many as channels
                        const int64_t height = sizes[turn % 6], width = sizes[(turn / 2 + 1) % 6];
                        // 12 channels fill whole tiles: both ways of backward-input are taken.
                        const int64_t batch = turn % 3 + 1, channels = turn % 4 < 2 ? 4 : 12;
                        const int64_t used_groups = groups ? groups : channels;
                        ++turn;
                        const WindowAxis h{height, kernel[0], stride[0], pad[0], pad[1], dilation[0]};
                        const WindowAxis w{width, kernel[1], stride[1], pad[2], pad[3], dilation[1]};
                        if (h.extent("test") > h.padded("test") || w.extent("test") > w.padded("test"))
                            continue;
                        const Case c{{batch, channels, height, width},
                                     {2 * channels, channels / used_groups, kernel[0], kernel[1]},
                                     {stride[0], stride[1], pad[0], pad[1], pad[2], pad[3], dilation[0],
                                      dilation[1], used_groups}};
                        turn % 2 ? check_exact<float>(c) : check_exact<double>(c);
                        ++run;
                    }
    CHECK(run > 500);
}

// Shapes that reach the blocks of the loops: several blocks of depth, a kernel larger than one, many filters,
// images folded together, parts of a row, and channels that end in the middle of a block.
TEST(conv2d_blocks) {
    const Case cases[] = {
        {{2, 70, 9, 9}, {13, 70, 3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1}},
        {{1, 3, 24, 22}, {5, 3, 19, 17}, {1, 1, 2, 0, 0, 2, 1, 1, 1}},
        {{3, 6, 40, 40}, {4, 3, 18, 18}, {5, 4, 0, 0, 0, 0, 2, 1, 2}},
        {{37, 2, 4, 4}, {3, 2, 3, 3}, {1, 1, 0, 0, 0, 0, 1, 1, 1}},
        {{40, 16, 5, 5}, {20, 16, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}},
        {{2, 1, 2, 1300}, {2, 1, 2, 5}, {1, 1, 0, 0, 2, 2, 1, 1, 1}},
        {{2, 2, 60, 61}, {40, 2, 5, 5}, {1, 1, 2, 2, 2, 2, 1, 1, 1}},
        {{1, 48, 6, 6}, {64, 24, 2, 2}, {2, 2, 0, 0, 0, 0, 1, 1, 2}},
        {{2, 3, 35, 35}, {8, 3, 11, 11}, {4, 4, 0, 0, 0, 0, 1, 1, 1}},
        {{1, 1, 1, 1}, {1, 1, 1, 1}, {7, 9, 4, 0, 0, 5, 1, 1, 1}},
        // Backward-input by scattering: several blocks of positions and of filters, parts of a row, one
        // output.
        {{3, 5, 60, 31}, {300, 5, 3, 2}, {1, 2, 0, 0, 1, 0, 1, 1, 1}},
        {{2, 1, 2, 1300}, {7, 1, 2, 5}, {1, 2, 0, 0, 0, 0, 1, 1, 1}},
        {{9, 26, 6, 6}, {14, 13, 6, 6}, {1, 1, 0, 0, 0, 0, 1, 1, 2}},
        // Backward-input by gathering, with as many channels as fill the tiles.
        {{3, 24, 21, 19}, {40, 24, 3, 3}, {2, 1, 1, 1, 1, 1, 1, 1, 1}},
        {{2, 48, 9, 10}, {36, 24, 2, 4}, {1, 3, 2, 2, 3, 3, 2, 1, 2}},
    };
    for (const Case& c : cases) {
        check_exact<float>(c);
        check_exact<double>(c);
    }
}

TEST(conv2d_bias_and_activation) {
    const Case c{{2, 3, 9, 10}, {7, 3, 3, 3}, {1, 2, 1, 1, 0, 0, 1, 1, 1}};
    const Problem<float> p(c.shape());
    std::vector<float> expected = p.by_loops().y;
    for (float& value : expected) value = value > 0 ? value : 0;
    for_each_isa([&](const std::string& isa) {
        std::vector<float> y(expected.size(), NAN);
        kernels<float>().conv2d_forward(
            {y.data(), p.x.data(), p.w.data(), p.bias.data(), p.shape, Activation::relu});
        CHECK_THAT(y == expected, isa);
    });
    std::vector<float> without(expected.size(), NAN), with_zero(expected.size(), NAN);
    const std::vector<float> zero(7);
    kernels<float>().conv2d_forward({without.data(), p.x.data(), p.w.data(), nullptr, p.shape});
    kernels<float>().conv2d_forward({with_zero.data(), p.x.data(), p.w.data(), zero.data(), p.shape});
    CHECK(without == with_zero);
}

// Work is cut by shape alone.
TEST(conv2d_same_bits_for_any_number_of_threads) {
    const Case cases[] = {
        {{16, 6, 14, 14}, {16, 6, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}},
        {{3, 40, 13, 13}, {24, 20, 3, 3}, {2, 1, 1, 1, 1, 1, 1, 1, 2}},
    };
    const int before = max_threads();
    for (const Case& c : cases) {
        const Problem<float> problem(c.shape(), false);
        for_each_isa([&](const std::string& isa) {
            set_max_threads(1);
            const auto expected = problem.by_kernels();
            for (const int threads : {2, 3, 8}) {
                set_max_threads(threads);
                const auto got = problem.by_kernels();
                const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
                    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
                };
                const std::string where = isa + ", " + std::to_string(threads) + " threads, " + c.text();
                CHECK_THAT(same(got.y, expected.y), "forward " + where);
                CHECK_THAT(same(got.dx, expected.dx), "backward-input " + where);
                CHECK_THAT(same(got.dw, expected.dw), "backward-weight " + where);
            }
        });
    }
    set_max_threads(before);
}

// A zero of the padding is multiplied like any other value, and so is a zero weight.
TEST(conv2d_nan_and_infinity_propagate) {
    const Case c{{1, 1, 6, 6}, {1, 1, 3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1}};
    Problem<double> p(c.shape());
    p.w.assign(9, 0.0);
    p.x[2 * 6 + 3] = std::numeric_limits<double>::infinity();
    p.dy[4 * 6 + 1] = std::numeric_limits<double>::quiet_NaN();
    for_each_isa([&](const std::string& isa) {
        const auto got = p.by_kernels();
        for (int64_t h = 0; h < 6; ++h)
            for (int64_t w = 0; w < 6; ++w) {
                const bool near_x = std::abs(h - 2) <= 1 && std::abs(w - 3) <= 1;
                const bool near_dy = std::abs(h - 4) <= 1 && std::abs(w - 1) <= 1;
                CHECK_THAT(std::isnan(got.y[h * 6 + w]) == near_x, isa);
                CHECK_THAT(std::isnan(got.dx[h * 6 + w]) == near_dy, isa);
            }
        for (const double value : got.dw) CHECK_THAT(std::isnan(value), isa);
    });
    p = Problem<double>(c.shape());
    p.w[0] = std::numeric_limits<double>::quiet_NaN();
    for_each_isa([&](const std::string& isa) {
        const auto got = p.by_kernels();
        for (const double value : got.y) CHECK_THAT(std::isnan(value), isa);
        for (int64_t h = 0; h < 5; ++h)  // the last row and column have no output for this weight
            for (int64_t w = 0; w < 5; ++w) CHECK_THAT(std::isnan(got.dx[h * 6 + w]), isa);
    });
}

TEST(conv2d_empty_batch) {
    const Case c{{0, 2, 5, 5}, {4, 2, 3, 3}, {1, 1, 0, 0, 0, 0, 1, 1, 1}};
    const Problem<float> problem(c.shape());
    for_each_isa([&](const std::string& isa) {
        const auto got = problem.by_kernels();
        CHECK_THAT(got.y.empty() && got.dx.empty(), isa);
        CHECK_THAT(got.dw == std::vector<float>(4 * 2 * 9, 0.0f), isa);
    });
}

TEST(conv2d_shape_errors) {
    const Conv2dGeometry plain{1, 1, 0, 0, 0, 0, 1, 1, 1};
    CHECK(error_of({{1, 3, 28, 28}, {6, 1, 5, 5}, plain}) ==
          "conv2d: input has 3 channels, shape (1, 3, 28, 28), but weight (6, 1, 5, 5) expects 1 (groups=1)");
    CHECK(error_of({{1, 1, 3, 3}, {1, 1, 5, 5}, plain}) ==
          "conv2d: kernel (5, 5) is larger than the padded input (3, 3)");
    CHECK(error_of({{1, 1, 3, 3}, {1, 1, 3, 2}, {1, 1, 0, 1, 0, 0, 2, 1, 1}}) ==
          "conv2d: kernel (3, 2) with dilation (2, 1) is larger than the padded input (4, 3)");
    const auto mentions = [](const Case& c, const char* text) {
        return error_of(c).find(text) != std::string::npos;
    };
    CHECK(mentions({{1, 0, 3, 3}, {1, 0, 1, 1}, plain}, "positive sizes"));
    CHECK(mentions({{1, 1, 0, 3}, {1, 1, 1, 1}, plain}, "positive sizes"));
    CHECK(mentions({{1, 1, 3, 3}, {1, 1, 0, 1}, plain}, "positive sizes"));
    CHECK(mentions({{1, 1, 3, 3}, {0, 1, 1, 1}, plain}, "positive sizes"));
    CHECK(mentions({{1, 1, 3, 3}, {1, 1, 1, 1}, {0, 1, 0, 0, 0, 0, 1, 1, 1}},
                   "stride must be positive, got (0, 1)"));
    CHECK(mentions({{1, 1, 3, 3}, {1, 1, 1, 1}, {1, 1, 0, 0, 0, 0, 1, -1, 1}}, "dilation must be positive"));
    CHECK(
        mentions({{1, 1, 3, 3}, {1, 1, 1, 1}, {1, 1, 0, -1, 0, 0, 1, 1, 1}}, "padding must not be negative"));
    CHECK(mentions({{1, 1, 3, 3}, {1, 1, 1, 1}, {1, 1, 0, 0, 0, 0, 1, 1, 0}}, "groups must be positive"));
    CHECK(mentions({{1, 3, 3, 3}, {4, 1, 1, 1}, {1, 1, 0, 0, 0, 0, 1, 1, 2}}, "not a multiple of groups=2"));
    CHECK(mentions({{1, 4, 3, 3}, {3, 2, 1, 1}, {1, 1, 0, 0, 0, 0, 1, 1, 2}},
                   "3 filters, not a multiple of groups=2"));
    const int64_t huge = std::numeric_limits<int64_t>::max();
    CHECK_THROWS((Case{{1, 1, 3, 3}, {1, 1, 1, 1}, {1, 1, huge, 0, 0, 0, 1, 1, 1}}.shape()),
                 std::overflow_error);
    CHECK_THROWS((Case{{1, 1, 3, 3}, {1, 1, 3, 1}, {1, 1, 0, 0, 0, 0, huge, 1, 1}}.shape()),
                 std::overflow_error);
}
