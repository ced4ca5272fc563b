// Convolution, activation and pooling fused, for so few images that interleaved they would leave most lanes
// idle: here the filters are the lanes, and in the gradient of x the pixels of a row.
//
// y is kept as (N, vectors of filters, OH, OW, lane). Stride 1, dilation 1, no groups.
#pragma once
#include "cpu/conv2d_pool2d_windows_body.h"
#include "cpu/panels_body.h"

namespace tinygrad_nm {
namespace {

// Up to so many images the filters are the lanes.
template <class T>
constexpr int64_t few_images = 3 * Vec<T>::lanes / 8;
constexpr int64_t filter_vectors = 2;         // at most
constexpr int64_t few_bytes_of_x = 16 << 10;  // of a padded image, that stays in the first-level cache

// Decided by the shape alone; at stride 1 and dilation 1.
template <class T>
bool filters_as_lanes(const Conv2dShape& s) {
    const int64_t vectors = divide_up(s.filters, Vec<T>::lanes);
    const int64_t height = s.pad_top + s.height + s.pad_bottom, width = s.pad_left + s.width + s.pad_right;
    return s.groups == 1 && s.batch <= few_images<T> && vectors <= filter_vectors &&
           4 * s.filters >= 3 * vectors * Vec<T>::lanes && (s.kernel_w == 3 || s.kernel_w == 5) &&
           s.out_h * s.out_w > 1 && height == s.out_h + s.kernel_h - 1 && width == s.out_w + s.kernel_w - 1 &&
           s.channels * height * width * int64_t(sizeof(T)) <= few_bytes_of_x;
}

template <class T>
struct FewImages {
    static constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s;
    int64_t vectors, width_of_filters;  // of filters: vectors, and numbers in these
    int64_t depth;                      // C * KH * KW
    int64_t height, width, x_size;      // of the padded x; its numbers, and some behind that tiles may read
    WindowGrid grid;
    int64_t y_size, pooled;    // numbers of one image: of y, and of a vector's part of the result
    int64_t filled, dz_plane;  // rows of y in windows; numbers in a vector's part of the gradient of these

    FewImages(const Conv2dShape& shape, const PoolWindows& pool)
        : s(shape),
          vectors(divide_up(s.filters, lanes)),
          width_of_filters(vectors * lanes),
          depth(s.channels * s.kernel_h * s.kernel_w),
          height(s.out_h + s.kernel_h - 1),
          width(s.out_w + s.kernel_w - 1),
          x_size(s.channels * height * width + tile_rows),
          grid{pool,    s.out_h / pool.height,     s.out_w / pool.width,
               s.out_w, s.out_h * s.out_w * lanes, (s.out_w + 2 * margin) * lanes} {
        y_size = vectors * grid.y_plane, pooled = grid.down * grid.across;
        filled = grid.down * pool.height, dz_plane = filled * grid.dy_row;
    }
    int used(int64_t vector) const { return int(smaller(lanes, s.filters - vector * lanes)); }

