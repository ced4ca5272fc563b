// Convolution and pooling as one kernel against plain loops: batches from 1 to several blocks, so that images
// are cut into strips, blocks are shared by tasks, and neither. Small integers must match bit for bit.
#include <cmath>
#include <limits>

#include "conv2d_problem.h"
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

// `with_dx`: without it the kernel takes another way.
template <class T>
Pooled<T> by_kernels(const Problem<T>& p, const PoolWindows& pool, const std::vector<T>& dout, int64_t kept,
                     bool with_dx) {
    const T garbage = std::numeric_limits<T>::quiet_NaN();
    std::vector<T> y(kept, garbage);
    Pooled<T> r{std::vector<T>(dout.size(), garbage), std::vector<T>(p.x.size(), garbage),
                std::vector<T>(p.w.size(), garbage), std::vector<T>(p.bias.size(), garbage)};
    const Conv2dForward<T> conv = {nullptr, p.x.data(), p.w.data(), p.bias.data(), p.shape};
    kernels<T>().conv2d_pool2d_forward({r.out.data(), y.data(), conv, pool});
    kernels<T>().conv2d_pool2d_backward({with_dx ? r.dx.data() : nullptr, r.dw.data(), r.db.data(),
                                         dout.data(), y.data(), conv, pool, false});
    return r;
}

template <class T>
void check_exact(const Case& c, const PoolWindows& pool) {
    const Problem<T> problem(c.shape());
    const Conv2dShape& s = problem.shape;
    std::vector<T> dout(s.batch * s.filters * (s.out_h / pool.height) * (s.out_w / pool.width));
    for (size_t i = 0; i < dout.size(); ++i) dout[i] = T(int(i * 7 % 9) - 4);
    const Pooled<T> expected = by_loops(problem, pool, dout);
    for_each_isa([&](const std::string& isa) {
        const std::string where = isa + (sizeof(T) == 4 ? " float " : " double ") + c.text() +
                                  (pool.maximum ? " maximum " : " mean ") +
                                  sizes_text({pool.height, pool.width});
        const int64_t kept = kernels<T>().conv2d_pool2d_kept(s, Activation::identity, pool);
        CHECK_THAT(kept > 0, "a fused kernel for " + where);
        if (kept == 0) return;
        for (const bool with_dx : {true, false}) {
            const Pooled<T> got = by_kernels(problem, pool, dout, kept, with_dx);
            CHECK_THAT(got.out == expected.out, "out " + where);
            CHECK_THAT(!with_dx || got.dx == expected.dx, "dx " + where);
            CHECK_THAT(got.dw == expected.dw, "dw " + where);
            CHECK_THAT(got.db == expected.db, "db " + where);
        }
    });
}

void check_both(const Case& c, const PoolWindows& pool) {
    check_exact<float>(c, pool);
    check_exact<double>(c, pool);
}

}  // namespace

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
