// Pooling against plain loops over the definitions in pool2d_shape.h. Values are small integers: sums are
// exact, and ties are frequent.
#include <array>
#include <cmath>
#include <limits>

#include "cpu/parallel.h"
#include "shared/dispatch.h"
#include "test.h"

using namespace tinygrad_nm;

namespace {

struct Case {
    std::array<int64_t, 4> x;
    Pool2dGeometry geometry;

    Pool2dShape shape() const { return pool2d_shape("max_pool2d", x, geometry); }
    std::string text() const {
        const Pool2dGeometry& g = geometry;
        return "x " + sizes_text({x[0], x[1], x[2], x[3]}) + " kernel " +
               sizes_text({g.kernel_h, g.kernel_w}) + " stride " + sizes_text({g.stride_h, g.stride_w}) +
               " pad " + sizes_text({g.pad_top, g.pad_bottom, g.pad_left, g.pad_right}) + " dilation " +
               sizes_text({g.dilation_h, g.dilation_w}) + (g.ceil_mode ? " ceil" : "");
    }
};

template <class T>
std::vector<T> numbers(int64_t count) {
    std::vector<T> values(count);
    uint32_t state = 99;
    for (T& value : values) {
        state = state * 1664525u + 1013904223u;
        value = T(int(state >> 16) % 9 - 4);
    }
    return values;
}

// window(index of the result, list of (position or -1 on the padding)) with the taps inside of the padded
// input.
template <class Window>
void for_windows(const Pool2dShape& s, const Window& window) {
    int64_t result = 0;
    for (int64_t plane = 0; plane < s.batch * s.channels; ++plane)
        for (int64_t oh = 0; oh < s.out_h; ++oh)
            for (int64_t ow = 0; ow < s.out_w; ++ow, ++result) {
                std::vector<int64_t> taps;
                for (int64_t i = 0; i < s.kernel_h; ++i)
                    for (int64_t j = 0; j < s.kernel_w; ++j) {
                        const int64_t h = oh * s.stride_h - s.pad_top + i * s.dilation_h;
                        const int64_t w = ow * s.stride_w - s.pad_left + j * s.dilation_w;
                        if (h >= s.height + s.pad_bottom || w >= s.width + s.pad_right) continue;
                        const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
                        taps.push_back(inside ? h * s.width + w : -1);
                    }
                window(plane, result, taps);
            }
}

template <class T>
struct Results {
    std::vector<T> y, dx, gathered;
    std::vector<int> positions;  // taps: places in the window
    bool operator==(const Results&) const = default;
};

template <class T>
Results<T> max_by_loops(const Pool2dShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
    const int64_t plane_size = s.height * s.width;
    Results<T> r{std::vector<T>(dy.size()), std::vector<T>(x.size()), {}, std::vector<int>(dy.size())};
    for_windows(s, [&](int64_t plane, int64_t result, const std::vector<int64_t>& taps) {
        int64_t best = -1;
        for (const int64_t tap : taps) {
            if (tap < 0) continue;
            const T value = x[plane * plane_size + tap];
            const T top = best < 0 ? T(0) : x[plane * plane_size + best];
            if (best < 0 || value > top || (std::isnan(value) && !std::isnan(top))) best = tap;
        }
        const int64_t oh = result / s.out_w % s.out_h, ow = result % s.out_w;
        const int64_t i = (best / s.width + s.pad_top - oh * s.stride_h) / s.dilation_h;
        const int64_t j = (best % s.width + s.pad_left - ow * s.stride_w) / s.dilation_w;
        r.y[result] = x[plane * plane_size + best];
        r.positions[result] = int(i * s.kernel_w + j);
        r.dx[plane * plane_size + best] += dy[result];
    });
    r.gathered = r.y;
    return r;
}

template <class T, class Index>
Results<T> max_by_kernels(const Pool2dShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
    const T garbage = std::numeric_limits<T>::quiet_NaN();
    Results<T> r{std::vector<T>(dy.size(), garbage),
                 std::vector<T>(x.size() + 1, garbage),
                 std::vector<T>(dy.size(), garbage),
                 {}};
    std::vector<Index> taps(dy.size() + 1, Index(77));
    r.y.push_back(T(77)), r.dx.back() = T(77);
    kernels<T>().max_pool2d_forward({r.y.data(), taps.data(), x.data(), s});
    CHECK(kernels<T>().max_pool2d_backward({r.dx.data(), dy.data(), taps.data(), s}));
    CHECK(kernels<T>().max_pool2d_gather({r.gathered.data(), x.data(), taps.data(), s}));
    CHECK(r.y.back() == T(77) && r.dx.back() == T(77) && taps.back() == Index(77));  // nothing behind the end
    r.y.pop_back(), r.dx.pop_back(), taps.pop_back();
    r.positions.assign(taps.begin(), taps.end());
    return r;
}
template <class T>
Results<T> max_by_kernels(const Pool2dShape& s, const std::vector<T>& x, const std::vector<T>& dy) {
    return taps_are_bytes(s) ? max_by_kernels<T, uint8_t>(s, x, dy) : max_by_kernels<T, int32_t>(s, x, dy);
}

template <class T>
Results<T> avg_by_loops(const Pool2dShape& s, bool include_pad, const std::vector<T>& x,
                        const std::vector<T>& dy) {
    const int64_t plane_size = s.height * s.width;
    Results<T> r{std::vector<T>(dy.size()), std::vector<T>(x.size()), {}, {}};
    for_windows(s, [&](int64_t plane, int64_t result, const std::vector<int64_t>& taps) {
        T sum = 0, divisor = 0;
        for (const int64_t tap : taps) {
            divisor += include_pad || tap >= 0;
            if (tap >= 0) sum += x[plane * plane_size + tap];
        }
        r.y[result] = sum / divisor;
        for (const int64_t tap : taps)
            if (tap >= 0) r.dx[plane * plane_size + tap] += dy[result] / divisor;
    });
    return r;
}

template <class T>
Results<T> avg_by_kernels(const Pool2dShape& s, bool include_pad, const std::vector<T>& x,
                          const std::vector<T>& dy) {
    const T garbage = std::numeric_limits<T>::quiet_NaN();
    Results<T> r{std::vector<T>(dy.size() + 1, garbage), std::vector<T>(x.size() + 1, garbage), {}, {}};
    r.y.back() = T(77), r.dx.back() = T(77);
    kernels<T>().avg_pool2d_forward({r.y.data(), x.data(), s, include_pad});
    kernels<T>().avg_pool2d_backward({r.dx.data(), dy.data(), s, include_pad});
    CHECK(r.y.back() == T(77) && r.dx.back() == T(77));
    r.y.pop_back(), r.dx.pop_back();
    return r;
}

template <class Function>
void for_each_isa(const Function& f) {
    const std::string before = current_isa().name;
    for (const Isa& isa : isas())
        if (isa.available) {
            set_isa(isa.kernels->name);
            f(std::string(isa.kernels->name));
        }
    set_isa(before);
}

template <class T>
void check_exact(const Case& c) {
    const Pool2dShape s = c.shape();
    const std::vector<T> x = numbers<T>(s.batch * s.channels * s.height * s.width);
    std::vector<T> dy = numbers<T>(s.batch * s.channels * s.out_h * s.out_w);
    for (T& value : dy)
        value *= 144;  // a multiple of every divisor: the shares are integers, their sums exact
    const auto largest = max_by_loops(s, x, dy);
    for_each_isa([&](const std::string& isa) {
        CHECK_THAT(max_by_kernels(s, x, dy) == largest, isa + " maximum " + c.text());
    });
    for (const bool include_pad : {false, true}) {
        const auto mean = avg_by_loops(s, include_pad, x, dy);
        for_each_isa([&](const std::string& isa) {
            const auto got = avg_by_kernels(s, include_pad, x, dy);
            CHECK_THAT(got.y == mean.y, isa + " mean " + c.text());
            CHECK_THAT(got.dx == mean.dx, isa + " mean backward " + c.text());
        });
    }
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

TEST(pool2d_grid_of_geometries) {
    const int64_t kernels_hw[][2] = {{2, 2}, {3, 3}, {1, 3}, {4, 2}};
    const int64_t strides[][2] = {{1, 1}, {2, 2}, {2, 3}, {4, 1}};
    const int64_t pads[][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {1, 0, 0, 1}, {0, 1, 1, 0}};
    const int64_t dilations[][2] = {{1, 1}, {2, 2}, {1, 2}};
    const int64_t sizes[] = {3, 5, 7, 8, 13, 17};
    int run = 0, refused = 0, turn = 0;
    for (const auto& kernel : kernels_hw)
        for (const auto& stride : strides)
            for (const auto& pad : pads)
                for (const auto& dilation : dilations)
                    for (const bool ceil_mode : {false, true}) {
                        const int64_t height = sizes[turn % 6], width = sizes[(turn / 2 + 1) % 6];
                        const Case c{{turn % 3 + 1, 2, height, width},
                                     {kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[1], pad[2],
                                      pad[3], dilation[0], dilation[1], ceil_mode}};
                        ++turn;
                        if (error_of(c) != "no error") {
                            ++refused;
                            continue;
                        }
                        turn % 2 ? check_exact<float>(c) : check_exact<double>(c);
                        ++run;
                    }
    CHECK(run > 200);
    CHECK(refused < run);
}

// The shapes with a kernel of their own, at every width up to two vectors and with several planes a task; and
// windows of more than 256 taps.
TEST(pool2d_stride_2_and_large_windows) {
    for (const int64_t kernel : {2, 3})
        for (int64_t width = kernel; width < 70; width += width < 40 ? 1 : 7)
            for (const int64_t height : {kernel, int64_t(5), int64_t(8)}) {
                const Case c{{2, 3, height, width}, {kernel, kernel, 2, 2, 0, 0, 0, 0, 1, 1, false}};
                width % 2 ? check_exact<float>(c) : check_exact<double>(c);
                height % 2 ? check_exact<float>(c) : check_exact<double>(c);
            }
    const Pool2dShape large = Case{{1, 2, 40, 45}, {16, 17, 3, 2, 2, 1, 3, 0, 1, 1, true}}.shape();
    const std::vector<float> x = numbers<float>(2 * 40 * 45),
                             dy = numbers<float>(2 * large.out_h * large.out_w);
    CHECK(!taps_are_bytes(large));
    for_each_isa([&](const std::string& isa) {
        CHECK_THAT(max_by_kernels(large, x, dy) == max_by_loops(large, x, dy), isa);
    });
}

// Results of PyTorch's rule, worked out by hand: a last window that starts in the padding behind the input is
// dropped.
TEST(pool2d_ceil_rule) {
    const auto columns = [](int64_t size, int64_t kernel, int64_t stride, int64_t pad, bool ceil_mode) {
        return Case{{1, 1, 9, size}, {1, kernel, 1, stride, 0, 0, pad, pad, 1, 1, ceil_mode}}.shape().out_w;
    };
    CHECK_EQUAL(columns(5, 2, 2, 0, false), 2);
    CHECK_EQUAL(columns(5, 2, 2, 0, true), 3);
    CHECK_EQUAL(columns(6, 3, 2, 0, false), 2);
    CHECK_EQUAL(columns(6, 3, 2, 0, true), 3);
    CHECK_EQUAL(columns(4, 2, 2, 1, true), 3);
    CHECK_EQUAL(columns(3, 2, 3, 1, true), 2);
    CHECK_EQUAL(columns(5, 2, 3, 1, true), 2);  // a third would start at 5, behind the input
    CHECK_EQUAL(columns(1, 1, 2, 0, true), 1);
    // The divisor counts what lies inside of the padded input: 9 | 10 | 11 12 | behind it.
    const Case c{{1, 1, 1, 4}, {1, 3, 1, 2, 0, 0, 1, 1, 1, 1, true}};
    const double x[] = {9, 10, 11, 12};
    double with[3], without[3];
    CHECK_EQUAL(c.shape().out_w, 3);
    kernels<double>().avg_pool2d_forward({with, x, c.shape(), true});
    kernels<double>().avg_pool2d_forward({without, x, c.shape(), false});
    CHECK_EQUAL(with[0], 19.0 / 3);
    CHECK_EQUAL(with[1], 11.0);
    CHECK_EQUAL(with[2], 12.0 / 2);
    CHECK_EQUAL(without[0], 19.0 / 2);
    CHECK_EQUAL(without[2], 12.0);
}

TEST(max_pool2d_ties_nan_and_infinity) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const float x[] = {1, 1, nan, 5,   -inf, -inf,  //
                       1, 1, 9,   nan, -inf, -inf};
    const Case own{{1, 1, 2, 6}, {2, 2, 2, 2, 0, 0, 0, 0, 1, 1, false}};  // has a kernel of its own
    const Case padded{{1, 1, 2, 6}, {2, 2, 2, 2, 1, 0, 0, 0, 1, 1, false}};
    for_each_isa([&](const std::string& isa) {
        for (const Case& c : {own, padded}) {
            const int first = c.geometry.pad_top == 0 ? 0 : 2;
            float y[3];
            uint8_t taps[3];
            kernels<float>().max_pool2d_forward({y, taps, x, c.shape()});
            CHECK_THAT(y[0] == 1 && taps[0] == first, isa);
            CHECK_THAT(std::isnan(y[1]) && taps[1] == first, isa);
            CHECK_THAT(y[2] == -inf && taps[2] == first, isa);
        }
    });
}

TEST(max_pool2d_refuses_foreign_positions) {
    const float dy[] = {1, 2, 3, 4};
    float dx[20], y[4];
    const Pool2dShape plain = Case{{1, 1, 4, 4}, {2, 2, 2, 2, 0, 0, 0, 0, 1, 1, false}}.shape();
    const Pool2dShape padded = Case{{1, 1, 2, 2}, {2, 2, 2, 2, 1, 1, 1, 1, 1, 1, false}}.shape();
    for_each_isa([&](const std::string& isa) {
        for (const uint8_t bad : {4, 255}) {
            const uint8_t taps[] = {3, 0, bad, 1};
            CHECK_THAT(!kernels<float>().max_pool2d_backward({dx, dy, taps, plain}), isa);
            CHECK_THAT(!kernels<float>().max_pool2d_gather({y, dx, taps, plain}), isa);
        }
        const uint8_t on_the_padding[] = {3, 0, 1, 0};
        CHECK_THAT(!kernels<float>().max_pool2d_backward({dx, dy, on_the_padding, padded}), isa);
        CHECK_THAT(!kernels<float>().max_pool2d_gather({y, dx, on_the_padding, padded}), isa);
    });
}

TEST(pool2d_same_bits_for_any_number_of_threads) {
    const Case c{{8, 12, 27, 27}, {3, 3, 2, 2, 0, 0, 0, 0, 1, 1, false}};
    const Pool2dShape s = c.shape();
    std::vector<float> x = numbers<float>(8 * 12 * 27 * 27), dy = numbers<float>(8 * 12 * s.out_h * s.out_w);
    for (float& value : dy) value /= 7;
    const int before = max_threads();
    set_max_threads(1);
    const auto largest = max_by_kernels(s, x, dy), mean = avg_by_kernels(s, true, x, dy);
    for (const int threads : {2, 3, 8}) {
        set_max_threads(threads);
        CHECK(max_by_kernels(s, x, dy) == largest);
        CHECK(avg_by_kernels(s, true, x, dy) == mean);
    }
    set_max_threads(before);
}

TEST(pool2d_empty_batch) {
    const Pool2dShape s = Case{{0, 2, 5, 5}, {2, 2, 2, 2, 0, 0, 0, 0, 1, 1, false}}.shape();
    const std::vector<float> none;
    CHECK(max_by_kernels(s, none, none).y.empty());
    CHECK(avg_by_kernels(s, true, none, none).dx.empty());
}

TEST(pool2d_shape_errors) {
    CHECK(error_of({{1, 1, 3, 3}, {5, 5, 1, 1, 0, 0, 0, 0, 1, 1, false}}) ==
          "max_pool2d: kernel (5, 5) is larger than the padded input (3, 3)");
    const auto mentions = [](const Case& c, const char* text) {
        return error_of(c).find(text) != std::string::npos;
    };
    CHECK(mentions({{1, 1, 4, 4}, {2, 2, 1, 1, 2, 0, 0, 0, 1, 1, false}}, "without any element"));
    CHECK(mentions({{1, 1, 4, 4}, {2, 2, 1, 1, 0, 0, 0, 2, 1, 1, false}}, "without any element"));
    CHECK(mentions({{1, 1, 1, 4}, {2, 2, 1, 1, 1, 1, 0, 0, 2, 1, false}}, "without any element"));
    CHECK(mentions({{1, 1, 4, 4}, {0, 2, 1, 1, 0, 0, 0, 0, 1, 1, false}}, "kernel size must be positive"));
    CHECK(mentions({{1, 1, 4, 4}, {2, 2, 1, 0, 0, 0, 0, 0, 1, 1, false}}, "stride must be positive"));
    CHECK(mentions({{1, 1, 4, 4}, {2, 2, 1, 1, 0, 0, 0, -1, 1, 1, false}}, "padding must not be negative"));
    CHECK(mentions({{1, 0, 4, 4}, {2, 2, 1, 1, 0, 0, 0, 0, 1, 1, false}}, "positive sizes"));
    CHECK_THROWS(check_taps_fit("max_pool2d", int64_t(1) << 16, int64_t(1) << 15), std::invalid_argument);
    check_taps_fit("max_pool2d", (int64_t(1) << 16) - 1, int64_t(1) << 15);
}