    // to (C, height, width) = the padded x (C, H, W), and zeros.
    void pad(const T* x, T* to) const {
        memset(to, 0, size_t(x_size) * sizeof(T));
        for (int64_t c = 0; c < s.channels; ++c)
            for (int64_t h = 0; h < s.height; ++h)
                memcpy(to + (c * height + h + s.pad_top) * width + s.pad_left,
                       x + (c * s.height + h) * s.width, size_t(s.width) * sizeof(T));
    }
};

// y[v][row][first + r][lane] = sum over c, i, j of x[c][row + i][first + r + j] * filters[c][i][j][v][lane].
template <class T, int pixels, int vectors>
void correlate_few(const FewImages<T>& g, const T* x, const T* filters, int64_t row, int64_t first, int count,
                   T* y) {
    constexpr int64_t lanes = Vec<T>::lanes, step = vectors * lanes;
    const Conv2dShape& s = g.s;
    Accumulators<T, pixels, vectors> acc;
    clear<T, pixels, vectors>(acc);
    for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t i = 0; i < s.kernel_h; ++i, filters += s.kernel_w * step)
            add_products<T, true, pixels, vectors>(s.kernel_w, x + (c * g.height + row + i) * g.width + first,
                                                   1, filters, step, acc);
#pragma GCC unroll 16
    for (int r = 0; r < pixels; ++r)
        if (r < count)
            for (int v = 0; v < vectors; ++v)
                acc[r][v].store(y + v * g.grid.y_plane + (row * s.out_w + first + r) * lanes);
}

template <class T, int vectors>
void correlate_few(const FewImages<T>& g, const T* x, const T* filters, T* y) {
    using Correlate = void (*)(const FewImages<T>&, const T*, const T*, int64_t, int64_t, int, T*);
    static constexpr Correlate of[] = {
        correlate_few<T, tile_heights[0], vectors>, correlate_few<T, tile_heights[1], vectors>,
        correlate_few<T, tile_heights[2], vectors>, correlate_few<T, tile_heights[3], vectors>};
    for (int64_t row = 0; row < g.s.out_h; ++row)
        for (int64_t first = 0; first < g.s.out_w; first += tile_rows) {
            const int count = int(smaller(tile_rows, g.s.out_w - first));
            of[height_class(count)](g, x, filters, row, first, count, y);
        }
}

template <class T>
void add_bias_and_activate(const FewImages<T>& g, const Conv2dForward<T>& conv, T* y) {
    for (int64_t v = 0; v < g.vectors; ++v, y += g.grid.y_plane) {
        if (conv.bias) {
            const Vec<T> bias = load_up_to(conv.bias + v * g.lanes, g.used(v));
            for (int64_t p = 0; p < g.grid.y_plane; p += g.lanes) (Vec<T>::load(y + p) + bias).store(y + p);
        }
        apply_activation<T>(conv.activation, conv.parameter, y, g.grid.y_plane);
    }
}

template <class T>
void forward_few(const Conv2dPool2dForward<T>& a) {
    const Conv2dShape& s = a.conv.shape;
    const FewImages<T> g(s, a.pool);
    constexpr int64_t lanes = Vec<T>::lanes;
    const Scratch packed(g.depth * g.width_of_filters, sizeof(T));
    T* const filters = static_cast<T*>(packed.data);
    if (g.vectors == 1)
        pack_panel<T, lanes>(filters, a.conv.w, g.depth, 1, int(s.filters), g.depth);
    else
        pack_panel<T, 2 * lanes>(filters, a.conv.w, g.depth, 1, int(s.filters), g.depth);
    parallel_for(s.batch, 2.0 * double(g.y_size * g.depth), [&](int64_t n) {
        const Scratch x_memory(g.x_size, sizeof(T)), y_memory(a.y ? 0 : g.y_size, sizeof(T)),
            out_memory(g.vectors * g.pooled * lanes, sizeof(T));
        T *const x = static_cast<T*>(x_memory.data), *const out = static_cast<T*>(out_memory.data);
        T* const y = a.y ? a.y + n * g.y_size : static_cast<T*>(y_memory.data);
        g.pad(a.conv.x + n * s.channels * s.height * s.width, x);
        (g.vectors == 1 ? correlate_few<T, 1> : correlate_few<T, 2>)(g, x, filters, y);
        add_bias_and_activate(g, a.conv, y);
        with_pool(a.pool, [&](auto kind) {
            for (int64_t i = 0; i < g.grid.down; ++i)
                pool_interleaved<T, decltype(kind)>(g.grid, Part(0, g.vectors), i, y, out);
        });
        for (int64_t v = 0; v < g.vectors; ++v)
            deinterleave(a.out + (n * s.filters + v * lanes) * g.pooled, g.pooled, g.used(v),
                         out + v * g.pooled * lanes, g.pooled);
    });
}

// sums[c .. c + channels][i][j][lane] += the products of x (C, height, width) and dz (rows, margin + OW +
// margin, lane), of one vector of filters and one i.
template <class T, int channels, int kernel_w>
void add_weight_gradient_few(const FewImages<T>& g, const T* x, const T* dz, int64_t rows, T* sums) {
    const int64_t x_plane = g.height * g.width, sums_plane = g.s.kernel_h * kernel_w * g.lanes;
    Vec<T> acc[channels][kernel_w];
    const auto each = [&](const auto& visit) TINYGRAD_NM_INLINE_LAMBDA {
#pragma GCC unroll 4
        for (int c = 0; c < channels; ++c)
#pragma GCC unroll 8
            for (int j = 0; j < kernel_w; ++j) visit(acc[c][j], c, j);
    };
    each([&](Vec<T>& sum, int c, int j)
             TINYGRAD_NM_INLINE_LAMBDA { sum = Vec<T>::load(sums + c * sums_plane + j * g.lanes); });
    for (int64_t row = 0; row < rows; ++row) {
        const T *from = x + row * g.width, *d = dz + row * g.grid.dy_row + margin * g.lanes;
        for (int64_t p = 0; p < g.s.out_w; ++p, ++from, d += g.lanes) {
            const Vec<T> gradient = in_register(Vec<T>::load(d));
            each([&](Vec<T>& sum, int c, int j) TINYGRAD_NM_INLINE_LAMBDA {
                sum = fma(Vec<T>::broadcast(from[c * x_plane + j]), gradient, sum);
            });
        }
    }
    each([&](Vec<T>& sum, int c, int j)
             TINYGRAD_NM_INLINE_LAMBDA { sum.store(sums + c * sums_plane + j * g.lanes); });
}

// Two channels at once: the sums of one would wait for each other.
template <class T, int kernel_w>
void add_weight_gradient_few(const FewImages<T>& g, const T* x, const T* dz, int64_t rows, T* sums) {
    const int64_t x_plane = g.height * g.width, sums_row = kernel_w * g.lanes;
    for (int64_t c = 0; c < g.s.channels; c += 2) {
        const auto add = c + 1 < g.s.channels ? add_weight_gradient_few<T, 2, kernel_w>
                                              : add_weight_gradient_few<T, 1, kernel_w>;
        for (int64_t i = 0; i < g.s.kernel_h; ++i)
            add(g, x + c * x_plane + i * g.width, dz, rows, sums + (c * g.s.kernel_h + i) * sums_row);
    }
}

// Rows (margin + OW + margin) of dz, planar: the margins of neighbours are wide enough for every tap.
template <class T>
struct PlanarGradient {
    const T* data;  // (O, rows, pitch)
    int64_t rows, pitch;
};

// `channels` rows h of dx (C, H, W), from channel `begin` on:
//   dx[c][h][x] = sum over o, i, j of w[o][c][i][j] * dz[o][h + pad_top - i][x + pad_left - j].
template <class T, int channels>
void correlate_back_few(const FewImages<T>& g, const PlanarGradient<T>& dz, const T* w, int64_t begin,
                        int64_t h, T* dx) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Conv2dShape& s = g.s;
    const int64_t taps = s.kernel_h * s.kernel_w, row = h + s.pad_top;
    for (int64_t x = 0; x < s.width; x += lanes) {
        Accumulators<T, channels, 1> acc;
        clear<T, channels, 1>(acc);
        for (int64_t o = 0; o < s.filters; ++o)
            for (int64_t i = larger(0, row - dz.rows + 1); i < s.kernel_h && i <= row; ++i)
                add_products<T, false, channels, 1>(
                    s.kernel_w, w + (o * s.channels + begin) * taps + i * s.kernel_w, taps,
                    dz.data + (o * dz.rows + row - i) * dz.pitch + margin + s.pad_left + x, -1, acc);
        for (int c = 0; c < channels; ++c)
            store_up_to(acc[c][0], dx + ((begin + c) * s.height + h) * s.width + x,
                        int(smaller(lanes, s.width - x)));
    }
}

