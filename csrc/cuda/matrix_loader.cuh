// The loader (tile.cuh) of a matrix: element (x, p) is data[x * step_x + p * step_p].
//
//   vectors: copies of 16 bytes, neighbouring threads read neighbouring x. For a matrix whose x are adjacent,
//     and all in whole vectors at multiples of 16 bytes.
//   along_p: copies of a number, neighbouring threads read eight neighbouring p. For one whose p are
//   adjacent:
//     a column of the panel is a row of the matrix.
//   numbers: copies of a number, along p if step_p is 1, else along x. For any strides, and for fewer p than
//     a panel has.
//
// The block copies 8 p at once, in the first half of a panel and again in the second. The p of each thread
// differ by its first one, x lies within the matrix: an x beyond its end is replaced by the last, since what
// that brings is not kept.
#pragma once
#include <type_traits>

#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

enum class Reads { vectors, along_p, numbers };

// How a matrix of x_end x p_end can be read, in a batch of such; the first two are for at least least_p p.
template <class T>
Reads reads_of(const T* data, int64_t step_x, int64_t step_p, int64_t batch_stride, int64_t x_end,
               bool whole_panels) {
    constexpr int64_t lanes = 16 / sizeof(T), largest = int64_t(1) << 27;  // bytes in 32 bits,
    constexpr int64_t narrow = int64_t(1) << 20;                           // and of a tile's x
    const auto whole = [](int64_t n) { return n % lanes == 0; };
    if (!whole_panels) return Reads::numbers;
    if (step_p == 1) return step_x < narrow && step_x > -narrow ? Reads::along_p : Reads::numbers;
    if (step_x == 1 && whole(step_p) && whole(batch_stride) && whole(x_end) && uintptr_t(data) % 16 == 0 &&
        step_p < largest && step_p > -largest)
        return Reads::vectors;
    return Reads::numbers;
}

template <class T, int width, int pitch, int threads, Reads reads>
class MatrixLoader {
    static constexpr int lanes = reads == Reads::vectors ? 16 / sizeof(T) : 1;
    static constexpr int p_span = 8, x_span = threads / p_span * lanes, copies = width / x_span;

    // The first x of the thread, and how many bytes behind it the others are: short of registers, 32 bits.
    using Offset = std::conditional_t<reads == Reads::along_p, int32_t, int64_t>;
    const char* base;
    Offset from[copies];
    int64_t step_p;  // in bytes
    int other;       // p, from the first half of a panel to the second
    int place;       // in the panel

  public:
    // The x from x0 on, p in [0, count).
    __device__ __forceinline__ MatrixLoader(const T* data, int64_t step_x, int64_t p_step, int64_t x0,
                                            int64_t x_end, int count)
        : step_p((reads == Reads::along_p ? 1 : p_step) * int64_t(sizeof(T))) {
        const unsigned t = threadIdx.x;
        const bool columns = reads == Reads::along_p || (reads == Reads::numbers && p_step == 1);
        const int x = int(columns ? t / p_span : t % (threads / p_span) * lanes);
        const int q = int(columns ? t % p_span : t / (threads / p_span));
        place = q * pitch + x;
        const int q_last = count - 1, q_near = q < q_last ? q : q_last,
                  q_far = q + p_span < q_last ? q + p_span : q_last;
        other = reads == Reads::numbers ? q_far - q_near : p_span;
        const auto x_at = [&](int i) {
            const int64_t own = x0 + x + i * x_span, x_last = x_end - lanes;
            return own < x_last ? own : x_last;
        };
        base = reinterpret_cast<const char*>(data + x_at(0) * step_x + q_near * p_step);
#pragma unroll
        for (int i = 0; i < copies; ++i) from[i] = Offset((x_at(i) - x_at(0)) * step_x * int64_t(sizeof(T)));
    }

    // p is below 2^31.
    template <int depth>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) const {
        static_assert(depth == p_span || depth == 2 * p_span);
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            const char* const near = base + from[i] + int64_t(uint32_t(p)) * step_p;
            T* const to = panel[0] + place + i * x_span;
            copy_bytes<lanes * sizeof(T)>(to, near);
            if constexpr (depth > p_span)
                copy_bytes<lanes * sizeof(T)>(to + p_span * pitch, near + int64_t(uint32_t(other)) * step_p);
        }
    }
};

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
