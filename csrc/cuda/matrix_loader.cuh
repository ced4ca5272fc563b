// Loaders (tile.cuh) of a matrix: element (x, p) is data[x * step_x + p * step_p].
//
//   Reads    copies    of neighbouring threads            for a matrix
//   vectors  16 bytes  neighbouring x                     whose x are adjacent, in whole vectors at multiples
//   of 16 bytes along_p  numbers   8 neighbouring p of neighbouring x whose p are adjacent: a row of it
//   becomes a column of the panel numbers  numbers   the former if p are adjacent, else of any strides
//            neighbouring x
//
// The first two are for tiles that lie inside the matrix, and at least a panel's p: then they need no
// conditions, and few registers. A block copies 8 p of x_span x at once, as often as it takes.
#pragma once
#include <type_traits>

#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

enum class Reads { vectors, along_p, numbers };

// How a matrix with so many x can be read, one of a batch.
template <class T>
Reads reads_of(const T* data, int64_t step_x, int64_t step_p, int64_t batch_stride, int64_t x_count) {
    const auto whole = [](int64_t count) { return count % int64_t(16 / sizeof(T)) == 0; };
    if (step_p == 1) return Reads::along_p;
    const bool vectors =
        step_x == 1 && whole(step_p) && whole(batch_stride) && whole(x_count) && uintptr_t(data) % 16 == 0;
    return vectors ? Reads::vectors : Reads::numbers;
}

// Where a thread's first number lies in the panel, and how far the others are.
template <int threads, int lanes>
struct CopyPlace {
    static constexpr int p_span = 8, x_span = threads / p_span * lanes;
    int x, q;

    __device__ __forceinline__ explicit CopyPlace(bool along_p)
        : x(int(along_p ? threadIdx.x / p_span : threadIdx.x % (threads / p_span) * lanes)),
          q(int(along_p ? threadIdx.x % p_span : threadIdx.x / (threads / p_span))) {}
};

// data: of the tile's first x and of p = 0.
template <class T, int width, int pitch, int threads, Reads reads>
class InnerLoader {
    static constexpr int lanes = reads == Reads::vectors ? 16 / sizeof(T) : 1;
    using Place = CopyPlace<threads, lanes>;

    const char* from;
    int64_t x_step, step_p;  // in bytes
    int to;

  public:
    __device__ __forceinline__ InnerLoader(const T* data, int64_t step_x, int64_t p_step, int64_t x0, int64_t,
                                           int)
        : x_step(Place::x_span * step_x * int64_t(sizeof(T))),
          step_p((reads == Reads::along_p ? 1 : p_step) * int64_t(sizeof(T))) {
        const Place at(reads == Reads::along_p);
        from = reinterpret_cast<const char*>(data + (x0 + at.x) * step_x + at.q * p_step);
        to = at.q * pitch + at.x;
    }

    template <int depth>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) const {
        const char* const near = from + int64_t(uint32_t(p)) * step_p;
#pragma unroll
        for (int q = 0; q < depth; q += Place::p_span)
#pragma unroll
            for (int x = 0; x < width; x += Place::x_span)
                copy_bytes<lanes * sizeof(T)>(panel[q] + to + x,
                                              near + x / Place::x_span * x_step + q * step_p);
    }
};

// x_count, p_count: how many there are from data on. What lies beyond is replaced by the last.
template <class T, int width, int pitch, int threads>
class EdgeLoader {
    using Place = CopyPlace<threads, 1>;

    const T* from[width / Place::x_span];
    int64_t step_p;
    int to, q_first, q_last;

  public:
    __device__ __forceinline__ EdgeLoader(const T* data, int64_t step_x, int64_t p_step, int x_count,
                                          int p_count)
        : step_p(p_step), q_last(p_count - 1) {
        const Place at(p_step == 1);
        to = at.q * pitch + at.x;
        q_first = at.q;
#pragma unroll
        for (int x = 0; x < width; x += Place::x_span)
            from[x / Place::x_span] = data + (x0 + at.x + x < x_end ? x0 + at.x + x : x_end - 1) * step_x;
    }

    template <int depth>
    __device__ __forceinline__ void load(T (&panel)[depth][pitch], int64_t p) const {
#pragma unroll
        for (int q = 0; q < depth; q += Place::p_span) {
            const uint32_t own = uint32_t(p) + uint32_t(q_first + q < q_last ? q_first + q : q_last);
#pragma unroll
            for (int x = 0; x < width; x += Place::x_span)
                copy_number(panel[q] + to + x, from[x / Place::x_span] + int64_t(own) * step_p);
        }
    }
};

template <class T, int width, int pitch, int threads, Reads reads>
using MatrixLoader = std::conditional_t<reads == Reads::numbers, EdgeLoader<T, width, pitch, threads>,
                                        InnerLoader<T, width, pitch, threads, reads>>;

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
