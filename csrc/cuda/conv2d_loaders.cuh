// What brings a convolution's numbers into the panels of multiply_tile (tile.cuh): no matrix of patches
// exists elsewhere.
//
// The loaders step on with each call: they expect p = p_begin, p_begin + depth, ..., and write zeros behind
// the end of the sum. So a caller may round p_end - p_begin up to a multiple of the depth. Index is the type
// of positions in an image.
#pragma once
#include "cuda/conv2d_correlation.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// 0 <= i < size, by one comparison.
template <class Index>
__device__ __forceinline__ bool within(Index i, Index size) {
    using Unsigned = std::make_unsigned_t<Index>;
    return Unsigned(i) < Unsigned(size);
}

// copy_bytes, or zeros in the place of what must not be read: by one instruction where copies are
// asynchronous.
template <int bytes>
__device__ __forceinline__ void copy_bytes_or_zeros(void* shared, const void* global, bool copied) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 && !defined(TINYGRAD_NM_EMULATED)
    const unsigned to = unsigned(__cvta_generic_to_shared(shared)), read = copied ? bytes : 0;
    if constexpr (bytes == 16)  // past the first-level cache
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(read)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(bytes),
                     "r"(read)
                     : "memory");
#else
    if (copied) return copy_bytes<bytes>(shared, global);
    if constexpr (bytes == 4) *static_cast<float*>(shared) = 0;
    if constexpr (bytes == 8) *static_cast<float2*>(shared) = {};
    if constexpr (bytes == 16) *static_cast<float4*>(shared) = {};
#endif
}

// Where a channel and tap lie in an image, from where a position meets the first of them.
template <class Index>
struct alignas(16) Tap {
    Index at, y, x;
};

// use(i, taps[i * apart]) for i < count. Several are read before the first is used, so that one wait is
// enough.
template <int count, int apart, class Index, class Use>
__device__ __forceinline__ void for_each_tap(const Tap<Index>* taps, const Use& use) {
    constexpr int batch = count % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int first = 0; first < count; first += batch) {
        Tap<Index> read[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i) read[i] = taps[(first + i) * apart];
#pragma unroll
        for (int i = 0; i < batch; ++i) use(first + i, read[i]);
    }
}

// panel[q][x] = packed[(p + q) * pitch + x], the filters as conv2d_pack_filters leaves them, 16 bytes at a
// time.
template <class T, class Tile, class Index>
class PackedLoader {
  public:
    // `packed`: of p_begin and the tile's first row; `left`: how many taps there are from p_begin on.
    __device__ __forceinline__ PackedLoader(const T* packed, int64_t pitch, Index left)
        : from(packed + q(0) * pitch + x()), pitch(pitch), left(left) {}

    template <int depth, int panel_pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][panel_pitch], int64_t) {
#pragma unroll
        for (int e = 0; e < copies; e += Tile::threads)
            if (copies % Tile::threads == 0 || e + int(threadIdx.x) < copies)
                copy_bytes_or_zeros<16>(&panel[q(e)][x()], from + e / across * pitch, q(e) < left);
        from += depth * pitch, left -= depth;
    }

  private:
    static constexpr int lanes = 16 / sizeof(T), across = Tile::rows / lanes, copies = Tile::depth * across;
    static_assert(Tile::threads % across == 0);
    static __device__ __forceinline__ int q(int e) {
        return (e + int(threadIdx.x)) / across;
    }
    static __device__ __forceinline__ int x() {
        return int(threadIdx.x) % across * lanes;
    }

    const T* from;
    int64_t pitch;
    Index left;
};

// panel[q][x] = the number of the image that meets tap p + q at the tile's position x. The taps are counted
// channel innermost in blocks of `run` channels: (channel / run, i, j, channel % run). A run of one panel's
// depth has its place in common; with a run of 1 every number has its own.
template <class T, class Tile, class Index, int run>
class PatchLoader {
  public:
    // `image`: its first channel where this thread's position meets the first tap, at row y and column x;
    // `taps`: from p_begin on, one for each run.
    __device__ __forceinline__ PatchLoader(const T* image, Index y, Index x, const Tap<Index>* taps,
                                           int64_t height, int64_t width)
        : image(image), y(y), x(x), taps(taps), height(Index(height)), width(Index(width)) {}

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t) {
        static_assert(run == 1 || run == depth);
        const int q = int(threadIdx.x) / Tile::columns, column = int(threadIdx.x) % Tile::columns;
        if constexpr (run > 1) {
            const Index plane = height * width;
            const Tap<Index> tap = *taps++;
            const bool inside = within(y + tap.y, height) & within(x + tap.x, width);
            const T* from = image + (tap.at + q * plane);
#pragma unroll
            for (int ahead = 0; ahead < depth; ahead += apart, from += int64_t(plane) * apart)
                copy_bytes_or_zeros<sizeof(T)>(&panel[q + ahead][column], from, inside);
        } else {
            for_each_tap<depth / apart, apart>(taps + q, [&](int i, const Tap<Index>& tap) {
                const bool inside = within(y + tap.y, height) & within(x + tap.x, width);
                copy_bytes_or_zeros<sizeof(T)>(&panel[q + i * apart][column], image + tap.at, inside);
            });
            taps += depth;
        }
    }

  private:
    static_assert(Tile::threads % Tile::columns == 0);
    static constexpr int apart = Tile::threads / Tile::columns;  // of a thread's rows of the panel

    const T* image;
    Index y, x;
    const Tap<Index>* taps;
    Index height, width;  // of the image
};

