// Convolution and pooling as one kernel against plain loops: batches from 1 to several blocks, so that images
// are cut into strips, blocks are shared by tasks, and neither. Small integers must match bit for bit; by
// Winograd's tiles, where the filters, or in their gradient dout, are multiples of what it divides by.
#include <cmath>
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
struct Pooled {
    std::vector<T> out, dx, dw, db;
};

// visit(index of the window, index in y of one of its pixels), each window's pixels row by row.
template <class Visit>
void for_windows(const Conv2dShape& s, const PoolWindows& pool, const Visit& visit) {
    const int64_t down = s.out_h / pool.height, across = s.out_w / pool.width;
    for (int64_t window = 0; window < s.batch * s.filters * down * across; ++window) {
        const int64_t plane = window / (down * across), i = window / across % down, j = window % across;
        for (int64_t h = 0; h < pool.height; ++h)
            for (int64_t w = 0; w < pool.width; ++w)
                visit(window, (plane * s.out_h + i * pool.height + h) * s.out_w + j * pool.width + w);
    }
}

// dout: one number for each window. The activation is the identity.
template <class T>
Pooled<T> by_loops(Problem<T> problem, const PoolWindows& pool, const std::vector<T>& dout) {
    const Conv2dShape& s = problem.shape;
    const std::vector<T> y = problem.by_loops().y;
    const T share = T(1) / T(pool.height * pool.width), low = -std::numeric_limits<T>::infinity();
    Pooled<T> r{std::vector<T>(dout.size(), pool.maximum ? low : T(0)), {}, {}, std::vector<T>(s.filters)};
    std::vector<int64_t> chosen(dout.size());
    for_windows(s, pool, [&](int64_t window, int64_t pixel) {
        if (!pool.maximum)
            r.out[window] += share * y[pixel];
        else if (y[pixel] > r.out[window])
            r.out[window] = y[pixel], chosen[window] = pixel;
    });
    std::vector<T>& dz = problem.dy;
    dz.assign(dz.size(), T(0));
    for_windows(s, pool, [&](int64_t window, int64_t pixel) {
        if (!pool.maximum || chosen[window] == pixel)
            dz[pixel] = pool.maximum ? dout[window] : share * dout[window];
    });
    for (size_t i = 0; i < dz.size(); ++i) r.db[int64_t(i) / (s.out_h * s.out_w) % s.filters] += dz[i];
    const auto gradients = problem.by_loops();
    r.dx = gradients.dx, r.dw = gradients.dw;
    return r;
}

// How the kernels run: the way back without dx is another one.
struct Way {
    bool with_dx;
    Winograd forward = Winograd::never, backward = Winograd::never;
};

template <class T>
Pooled<T> by_kernels(const Problem<T>& p, const PoolWindows& pool, const std::vector<T>& dout, int64_t kept,
                     const Way& way) {
    const T garbage = std::numeric_limits<T>::quiet_NaN();
    std::vector<T> y(kept, garbage);
    Pooled<T> r{std::vector<T>(dout.size(), garbage), std::vector<T>(p.x.size(), garbage),
                std::vector<T>(p.w.size(), garbage), std::vector<T>(p.bias.size(), garbage)};
    Conv2dForward<T> conv = {nullptr, p.x.data(),           p.w.data(), p.bias.data(),
                             p.shape, Activation::identity, 0,          way.forward};
    kernels<T>().conv2d_pool2d_forward({r.out.data(), y.data(), conv, pool});
    conv.winograd = way.backward;
    kernels<T>().conv2d_pool2d_backward({way.with_dx ? r.dx.data() : nullptr, r.dw.data(), r.db.data(),
                                         dout.data(), y.data(), conv, pool, false});
    return r;
}

// Whole numbers from -most to most.
template <class T>
std::vector<T> gradient_of_windows(const Conv2dShape& s, const PoolWindows& pool, int most) {
    std::vector<T> dout(s.batch * s.filters * (s.out_h / pool.height) * (s.out_w / pool.width));
    for (size_t i = 0; i < dout.size(); ++i) dout[i] = T(int(i * 7 % (2 * most + 1)) - most);
    return dout;
}

std::string text(const Case& c, const PoolWindows& pool, bool is_float) {
    return (is_float ? " float " : " double ") + c.text() + (pool.maximum ? " maximum " : " mean ") +
           sizes_text({pool.height, pool.width});
}

enum class Fused { everywhere, somewhere };

