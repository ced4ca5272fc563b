// Local response normalisation; shapes and sums in shared/normalisation.h.
//
// A thread has one position of the plane and walks over neighbouring channels of one group, a piece of it:
// neighbouring threads read neighbours, and a window's numbers come from the first-level cache. d[c] is
// summed afresh for each channel: a running sum would keep rounding errors, Inf and NaN.
#include "cuda/kernels.cuh"
#include "cuda/planes.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr int batch = 4;  // channels at a time: their loads are under way together, their windows overlap
constexpr int usual_window = 5;  // channels, in the paper and almost everywhere: a constant for the compiler

// The channels of a group, cut into pieces.
struct Pieces {
    int64_t channels, pieces, piece;  // of a group, in a group, channels of one
};

// The channels [begin, end) of a group at one position. `fixed` is the window's size, or 0.
template <class T, int fixed>
struct Walk {
    const LocalResponseNorm<T>& a;
    int64_t offset;  // of the group's first channel
    int64_t channels, begin, end;

    __device__ __forceinline__ int64_t at(int64_t channel) const { return offset + channel * a.plane; }
    __device__ __forceinline__ int64_t below() const { return (fixed ? fixed : a.size) / 2; }
    __device__ __forceinline__ int64_t above() const { return ((fixed ? fixed : a.size) - 1) / 2; }
    // The window of `before` channels below c and `after` above it, cut at the group's ends.
    __device__ __forceinline__ int64_t first(int64_t c, int64_t before) const {
        return c > before ? c - before : 0;
    }
    __device__ __forceinline__ int64_t last(int64_t c, int64_t after) const {
        return after < channels - c ? c + after + 1 : channels;
    }

    // v[t] = numbers[c + t], 0 beyond `limit`.
    __device__ __forceinline__ void load(T (&v)[batch], const T* numbers, int64_t c, int64_t limit) const {
#pragma unroll
        for (int t = 0; t < batch; ++t) v[t] = c + t < limit ? numbers[at(c + t)] : T(0);
    }
    // d[t] = k + alpha * sum of x[j]^2 over the window of c + t, in the order of channels.
    __device__ __forceinline__ void denominators(T (&d)[batch], int64_t c) const {
        T sum[batch] = {};
        if constexpr (fixed != 0) {
#pragma unroll
            for (int u = 0; u < fixed + batch - 1; ++u) {
                const int64_t j = c - fixed / 2 + u;
                const T x = j >= 0 && j < channels ? a.x[at(j)] : T(0);
#pragma unroll
                for (int t = 0; t < batch; ++t)
                    if (u >= t && u < t + fixed) sum[t] = fma(x, x, sum[t]);
            }
        } else {
            const int64_t end = last(c + batch - 1, above());
            for (int64_t j = first(c, below()); j < end; ++j) {
                const T x = a.x[at(j)];
#pragma unroll
                for (int t = 0; t < batch; ++t)
                    if (uint64_t(j - (c + t - below())) < uint64_t(a.size)) sum[t] = fma(x, x, sum[t]);
            }
        }
#pragma unroll
        for (int t = 0; t < batch; ++t) d[t] = fma(sum[t], T(a.alpha), T(a.k));
    }
};

// use(Walk) for the pieces and positions of this thread.
template <int fixed, class T, class Use>
__device__ __forceinline__ void for_walks(const LocalResponseNorm<T>& a, const Pieces& p, const Use& use) {
    for_places(a.examples * a.groups * p.pieces, a.plane, [&](int64_t task, int64_t position) {
        const int64_t group = task / p.pieces, begin = (task - group * p.pieces) * p.piece,
                      end = begin + p.piece;
        use(Walk<T, fixed>{a, group * p.channels * a.plane + position, p.channels, begin,
                           end < p.channels ? end : p.channels});
    });
}