// The gradient in w sums over results (n, oh, ow), p = (n * OH + oh) * OW + ow. A thread has one q of each
// panel, so that neighbouring threads read neighbouring results, and every (threads / depth)-th x. It steps
// on by a panel's depth.
struct ResultStep {
    int64_t n, plane, y, x;  // depth = (n * OH + y) * OW + x = n * OH * OW + plane
};
template <class Tile>
struct AlongResults {
    static constexpr int apart = Tile::threads / Tile::depth;
    static_assert(Tile::threads % Tile::depth == 0 && Tile::rows % apart == 0 && Tile::columns % apart == 0);
    static __device__ __forceinline__ int q() { return int(threadIdx.x) % Tile::depth; }
    static __device__ __forceinline__ int x() { return int(threadIdx.x) / Tile::depth; }
};

// panel[q][x] = dy[n, filter x of the tile, oh, ow] with (n, oh, ow) the result p + q; in the place of
// filters that the tile does not have, the last one's.
template <class T, class Tile, class Index>
class ResultLoader {
  public:
    // `dy`: of example 0 and the tile's first filter, of which it has `filters`.
    __device__ __forceinline__ ResultLoader(const T* dy, Index filters, const Conv2dShape& s,
                                            const ResultStep& step, Index p_begin, int64_t p_end)
        : filters(filters), plane(Index(s.out_h) * Index(s.out_w)), p_end(p_end), s(s), step(step) {
        Index n = p_begin + Place::q();
        at = take(n, plane);
        from = dy + (n * s.filters * plane + at);
    }

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) {
        const bool inside = p + Place::q() < p_end;
#pragma unroll
        for (int x = 0; x < Tile::rows; x += Place::apart) {
            const int row = Place::x() + x;
            copy_bytes_or_zeros<sizeof(T)>(&panel[Place::q()][row],
                                           from + (row < filters ? row : filters - 1) * plane, inside);
        }
        at += Index(step.plane), from += step.n * s.filters * plane + step.plane;
        if (at >= plane) at -= plane, from += (s.filters - 1) * plane;
    }

  private:
    using Place = AlongResults<Tile>;
    const T* from;  // the tile's first filter at this thread's result
    Index at;       // in its plane
    Index filters, plane;
    int64_t p_end;
    const Conv2dShape& s;
    const ResultStep& step;
};

// Of weight (c * KH + i) * KW + j of a filter.
template <class Index>
__device__ __forceinline__ Tap<Index> tap_of_weight(Index weight, const Conv2dShape& s) {
    const Index x = take(weight, Index(s.kernel_w)) * Index(s.dilation_w);
    const Index y = take(weight, Index(s.kernel_h)) * Index(s.dilation_h);
    return {(weight * Index(s.height) + y) * Index(s.width) + x, y, x};
}

// panel[q][x] = x[n, c, oh*stride_h - pad_top + i*dilation_h, ow*stride_w - pad_left + j*dilation_w] with (n,
// oh, ow) the result p + q and (c, i, j) the tile's weight x.
template <class T, class Tile, class Index>
class WindowLoader {
  public:
    // `x`: of example 0, the group's first channel; `weights`: of the tile, in shared memory.
    __device__ __forceinline__ WindowLoader(const T* x, const Tap<Index>* weights, const Conv2dShape& s,
                                            const ResultStep& step, Index p_begin, int64_t p_end)
        : weights(weights), p_end(p_end), s(s), step(step) {
        Index n = p_begin + Place::q();
        ow = take(n, Index(s.out_w)), oh = take(n, Index(s.out_h));
        image = x + n * image_size();
    }

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) {
        const Index top = oh * Index(s.stride_h) - Index(s.pad_top),
                    left = ow * Index(s.stride_w) - Index(s.pad_left);
        const T* const corner = image + (top * Index(s.width) + left);
        const bool inside = p + Place::q() < p_end;
        for_each_tap<Tile::columns / Place::apart, Place::apart>(
            weights + Place::x(), [&](int i, const Tap<Index>& tap) {
                copy_bytes_or_zeros<sizeof(T)>(
                    &panel[Place::q()][Place::x() + i * Place::apart], corner + tap.at,
                    inside & within(top + tap.y, Index(s.height)) & within(left + tap.x, Index(s.width)));
            });
        ow += Index(step.x);
        const bool next_row = ow >= Index(s.out_w);
        if (next_row) ow -= Index(s.out_w);
        oh += Index(step.y) + next_row;
        const bool next_image = oh >= Index(s.out_h);
        if (next_image) oh -= Index(s.out_h);
        image += (step.n + next_image) * image_size();
    }

  private:
    using Place = AlongResults<Tile>;
    __device__ __forceinline__ int64_t image_size() const { return s.channels * s.height * s.width; }

    const T* image;
    Index oh, ow;
    const Tap<Index>* weights;
    int64_t p_end;
    const Conv2dShape& s;
    const ResultStep& step;
};

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
