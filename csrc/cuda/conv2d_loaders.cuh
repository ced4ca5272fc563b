// What brings a convolution's numbers into the panels of multiply_tile (tile.cuh): no matrix of patches
// exists elsewhere.
//
// The loaders step on with each call: they expect p = p_begin, p_begin + depth, ..., and write zeros behind
// the end of the sum. So a caller may round p_end - p_begin up to a multiple of the depth. Index is the type
// of positions and coordinates in one image.
#pragma once
#include <type_traits>

#include "cuda/conv2d_correlation.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// 0 <= i < size, by one comparison.
template <class Index>
__device__ __forceinline__ bool within(Index i, Index size) {
    using Unsigned = std::make_unsigned_t<Index>;
    return Unsigned(i) < Unsigned(size);
}

// panel[q][x] = packed[(p + q) * pitch + x], the filters as conv2d_pack_filters leaves them, 16 bytes at a
// time.
template <class T, class Tile>
struct PackedLoader {
    const T* packed;
    int64_t pitch, p_end;

    template <int depth, int panel_pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][panel_pitch], int64_t p) const {
        constexpr int lanes = 16 / sizeof(T), across = Tile::rows / lanes, copies = depth * across;
#pragma unroll
        for (int i = 0; i < copies; i += Tile::threads) {
            const int e = i + int(threadIdx.x), q = e / across, x = e % across * lanes;
            if (copies % Tile::threads != 0 && e >= copies) break;
            if (p + q < p_end)
                copy_bytes<16>(&panel[q][x], packed + (p + q) * pitch + x);
            else
#pragma unroll
                for (int lane = 0; lane < lanes; ++lane) panel[q][x + lane] = T(0);
        }
    }
};

// panel[q][x] = the number of the image that meets tap p + q at the tile's position x. The taps are counted
// channel innermost in blocks of `run` channels: (channel / run, i, j, channel % run); then i, j. A run of
// one panel's depth has a tap in common; with a run of 1 every number has its own.
template <class T, class Tile, class Index, int run>
class PatchLoader {
  public:
    // `image`: the first channel; y, x: where this thread's position meets its first tap.
    __device__ __forceinline__ PatchLoader(const T* image, Index channels, const CorrelationAxis& h,
                                           const CorrelationAxis& w, Index taps_h, Index taps_w, Index y,
                                           Index x, int64_t p_begin)
        : image(image), channels(channels), h(h), w(w), taps_h(taps_h), taps_w(taps_w) {
        const int64_t at = run == 1 ? p_begin + first_q() : p_begin / run;
        j = Index(at % taps_w), i = Index(at / taps_w % taps_h);
        channel = Index(at / taps_w / taps_h * run) + (run == 1 ? 0 : first_q());
        this->y = y + i * Index(h.tap_step), this->x = x + j * Index(w.tap_step);
    }

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t) {
        static_assert(run == 1 || run == depth);
        const int column = int(threadIdx.x) % Tile::columns;
        const Index plane = Index(h.image) * Index(w.image);
        bool inside = false;
        Index at = 0;
#pragma unroll
        for (int ahead = 0; ahead < depth; ahead += apart) {
            if (run == 1 || ahead == 0) {
                inside = within(y, Index(h.image)) && within(x, Index(w.image));
                at = channel * plane + y * Index(w.image) + x;
            }
            T* const to = &panel[first_q() + ahead][column];
            const Index channels_on = run == 1 ? 0 : ahead;
            if (inside && channel + channels_on < channels)
                copy_number(to, image + (at + channels_on * plane));
            else
                *to = T(0);
            if (run == 1)
#pragma unroll
                for (int step = 0; step < apart; ++step) next_tap();
        }
        if (run > 1) next_tap();
    }

  private:
    static_assert(Tile::threads % Tile::columns == 0);
    static constexpr int apart =
        Tile::threads / Tile::columns;  // rows of the panel between two of a thread's

    static __device__ __forceinline__ int first_q() {
        return int(threadIdx.x) / Tile::columns;
    }

    __device__ __forceinline__ void next_tap() {
        x += Index(w.tap_step);
        if (++j < taps_w) return;
        j = 0, x -= taps_w * Index(w.tap_step), y += Index(h.tap_step);
        if (++i < taps_h) return;
        i = 0, y -= taps_h * Index(h.tap_step), channel += run;
    }

    const T* image;
    Index channels;
    const CorrelationAxis &h, &w;
    Index taps_h, taps_w;
    Index channel, i, j, y, x;  // of this thread's first number of the next panel
};