// d^-beta and 1 / d. The paper's beta 0.75 takes two square roots and one division.
template <class T>
struct PaperPower {
    T scale, inverse;
    __device__ __forceinline__ PaperPower(T d, double) {
        const T r = T(1) / sqrt(d);
        scale = r * sqrt(r), inverse = r * r;
    }
};
template <class T>
struct AnyPower {
    T scale, inverse;
    __device__ __forceinline__ AnyPower(T d, double beta) : scale(pow(d, T(-beta))), inverse(T(1) / d) {}
};

// x, out (examples, channels, plane): out[c] = x[c] d[c]^-beta.
template <class T, class Power, int fixed>
__global__ void __launch_bounds__(plane_threads, 1)
    lrn_forward(const LocalResponseNorm<T> a, const Pieces p) {
    for_walks<fixed>(a, p, [&](const Walk<T, fixed>& walk) {
        for (int64_t c = walk.begin; c < walk.end; c += batch) {
            T x[batch], d[batch];
            walk.load(x, a.x, c, walk.end);
            walk.denominators(d, c);
#pragma unroll
            for (int t = 0; t < batch; ++t)
                if (c + t < walk.end) a.out[walk.at(c + t)] = x[t] * Power(d[t], a.beta).scale;
        }
    });
}

// What the sums of the backward pass still need of the newest channels: dy d^-beta, and the term
// dy x d^(-beta-1).
template <class T>
struct Ring {
    T* numbers;  // (slots, 2, pitch), the thread's own
    int slots, pitch;

    __device__ __forceinline__ int next(int slot) const { return slot + 1 < slots ? slot + 1 : 0; }
    __device__ __forceinline__ T& scaled(int slot) const { return numbers[int64_t(2 * slot) * pitch]; }
    __device__ __forceinline__ T& term(int slot) const { return numbers[int64_t(2 * slot + 1) * pitch]; }
};

// `batch` channels from c on to the slots from `slot` on, which then is the next.
template <class Power, class T, int fixed>
__device__ __forceinline__ void put_terms(const Walk<T, fixed>& walk, const Ring<T>& ring, int64_t c,
                                          int& slot) {
    T x[batch], dy[batch], d[batch];
    walk.load(x, walk.a.x, c, walk.channels);
    walk.load(dy, walk.a.dy, c, walk.channels);
    walk.denominators(d, c);
#pragma unroll
    for (int t = 0; t < batch; ++t, slot = ring.next(slot)) {
        const Power power(d[t], walk.a.beta);
        const T scaled = dy[t] * power.scale;
        ring.scaled(slot) = scaled, ring.term(slot) = scaled * x[t] * power.inverse;
    }
}

// x, dy, out (examples, channels, plane): out[i] = dy[i] d[i]^-beta - 2 alpha beta x[i] * the sum of the
// terms that i is in. The rings lie in `memory`, or in shared memory where that is null.
template <class T, class Power, int fixed>
__global__ void __launch_bounds__(plane_threads, sizeof(T) == 4 ? 3 : 2)
    lrn_backward(const LocalResponseNorm<T> a, const Pieces p, T* const memory, const int slots) {
    DYNAMIC_SHARED(T, shared);
    const int threads = blockDim.x * blockDim.y, own = threadIdx.y * blockDim.x + threadIdx.x;
    const int64_t block = blockIdx.z * gridDim.y + blockIdx.y;
    const Ring<T> ring =
        memory ? Ring<T>{memory + block * threads + own, slots, int(threads * gridDim.y * gridDim.z)}
               : Ring<T>{shared + own, slots, threads};
    const T factor = T(-2 * a.alpha * a.beta);
    for_walks<fixed>(a, p, [&](const Walk<T, fixed>& walk) {
        int64_t newest = walk.first(walk.begin, walk.above());
        int put = 0, oldest = 0, middle = int(walk.begin - newest);
        for (int64_t i = walk.begin; i < walk.end; ++i, middle = ring.next(middle)) {
            const int64_t first = walk.first(i, walk.above()), last = walk.last(i, walk.below());
            for (; newest < last; newest += batch) put_terms<Power>(walk, ring, newest, put);
            if (i > walk.begin && first > 0) oldest = ring.next(oldest);
            T sum = 0;
            int slot = oldest;
            for (int64_t c = first; c < last; ++c, slot = ring.next(slot)) sum += ring.term(slot);
            a.out[walk.at(i)] = fma(factor * a.x[walk.at(i)], sum, ring.scaled(middle));
        }
    });
}

