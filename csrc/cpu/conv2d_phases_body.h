// Convolutions of few channels at stride 2 to 4, as AlexNet's first layer, by way of stride 1 and Winograd.
//
// The pixels of a channel in steps of the stride, from each of stride x stride beginnings, are channels of
// their own, the phases. On them the convolution has stride 1 and a kernel of ceil(K / stride), whose taps
// beyond K are zero:  with i = stride * I + a,  x[oh * stride + i - pad] = phase a of x at [oh + I]. A block
// of images at a time is taken apart, so that the workspace does not grow with the batch.
#pragma once
#include "cpu/arena.h"
#include "cpu/conv2d_winograd_body.h"
#include "cpu/conv2d_winograd_weight_body.h"
#include "cpu/parallel.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t most_phases = 64;       // channels * stride * stride
constexpr int64_t phase_bytes = 8 << 20;  // of a block of images
constexpr double most_tap_waste = 1.5;    // times the taps, zeros included

inline Conv2dShape phase_shape(const Conv2dShape& s, int64_t images) {
    Conv2dShape p = s;
    p.batch = images;
    p.channels = p.group_channels = s.channels * s.stride_h * s.stride_w;
    p.kernel_h = divide_up(s.kernel_h, s.stride_h);
    p.kernel_w = divide_up(s.kernel_w, s.stride_w);
    p.height = s.out_h + p.kernel_h - 1;
    p.width = s.out_w + p.kernel_w - 1;
    p.stride_h = p.stride_w = 1;
    p.pad_top = p.pad_bottom = p.pad_left = p.pad_right = 0;
    return p;
}

template <class T>
bool phases_run(const Conv2dShape& s, Winograd winograd) {
    if (s.stride_h != s.stride_w || s.stride_h < 2 || s.stride_h > 4 || s.groups != 1 || s.dilation_h != 1 ||
        s.dilation_w != 1 || s.channels * s.stride_h * s.stride_w > most_phases)
        return false;
    const Conv2dShape p = phase_shape(s, s.batch);
    const double taps = double(p.kernel_h * s.stride_h * p.kernel_w * s.stride_w);
    return taps <= most_tap_waste * double(s.kernel_h * s.kernel_w) && winograd_runs<T>(p, winograd);
}

// to (images, C * stride * stride, H', W'): to[n, (c, a, b), p, q] = x[n, c, p*stride + a - pad, q*stride + b
// - pad].
template <class T>
void split_phases(const Conv2dShape& s, const Conv2dShape& p, const T* x, T* to) {
    const int64_t step = s.stride_h, plane = p.height * p.width;
    parallel_for(p.batch * p.channels, double(2 * plane), [&](int64_t task) {
        const int64_t b = task % step, a = task / step % step, channel = task / (step * step);
        const T* const from = x + channel * s.height * s.width;
        T* row = to + task * plane;
        const int64_t left = b - s.pad_left;  // columns [begin, end) are inside
        const int64_t begin = left < 0 ? smaller(p.width, divide_up(-left, step)) : 0;
        const int64_t end = larger(begin, smaller(p.width, divide_up(s.width - left, step)));
        for (int64_t h = 0; h < p.height; ++h, row += p.width) {
            const int64_t y = h * step + a - s.pad_top;
            const bool inside = y >= 0 && y < s.height;
            for (int64_t w = 0; w < p.width; ++w)
                row[w] = inside && w >= begin && w < end ? from[y * s.width + w * step + left] : T(0);
        }
    });
}

// Calls f(index of w or dw, index of its phases) for every tap, zeros left out.
template <class F>
void for_phase_taps(const Conv2dShape& s, const Conv2dShape& p, const F& f) {
    const int64_t step = s.stride_h;
    int64_t index = 0;
    for (int64_t filter = 0; filter < s.filters * s.channels; ++filter)
        for (int64_t i = 0; i < s.kernel_h; ++i)
            for (int64_t j = 0; j < s.kernel_w; ++j, ++index)
                f(index, ((filter * step + i % step) * step + j % step) * p.kernel_h * p.kernel_w +
                             i / step * p.kernel_w + j / step);
}

// The workspace of one call, and the blocks of images that it is worked through in.
template <class T>
struct PhaseWorkspace {
    const Conv2dShape& s;
    Conv2dShape p;  // of the present block
    int64_t block, weights;
    Scratch x_memory, w_memory;
    T *const x, *const w;

    explicit PhaseWorkspace(const Conv2dShape& s)
        : s(s),
          p(phase_shape(s, 1)),
          block(larger(1, smaller(s.batch, phase_bytes / (image() * int64_t(sizeof(T)))))),
          weights(s.filters * p.channels * p.kernel_h * p.kernel_w),
          x_memory(block * image(), sizeof(T)),
          w_memory(weights, sizeof(T)),
          x(static_cast<T*>(x_memory.data)),
          w(static_cast<T*>(w_memory.data)) {}
    int64_t image() const { return p.channels * p.height * p.width; }

    // f(first image, where its results begin) for each block, whose phases are in x.
    template <class F>
    void for_blocks(const T* images, const F& f) {
        for (int64_t n = 0; n < s.batch; n += block) {
            p.batch = smaller(block, s.batch - n);
            split_phases(s, p, images + n * s.channels * s.height * s.width, x);
            f(n, n * s.filters * s.out_h * s.out_w);
        }
    }
};

// out (N, O, OH, OW) = activation(bias + x (N, C, H, W) convolved with w (O, C, KH, KW)).
template <class T>
void conv2d_forward_phases(const Conv2dForward<T>& a) {
    PhaseWorkspace<T> work(a.shape);
    memset(work.w, 0, size_t(work.weights) * sizeof(T));
    for_phase_taps(a.shape, work.p, [&](int64_t tap, int64_t phase) { work.w[phase] = a.w[tap]; });
    work.for_blocks(a.x, [&](int64_t, int64_t result) {
        conv2d_forward_winograd<T>(
            {a.out + result, work.x, work.w, a.bias, work.p, a.activation, a.parameter, Winograd::always});
    });
}

// out (O, C, KH, KW) from x (N, C, H, W), dy (N, O, OH, OW): the blocks' sums are added in their order.
template <class T>
void conv2d_backward_weight_phases(const Conv2dBackwardWeight<T>& a) {
    PhaseWorkspace<T> work(a.shape);
    work.for_blocks(a.x, [&](int64_t n, int64_t result) {
        conv2d_backward_weight_winograd<T>({work.w, work.x, a.dy + result, work.p, Winograd::always});
        for_phase_taps(a.shape, work.p, [&](int64_t tap, int64_t phase) {
            a.out[tap] = n == 0 ? work.w[phase] : a.out[tap] + work.w[phase];
        });
    });
}

}  // namespace
}  // namespace tinygrad_nm