template <class T>
void correlate_back_few(const FewImages<T>& g, const PlanarGradient<T>& dz, const T* w, T* dx) {
    using Correlate = void (*)(const FewImages<T>&, const PlanarGradient<T>&, const T*, int64_t, int64_t, T*);
    static constexpr Correlate of[most_rows] = {correlate_back_few<T, 1>, correlate_back_few<T, 2>,
                                                correlate_back_few<T, 3>, correlate_back_few<T, 4>,
                                                correlate_back_few<T, 5>, correlate_back_few<T, 6>};
    const int64_t parts = divide_up(g.s.channels, most_rows);
    for (int64_t b = 0; b < parts; ++b) {
        const Part part(g.s.channels, parts, b);
        for (int64_t h = 0; h < g.s.height; ++h) of[part.count - 1](g, dz, w, part.begin, h, dx);
    }
}

// The gradient of z of one image, (vectors, rows, margin + OW + margin, lane); bias_sums (vectors, lane) +=
// its sums.
template <class T>
void spread_few(const FewImages<T>& g, const Conv2dPool2dBackward<T>& a, int64_t n, T* dz, T* bias_sums) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const Scratch dout_memory(g.vectors * g.pooled * lanes, sizeof(T));
    T* const dout = static_cast<T*>(dout_memory.data);
    for (int64_t v = 0; v < g.vectors; ++v)
        interleave(dout + v * g.pooled * lanes, a.dout + (n * g.s.filters + v * lanes) * g.pooled, g.pooled,
                   g.used(v), g.pooled);
    for (int64_t i = 0; i < g.grid.down; ++i) {
        const int64_t first = i * a.pool.height;
        spread_interleaved(g.grid, a, int(lanes), Part(0, g.vectors), i, dout, a.y + n * g.y_size,
                           {dz + first * g.grid.dy_row, g.dz_plane, first, a.pool.height}, bias_sums);
    }
}