constexpr int64_t busy = 1 << 17;         // threads that keep a device busy
constexpr int64_t shortest = 16;          // channels of a piece, and as many as a window has
constexpr int64_t ring_bytes = 40 << 10;  // of shared memory for the rings of a block at most
constexpr int64_t few_blocks = 1 << 9;    // where the rings lie in memory

template <class T>
Pieces pieces_of(const LocalResponseNorm<T>& a) {
    const int64_t channels = a.channels / a.groups, walks = a.examples * a.groups * a.plane;
    const int64_t most = a.size < channels ? channels / (shortest + a.size) : 1;
    const int64_t wanted = (busy + walks - 1) / walks, pieces = wanted < most ? wanted : most;
    const int64_t piece = pieces > 1 ? (channels + pieces - 1) / pieces : channels;
    return {channels, (channels + piece - 1) / piece, piece};
}

// launch.operator()<Power, fixed>() for this call, unless there is nothing to do.
template <class T, class Launch>
void with_kinds(const LocalResponseNorm<T>& a, const Launch& launch) {
    if (a.examples * a.channels * a.plane == 0) return;
    const auto with_power = [&]<class Power>() {
        if (a.size == usual_window)
            launch.template operator()<Power, usual_window>();
        else
            launch.template operator()<Power, 0>();
    };
    if (a.beta == 0.75)
        with_power.template operator()<PaperPower<T>>();
    else
        with_power.template operator()<AnyPower<T>>();
}

}  // namespace

template <class T>
void local_response_norm_forward(const LocalResponseNorm<T>& a) {
    with_kinds(a, [&]<class Power, int fixed>() {
        const Pieces p = pieces_of(a);
        const PlaneBlocks b = blocks_over(1, a.examples * a.groups * p.pieces, a.plane);
        LAUNCH((lrn_forward<T, Power, fixed>), b.grid, b.block, 0, a, p);
    });
}
template void local_response_norm_forward<float>(const LocalResponseNorm<float>&);
template void local_response_norm_forward<double>(const LocalResponseNorm<double>&);

template <class T>
void local_response_norm_backward(const LocalResponseNorm<T>& a) {
    with_kinds(a, [&]<class Power, int fixed>() {
        const Pieces p = pieces_of(a);
        const int64_t slots = (a.size < p.channels ? a.size : p.channels) + batch - 1;
        const int64_t ring = 2 * slots * int64_t(sizeof(T)), fit = ring_bytes / ring;
        const int64_t threads = fit >= plane_threads ? plane_threads : plane_threads / 2;
        const bool in_memory = fit < threads;
        const PlaneBlocks b = blocks_over(1, a.examples * a.groups * p.pieces, a.plane, threads,
                                          in_memory ? few_blocks : most_plane_blocks);
        const int64_t in_block = int64_t(b.block.x) * b.block.y;
        // Slots that do not fit into an int are more than any memory has.
        const Scratch<T> memory(in_memory ? 2 * slots * in_block * b.grid.y * b.grid.z : 0);
        const size_t shared = in_memory ? 0 : size_t(ring * in_block);
        LAUNCH((lrn_backward<T, Power, fixed>), b.grid, b.block, shared, a, p, memory.data(), int(slots));
    });
}
template void local_response_norm_backward<float>(const LocalResponseNorm<float>&);
template void local_response_norm_backward<double>(const LocalResponseNorm<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
