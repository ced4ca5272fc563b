// Convolution of images with few channels: a block holds a patch of the image and the filters in shared
// memory.
#include "cuda/conv2d_correlation.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr int thread_results = 4;  // of each filter

// Blocks of a multiprocessor at least: as many as there are without registers spilled.
template <class T, int rows>
constexpr int direct_blocks = sizeof(T) == 8 ? 3
                              : rows == 8    ? 4
                              : rows == 4    ? 6
                                             : 8;

template <class T>
struct Direct {
    Correlation<T> c;
    int results_h, results_w;  // of a block, at most
    int filters, pitch;        // of a block, a multiple of a thread's; between two taps of them
    int filters_at;            // in shared memory, behind the patch
    int tiles_h, tiles_w, tiles_m;

    int64_t blocks() const { return int64_t(tiles_h) * tiles_w * tiles_m * c.phases() * c.groups * c.batch; }
};

// One axis of the patch of a block. Taps are counted in the direction of the image.
struct PatchAxis {
    int results, size;   // of the block; of the patch
    int step, tap_step;  // result a and tap t meet at a step + t tap_step
    int begin;           // the patch's first row in the image
};
__device__ __forceinline__ PatchAxis patch_axis(const CorrelationAxis& axis, const Phase<int>& phase, int a0,
                                                int most) {
    PatchAxis p;
    p.results = phase.results - a0 < most ? phase.results - a0 : most;
    p.step = int(axis.step), p.tap_step = axis.tap_step < 0 ? -int(axis.tap_step) : int(axis.tap_step);
    const int last_tap = (phase.taps - 1) * p.tap_step;
    p.size = (p.results - 1) * p.step + last_tap + 1;
    p.begin = phase.start + a0 * p.step - (axis.tap_step < 0 ? last_tap : 0);
    return p;
}
// Which tap of the filter is the t-th of the phase.
__device__ __forceinline__ int64_t tap_of(const CorrelationAxis& axis, int phase, int taps, int t) {
    return phase + (axis.tap_step < 0 ? taps - 1 - t : t) * axis.tap_jump;
}

// patch[c, y, x] = image[c, h.begin + y, w.begin + x], zero outside of the image. A warp copies a row.
template <class T>
__device__ __forceinline__ void copy_patch(T* patch, const T* image, const Correlation<T>& c,
                                           const PatchAxis& h, const PatchAxis& w) {
    const int warps = int(blockDim.x) / warpSize, lane = int(threadIdx.x) % warpSize;
    const int height = int(c.h.image), width = int(c.w.image);
    for (int row = int(threadIdx.x) / warpSize; row < int(c.channels) * h.size; row += warps) {
        int channel = row;
        const int y = h.begin + take(channel, h.size), from = (channel * height + y) * width + w.begin;
        for (int x = lane; x < w.size; x += warpSize)
            if (y >= 0 && y < height && w.begin + x >= 0 && w.begin + x < width)
                copy_number(&patch[row * w.size + x], image + (from + x));
            else
                patch[row * w.size + x] = T(0);
    }
}

// filters[tap][m] for the block's rows from m0 on and the phase's taps (c, i, j); zero beyond the last row.
template <class T>
__device__ __forceinline__ void copy_filters(T* filters, const Direct<T>& d, int group, int m0, int phase_h,
                                             int phase_w, int taps_h, int taps_w) {
    const Correlation<T>& c = d.c;
    const int taps = int(c.channels) * taps_h * taps_w;
    for (int e = int(threadIdx.x); e < taps * d.filters; e += int(blockDim.x)) {
        int m = e;
        const int tap = take(m, taps);
        int channel = tap;
        const int64_t j = tap_of(c.w, phase_w, taps_w, take(channel, taps_w));
        const int64_t i = tap_of(c.h, phase_h, taps_h, take(channel, taps_h));
        const int64_t at = group * c.rows * c.channels + (m0 + m) * c.row_step + channel * c.channel_step;
        T* const to = &filters[tap * d.pitch + m];
        if (m0 + m < c.rows)
            copy_number(to, c.filters + (at * c.h.kernel + i) * c.w.kernel + j);
        else
            *to = T(0);
    }
}

// acc[k][r] += sum over one row's taps j of filter[j][k] * from[at[r] + j tap_step]
template <bool neighbours, class T, int rows>
__device__ __forceinline__ void add_taps(T (&acc)[rows][thread_results], const T* from,
                                         const int (&at)[thread_results], const T* filter, int taps,
                                         int tap_step, int pitch) {
#pragma unroll 4
    for (int j = 0; j < taps; ++j) {
        const auto f = *reinterpret_cast<const Together<T, rows>*>(filter + j * pitch);
#pragma unroll
        for (int r = 0; r < thread_results; ++r) {
            const T value = from[at[r] + (neighbours ? j : j * tap_step)];
#pragma unroll
            for (int k = 0; k < rows; ++k) acc[k][r] = fma(f.v[k], value, acc[k][r]);
        }
    }
}