// visit(kept, with_dx, where) on each instruction set that has a fused kernel for the case: on all of them,
// or on one at least.
template <class T, class Visit>
void for_each_fused(const Case& c, const PoolWindows& pool, const Visit& visit,
                    Fused fused = Fused::everywhere) {
    bool found = false;
    for_each_isa([&](const std::string& isa) {
        const std::string where = isa + text(c, pool, sizeof(T) == 4);
        const int64_t kept = kernels<T>().conv2d_pool2d_kept(c.shape(), Activation::identity, pool);
        CHECK_THAT(kept > 0 || fused == Fused::somewhere, "a fused kernel for " + where);
        if (kept == 0) return;
        found = true;
        for (const bool with_dx : {true, false}) visit(kept, with_dx, where);
    });
    CHECK_THAT(found, "a fused kernel for" + text(c, pool, sizeof(T) == 4));
}

template <class T>
void check_exact(const Case& c, const PoolWindows& pool, Fused fused) {
    const Problem<T> problem(c.shape());
    const Conv2dShape& s = problem.shape;
    const std::vector<T> dout = gradient_of_windows<T>(s, pool, 4);
    const Pooled<T> expected = by_loops(problem, pool, dout);
    for_each_fused<T>(
        c, pool,
        [&](int64_t kept, bool with_dx, const std::string& where) {
            const Pooled<T> got = by_kernels(problem, pool, dout, kept, {with_dx});
            CHECK_THAT(got.out == expected.out, "out " + where);
            CHECK_THAT(!with_dx || got.dx == expected.dx, "dx " + where);
            CHECK_THAT(got.dw == expected.dw, "dw " + where);
            CHECK_THAT(got.db == expected.db, "db " + where);
        },
        fused);
}

void check_both(const Case& c, const PoolWindows& pool, Fused fused = Fused::everywhere) {
    check_exact<float>(c, pool, fused);
    check_exact<double>(c, pool, fused);
}

// By tiles: in float numbers of at most 1, so that the transforms need no more bits than there are.
template <class T>
void check_tiles(const Case& c, const PoolWindows& pool) {
    constexpr int divisor = 576;  // of w, or of dz, of which a window of the mean gets only its share
    Problem<T> forward(c.shape());
    const Conv2dShape& s = forward.shape;
    const int most = sizeof(T) == 4 ? 1 : 4;
    for (std::vector<T>* array : {&forward.x, &forward.w})
        for (T& value : *array) value = T(int(value) % (most + 1));
    Problem<T> gradient = forward;
    for (T& value : forward.w) value *= divisor;
    const std::vector<T> dout = gradient_of_windows<T>(s, pool, most);
    std::vector<T> multiples = dout;
    for (T& value : multiples) value *= T(divisor * pool.height * pool.width);
    const Pooled<T> expected = by_loops(forward, pool, dout);
    const Pooled<T> expected_gradient = by_loops(gradient, pool, multiples);
    for_each_fused<T>(c, pool, [&](int64_t kept, bool with_dx, const std::string& where) {
        const auto got = by_kernels(forward, pool, dout, kept, {with_dx, Winograd::always, Winograd::always});
        // Sums that are not exact could choose another one of equal values.
        const auto got_gradient =
            by_kernels(gradient, pool, multiples, kept, {with_dx, Winograd::never, Winograd::always});
        CHECK_THAT(got.out == expected.out, "out " + where);
        CHECK_THAT(!with_dx || got.dx == expected.dx, "dx " + where);
        CHECK_THAT(got_gradient.dw == expected_gradient.dw, "dw " + where);
        CHECK_THAT(got_gradient.db == expected_gradient.db, "db " + where);
    });
}

}  // namespace

// Even and odd numbers of tiles in a row, all numbers of filters and channels of a register tile, groups,
// padding, tall windows; windows that leave rows out, where tiles are not possible.
TEST(conv2d_pool2d_by_tiles) {
    for (const int64_t batch : {4, 16, 19, 37})
        for (const bool maximum : {false, true}) {
            const auto check = [&](const Case& c, const PoolWindows& pool) {
                check_tiles<float>(c, pool);
                check_tiles<double>(c, pool);
            };
            check({{batch, 1, 8, 10}, {3, 1, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}}, {maximum, 2, 2});
            check({{batch, 7, 9, 8}, {5, 7, 5, 5}, {1, 1, 2, 1, 0, 4, 1, 1, 1}}, {maximum, 2, 2});
            check({{batch, 4, 8, 6}, {6, 2, 5, 5}, {1, 1, 2, 2, 1, 3, 1, 1, 2}}, {maximum, 4, 1});
            check({{batch, 2, 14, 6}, {2, 2, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}}, {maximum, 4, 2});
        }
}