// sums (vectors, depth, lane) += the weight gradient of one image.
template <class T>
void weight_gradient_few(const FewImages<T>& g, const T* image, const T* dz, T* sums) {
    const Scratch x_memory(g.x_size, sizeof(T));
    T* const x = static_cast<T*>(x_memory.data);
    g.pad(image, x);
    const auto add = g.s.kernel_w == 3 ? add_weight_gradient_few<T, 3> : add_weight_gradient_few<T, 5>;
    for (int64_t v = 0; v < g.vectors; ++v)
        add(g, x, dz + v * g.dz_plane, g.filled, sums + v * g.depth * g.lanes);
}

template <class T>
void input_gradient_few(const FewImages<T>& g, const T* w, const T* dz, T* dx) {
    constexpr int64_t lanes = Vec<T>::lanes, slack = 2 * margin + lanes;
    const int64_t pitch = g.grid.dy_row / lanes, plane = g.filled * pitch, size = g.s.filters * plane;
    const Scratch memory(size + 2 * slack, sizeof(T));
    T* const planar = static_cast<T*>(memory.data) + slack;
    memset(planar - slack, 0, slack * sizeof(T));
    memset(planar + size, 0, slack * sizeof(T));
    for (int64_t v = 0; v < g.vectors; ++v)
        deinterleave(planar + v * lanes * plane, plane, g.used(v), dz + v * g.dz_plane, plane);
    correlate_back_few<T>(g, {planar, g.filled, pitch}, w, dx);
}

template <class T>
void backward_few(const Conv2dPool2dBackward<T>& a) {
    const Conv2dShape& s = a.conv.shape;
    const FewImages<T> g(s, a.pool);
    const int64_t size = g.vectors * g.depth * g.lanes, each = size + g.width_of_filters;
    const int64_t image = s.channels * s.height * s.width;
    const Scratch memory(s.batch * each, sizeof(T));
    T* const sums = static_cast<T*>(memory.data);
    memset(sums, 0, size_t(s.batch * each) * sizeof(T));
    parallel_for(s.batch, 2.0 * double(g.y_size * g.depth) * (a.dx && a.dw ? 2 : 1), [&](int64_t n) {
        const Scratch dz_memory(g.vectors * g.dz_plane, sizeof(T));
        T *const dz = static_cast<T*>(dz_memory.data), *const of_image = sums + n * each;
        spread_few(g, a, n, dz, of_image + size);
        if (a.dw) weight_gradient_few(g, a.conv.x + n * image, dz, of_image);
        if (a.dx) input_gradient_few(g, a.conv.w, dz, a.dx + n * image);
    });
    for (int64_t n = 1; n < s.batch; ++n)
        for (int64_t p = 0; p < each; p += g.lanes)
            (Vec<T>::load(sums + p) + Vec<T>::load(sums + n * each + p)).store(sums + p);
    for (int64_t v = 0; v < g.vectors && a.dw; ++v)
        deinterleave(a.dw + v * g.lanes * g.depth, g.depth, g.used(v), sums + v * g.depth * g.lanes, g.depth);
    if (a.db) memcpy(a.db, sums + size, size_t(s.filters) * sizeof(T));
}

}  // namespace
}  // namespace tinygrad_nm