// Results one after another through a batch: p = (n * OH + oh) * OW + ow, one step of a panel's depth at a
// time.
struct PositionStep {
    int64_t n, y, x;
};
template <class Index>
struct Position {
    int64_t n;
    Index y, x;

    __device__ __forceinline__ Position(int64_t p, const Conv2dShape& s)
        : n(p / (s.out_h * s.out_w)), y(Index(p / s.out_w % s.out_h)), x(Index(p % s.out_w)) {}
    __device__ __forceinline__ void advance(const PositionStep& step, const Conv2dShape& s) {
        x += Index(step.x);
        const bool next_row = x >= Index(s.out_w);
        if (next_row) x -= Index(s.out_w);
        y += Index(step.y) + next_row;
        const bool next_image = y >= Index(s.out_h);
        if (next_image) y -= Index(s.out_h);
        n += step.n + next_image;
    }
};

// The sum over positions of the gradient in w: a thread has one q of each panel, so that neighbouring threads
// read neighbouring positions, and every (threads / depth)-th x.
template <class Tile>
struct AlongPositions {
    static constexpr int apart = Tile::threads / Tile::depth;
    static_assert(Tile::threads % Tile::depth == 0 && Tile::rows % apart == 0 && Tile::columns % apart == 0);
    static __device__ __forceinline__ int q() { return int(threadIdx.x) % Tile::depth; }
    static __device__ __forceinline__ int x() { return int(threadIdx.x) / Tile::depth; }
};

// panel[q][x] = dy[n, filter x of the tile, oh, ow] with (n, oh, ow) the position p + q.
template <class T, class Tile, class Index>
struct ResultLoader {
    using Place = AlongPositions<Tile>;
    const T* dy;    // of example 0, the tile's first filter
    Index filters;  // that the tile has
    const Conv2dShape& s;
    const PositionStep& step;
    int64_t p_end;
    Position<Index> at;

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) {
        const Index plane = Index(s.out_h) * Index(s.out_w);
        const T* const from = dy + at.n * s.filters * plane + (at.y * Index(s.out_w) + at.x);
        const bool inside = p + Place::q() < p_end;
#pragma unroll
        for (int x = 0; x < Tile::rows; x += Place::apart) {
            const int row = Place::x() + x;
            T* const to = &panel[Place::q()][row];
            if (inside && row < filters)
                copy_number(to, from + int64_t(row) * plane);
            else
                *to = T(0);
        }
        at.advance(step, s);
    }
};

// Where the channel and the tap of a weight lie, from where a window begins.
template <class Index>
struct alignas(16) Weight {
    Index offset, y, x;
};
// Of weight (c * KH + i) * KW + j of a filter.
template <class Index>
__device__ __forceinline__ Weight<Index> weight_at(int64_t weight, const Conv2dShape& s) {
    const Index channel = Index(weight / s.kernel_w / s.kernel_h);
    const Index y = Index(weight / s.kernel_w % s.kernel_h * s.dilation_h);
    const Index x = Index(weight % s.kernel_w * s.dilation_w);
    return {(channel * Index(s.height) + y) * Index(s.width) + x, y, x};
}

// panel[q][x] = x[n, c, oh*stride_h - pad_top + i*dilation_h, ow*stride_w - pad_left + j*dilation_w] with (n,
// oh, ow) the position p + q and (c, i, j) the tile's weight x.
template <class T, class Tile, class Index>
struct WindowLoader {
    using Place = AlongPositions<Tile>;
    const T* x;                    // of example 0, the first channel of the group
    const Weight<Index>* weights;  // of the tile, in shared memory
    int64_t count;                 // of them
    const Conv2dShape& s;
    const PositionStep& step;
    int64_t p_end;
    Position<Index> at;

    template <int depth, int pitch>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) {
        const Index top = at.y * Index(s.stride_h) - Index(s.pad_top),
                    left = at.x * Index(s.stride_w) - Index(s.pad_left), corner = top * Index(s.width) + left;
        const T* const image = x + at.n * (s.channels * s.height * s.width);
        const bool inside = p + Place::q() < p_end;
#pragma unroll
        for (int c = 0; c < Tile::columns; c += Place::apart) {
            const int column = Place::x() + c;
            T* const to = &panel[Place::q()][column];
            bool copied = inside && column < count;
            if (copied) {
                const Weight<Index> weight = weights[column];
                copied = within(top + weight.y, Index(s.height)) && within(left + weight.x, Index(s.width));
                if (copied) copy_number(to, image + (corner + weight.offset));
            }
            if (!copied) *to = T(0);
        }
        at.advance(step, s);
    }
};

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
