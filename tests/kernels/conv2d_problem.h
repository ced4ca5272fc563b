// A convolution, its three passes by plain loops over the definition in conv2d_shape.h, and by the kernels.
#pragma once
#include <array>
#include <limits>
#include <string>
#include <vector>

#include "shared/dispatch.h"

namespace kernel_tests {

using namespace tinygrad_nm;

using Sizes = std::array<int64_t, 4>;

struct Case {
    Sizes x, w;
    Conv2dGeometry geometry;

    Conv2dShape shape() const { return conv2d_shape("conv2d", x, w, geometry); }
    std::string text() const {
        const Conv2dGeometry& g = geometry;
        return "x " + sizes_text({x[0], x[1], x[2], x[3]}) + " w " + sizes_text({w[0], w[1], w[2], w[3]}) +
               " stride " + sizes_text({g.stride_h, g.stride_w}) + " pad " +
               sizes_text({g.pad_top, g.pad_bottom, g.pad_left, g.pad_right}) + " dilation " +
               sizes_text({g.dilation_h, g.dilation_w}) + " groups " + std::to_string(g.groups);
    }
};

// Calls term(index in y, index in x or -1 on the padding, index in w) for every product in the definition.
template <class Term>
void for_terms(const Conv2dShape& s, const Term& term) {
    int64_t y = 0;
    for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t o = 0; o < s.filters; ++o)
            for (int64_t oh = 0; oh < s.out_h; ++oh)
                for (int64_t ow = 0; ow < s.out_w; ++ow, ++y) {
                    int64_t w = o * s.group_channels * s.kernel_h * s.kernel_w;
                    for (int64_t c = 0; c < s.group_channels; ++c)
                        for (int64_t i = 0; i < s.kernel_h; ++i)
                            for (int64_t j = 0; j < s.kernel_w; ++j, ++w) {
                                const int64_t channel = o / s.group_filters * s.group_channels + c;
                                const int64_t ih = oh * s.stride_h - s.pad_top + i * s.dilation_h;
                                const int64_t iw = ow * s.stride_w - s.pad_left + j * s.dilation_w;
                                const bool inside = ih >= 0 && ih < s.height && iw >= 0 && iw < s.width;
                                const int64_t plane = (n * s.channels + channel) * s.height;
                                term(y, inside ? (plane + ih) * s.width + iw : -1, w);
                            }
                }
}

template <class T>
struct Problem {
    Conv2dShape shape;
    std::vector<T> x, w, bias, dy;

    // Integers in [-4, 4], or fractions.
    explicit Problem(const Conv2dShape& s, bool integers = true)
        : shape(s),
          x(s.batch * s.channels * s.height * s.width),
          w(s.filters * s.group_channels * s.kernel_h * s.kernel_w),
          bias(s.filters),
          dy(s.batch * s.filters * s.out_h * s.out_w) {
        uint32_t state = 12345;
        for (std::vector<T>* array : {&x, &w, &bias, &dy})
            for (T& value : *array) {
                state = state * 1664525u + 1013904223u;
                value = integers ? T(int(state >> 16) % 9 - 4) : T(state >> 8) / T(1 << 23) - T(1);
            }
    }

    struct Results {
        std::vector<T> y, dx, dw;
    };
    Results by_loops() const {
        Results r{std::vector<T>(dy.size()), std::vector<T>(x.size()), std::vector<T>(w.size())};
        const int64_t plane = shape.out_h * shape.out_w;
        for (size_t i = 0; i < r.y.size(); ++i) r.y[i] = bias[int64_t(i) / plane % shape.filters];
        for_terms(shape, [&](int64_t iy, int64_t ix, int64_t iw) {
            if (ix < 0) return;
            r.y[iy] += x[ix] * w[iw];
            r.dx[ix] += dy[iy] * w[iw];
            r.dw[iw] += dy[iy] * x[ix];
        });
        return r;
    }
    Results by_kernels(Winograd winograd = Winograd::never) const {
        const T garbage =
            std::numeric_limits<T>::quiet_NaN();  // results are never read before they are written
        Results r{std::vector<T>(dy.size(), garbage), std::vector<T>(x.size(), garbage),
                  std::vector<T>(w.size(), garbage)};
        kernels<T>().conv2d_forward(
            {r.y.data(), x.data(), w.data(), bias.data(), shape, Activation::identity, 0, winograd});
        kernels<T>().conv2d_backward_input({r.dx.data(), dy.data(), w.data(), shape, winograd});
        kernels<T>().conv2d_backward_weight({r.dw.data(), x.data(), dy.data(), shape, winograd});
        return r;
    }
};

}  // namespace kernel_tests