TEST(conv2d_pool2d_layers_of_lenet5_by_tiles) {
    const auto layer = [](int64_t batch) {
        return Case{{batch, 6, 14, 14}, {16, 6, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}};
    };
    for (const int64_t batch : {1, 3, 16, 70}) {
        check_tiles<float>(layer(batch), {batch == 3, 2, 2});
        check_tiles<double>(layer(batch), {batch == 3, 2, 2});
    }
    // They are what runs where it pays, with the same bits for any number of threads.
    const Problem<float> problem(layer(70).shape(), false);
    const PoolWindows pool = {false, 2, 2};
    const std::vector<float> dout = gradient_of_windows<float>(problem.shape, pool, 4);
    const int before = max_threads();
    for_each_isa([&](const std::string& isa) {
        const int64_t kept = kernels<float>().conv2d_pool2d_kept(problem.shape, Activation::identity, pool);
        const auto run = [&](int threads, Winograd winograd) {
            set_max_threads(threads);
            return by_kernels(problem, pool, dout, kept, {true, winograd, winograd});
        };
        const Pooled<float> plain = run(1, Winograd::never), tiles = run(1, Winograd::always);
        for (const int threads : {1, 2, 3}) {
            const Pooled<float> got = run(threads, Winograd::where_it_pays);
            CHECK_THAT(got.out != plain.out && got.dx != plain.dx && got.dw != plain.dw, isa);
            CHECK_THAT(got.out == tiles.out && got.dx == tiles.dx && got.dw == tiles.dw, isa);
        }
    });
    set_max_threads(before);
}

TEST(conv2d_pool2d_batches) {
    for (const int64_t batch : {4, 5, 8, 11, 16, 19, 33, 70})
        for (const bool maximum : {false, true}) {
            check_both({{batch, 2, 9, 10}, {3, 2, 2, 3}, {1, 1, 0, 0, 0, 0, 1, 1, 1}}, {maximum, 2, 2});
            // Padding on all sides, groups, other windows (a third is not exact), a column that none reaches.
            check_both({{batch, 4, 6, 5}, {6, 2, 3, 3}, {1, 1, 1, 1, 2, 0, 1, 1, 2}},
                       {maximum, maximum ? 3 : 2, 2});
            // A row that no window reaches: images are not cut into strips.
            check_both({{batch, 1, 7, 6}, {2, 1, 3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1}}, {maximum, 2, 2});
        }
}

// Few images, whose filters are the lanes: one vector of them and two, with and without idle lanes on each
// instruction set; padding, odd and many channels, rows and columns that no window reaches, wide images.
TEST(conv2d_pool2d_few_images) {
    for (const int64_t batch : {1, 2, 3})
        for (const int64_t filters : {3, 4, 6, 7, 8, 12, 13, 16, 25, 32})
            for (const bool maximum : {false, true}) {
                check_both({{batch, 3, 9, 10}, {filters, 3, 2, 3}, {1, 1, 1, 0, 2, 1, 1, 1, 1}},
                           {maximum, 2, 2}, Fused::somewhere);
                check_both({{batch, 2, 6, 21}, {filters, 2, 5, 5}, {1, 1, 2, 2, 2, 2, 1, 1, 1}},
                           {maximum, maximum ? 3 : 2, 2}, Fused::somewhere);
                check_both({{batch, 7, 8, 7}, {filters, 7, 3, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}},
                           {maximum, 1, 2}, Fused::somewhere);
            }
}

// The stride is never taken, so the padding may be wider than all that is read of it.
TEST(conv2d_pool2d_in_the_padding_alone) {
    for (const int64_t batch : {3, 16})
        for (const bool maximum : {false, true})
            check_both({{batch, 1, 4, 1}, {1, 1, 1, 3}, {1, 1000, 0, 0, 16, 16, 1, 1, 1}}, {maximum, 2, 1});
}

TEST(conv2d_pool2d_kept_is_known_at_once) {
    const Conv2dShape tall =
        Case{{1, 1, 4, 4}, {1, 1, 3, 3}, {1, 1, int64_t(1) << 40, 0, 0, 0, 1, 1, 1}}.shape();
    const Conv2dShape none =
        Case{{0, 1, 4, 4}, {1, 1, 3, 3}, {1, 1, int64_t(1) << 61, 0, 0, 0, 1, 1, 1}}.shape();
    for (const Conv2dShape& s : {tall, none})
        for_each_isa([&](const std::string&) {
            CHECK_EQUAL(kernels<float>().conv2d_pool2d_kept(s, Activation::tanh, {true, 2, 2}), 0);
        });
}

// Images of LeNet-5: alone in strips, and in blocks that are large enough to be shared.
TEST(conv2d_pool2d_layers_of_lenet5) {
    for (const int64_t batch : {1, 3, 16}) {
        check_both({{batch, 1, 28, 28}, {6, 1, 5, 5}, {1, 1, 2, 2, 2, 2, 1, 1, 1}}, {false, 2, 2});
        check_both({{batch, 6, 14, 14}, {16, 6, 5, 5}, {1, 1, 0, 0, 0, 0, 1, 1, 1}}, {batch == 3, 2, 2});
    }
}