// out as in conv2d_correlation.cuh. A block has a rectangle of results of one example, phase and group, for
// some rows of filters; a thread some of the results, spread over the rectangle so that neighbouring threads
// have neighbours, for `rows` filters at a time.
template <class T, int rows>
__global__ void __launch_bounds__(128, direct_blocks<T, rows>) conv2d_few_channels(const Direct<T> d) {
    DYNAMIC_SHARED(T, patch);
    T* const filters = patch + d.filters_at;
    const Correlation<T>& c = d.c;
    int example = int(blockIdx.x);  // n * groups + group
    const int m0 = take(example, d.tiles_m) * d.filters;
    const int b0 = take(example, d.tiles_w) * d.results_w, a0 = take(example, d.tiles_h) * d.results_h;
    const int phase_w = take(example, int(c.w.phases)), phase_h = take(example, int(c.h.phases));
    const int group = example % int(c.groups);
    const Phase<int> all_h = c.h.phase(phase_h), all_w = c.w.phase(phase_w);
    if (a0 >= all_h.results || b0 >= all_w.results) return;
    const PatchAxis h = patch_axis(c.h, all_h, a0, d.results_h), w = patch_axis(c.w, all_w, b0, d.results_w);
    copy_patch(patch, c.image + example * c.channels * (c.h.image * c.w.image), c, h, w);
    copy_filters(filters, d, group, m0, phase_h, phase_w, all_h.taps, all_w.taps);
    commit_copies();
    wait_copies<0>();
    __syncthreads();

    int at[thread_results];          // in the patch
    int64_t out_at[thread_results];  // of row m0; -1: there is no such result
#pragma unroll
    for (int r = 0; r < thread_results; ++r) {
        const int result = int(threadIdx.x) + r * int(blockDim.x);
        const bool inside = result < h.results * w.results;
        int a = inside ? result : 0;
        const int b = take(a, w.results);
        at[r] = a * h.step * w.size + b * w.step;
        const int64_t y = all_h.first + (a0 + a) * c.h.apart, x = all_w.first + (b0 + b) * c.w.apart;
        out_at[r] = inside ? ((example * c.rows + m0) * c.h.out + y) * c.w.out + x : -1;
    }
    for (int m = 0; m < d.filters && m0 + m < c.rows; m += rows) {
        T acc[rows][thread_results] = {};
        const T* filter = filters + m;
        for (int channel = 0; channel < int(c.channels); ++channel)
            for (int i = 0; i < all_h.taps; ++i, filter += all_w.taps * d.pitch) {
                const T* const from = patch + (channel * h.size + i * h.tap_step) * w.size;
                if (w.tap_step == 1)
                    add_taps<true>(acc, from, at, filter, all_w.taps, w.tap_step, d.pitch);
                else
                    add_taps<false>(acc, from, at, filter, all_w.taps, w.tap_step, d.pitch);
            }
        finish(acc, c, group, [&](int k) { return m0 + m + k; });
#pragma unroll
        for (int r = 0; r < thread_results; ++r)
#pragma unroll
            for (int k = 0; k < rows; ++k)
                if (out_at[r] >= 0 && m0 + m + k < c.rows)
                    c.out[out_at[r] + (m + k) * (c.h.out * c.w.out)] = acc[k][r];
    }
}

int balanced(int64_t size, int64_t most) {
    return int(tiles_of(size, tiles_of(size, most)));
}

// The largest rectangle of results whose patch fits, and as many filters as fit beside it. False where that
// is too small to pay: tiles go over many images, but with few rows of filters they would be nearly empty.
template <class T>
bool plan(Direct<T>& d, int rows) {
    constexpr int most_width = 64, most_results = 128 * thread_results, least_results = 64, few_rows = 4;
    constexpr int64_t most_patch = 24 << 10, most_filters = 16 << 10, most_taps = 160, most_channels = 8;
    const Correlation<T>& c = d.c;
    const auto patch_size = [](const CorrelationAxis& axis, int64_t results) {
        const int64_t tap_step = axis.tap_step < 0 ? -axis.tap_step : axis.tap_step;
        return double(results - 1) * double(axis.step) + double(axis.taps() - 1) * double(tap_step) + 1;
    };
    if (c.channels > most_channels || c.taps() > most_taps || c.channels * c.taps() > most_taps) return false;
    const int64_t taps = c.channels * c.taps();
    const auto patch = [&] {
        return double(c.channels) * patch_size(c.h, d.results_h) * patch_size(c.w, d.results_w);
    };
    d.results_w = balanced(c.w.results(), most_width);
    d.results_h = balanced(c.h.results(), most_results / d.results_w);
    while (patch() * sizeof(T) > most_patch) {
        if (d.results_h == 1) return false;
        d.results_h = balanced(c.h.results(), d.results_h - 1);
    }
    const int64_t results = int64_t(d.results_h) * d.results_w;
    if (results < least_results && (d.results_h < c.h.results() || c.rows > few_rows)) return false;
    const int64_t fitting = most_filters / (taps * int64_t(sizeof(T))) / rows * rows;
    if (fitting == 0) return false;
    d.filters = int(balanced(tiles_of(c.rows, rows), fitting / rows)) * rows;
    d.pitch = d.filters == 1 ? 1 : d.filters + 4;
    d.filters_at = int(patch() + 3) / 4 * 4;
    d.tiles_h = int(tiles_of(c.h.results(), d.results_h));
    d.tiles_w = int(tiles_of(c.w.results(), d.results_w));
    d.tiles_m = int(tiles_of(c.rows, d.filters));
    return d.blocks() <= INT32_MAX;
}

template <class T, int rows>
bool run(const Correlation<T>& c) {
    Direct<T> d{};
    d.c = c;
    if (!plan(d, rows)) return false;
    const int64_t taps = c.channels * c.taps();
    const unsigned threads = unsigned(tiles_of(int64_t(d.results_h) * d.results_w, thread_results * 32) * 32);
    LAUNCH((conv2d_few_channels<T, rows>), unsigned(d.blocks()), threads,
           size_t(d.filters_at + taps * d.pitch) * sizeof(T), d);
    return true;
}

}  // namespace

template <class T>
bool conv2d_direct(const Correlation<T>& c) {
    return c.rows == 1 ? run<T, 1>(c) : c.rows <= 4 ? run<T, 4>(c) : run<T, 8>(c);
}
template bool conv2d_direct<float>(const Correlation<float>&);
template bool conv2d_direct<double>(const Correlation<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
