// The bias gradient; shapes and sum in shared/bias.h.
//
// Blocks sum parts of dy, which a last kernel adds up, so that there are blocks enough where channels are
// few. Parts and the order in them depend on the shape alone. Where planes are small, as in a fully connected
// layer, dy is a matrix of examples by columns, a thread for each column; else threads go along the planes of
// one channel.
#include "cuda/kernels.cuh"
#include "cuda/planes.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr int warp = 32, warps = 8, threads = warp * warps;
constexpr int64_t narrow = 32;           // planes smaller than this are columns
constexpr int64_t piece_numbers = 4096;  // of a plane at most, that threads sum at a time
constexpr int64_t enough_blocks = 2048;
constexpr int64_t part_numbers = 1 << 13;  // of a block at least

// The sum of the lanes of a warp, in its first lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int lanes = warp / 2; lanes > 0; lanes /= 2) value += __shfl_down_sync(0xffffffffu, value, lanes);
    return value;
}

// parts (gridDim.y, columns) = sums of up to `per_part` rows of dy (rows, columns) each.
template <class T>
__global__ void __launch_bounds__(threads)
    bias_of_columns(T* parts, const T* dy, int64_t rows, int64_t columns, int64_t per_part) {
    SHARED(T, sums, [warps][warp]);
    const int lane = threadIdx.x % warp, row = threadIdx.x / warp;
    const int64_t column = int64_t(blockIdx.x) * warp + lane, first = blockIdx.y * per_part;
    const int64_t last = first + per_part < rows ? first + per_part : rows, end = column < columns ? last : 0;
    T sum = 0;
#pragma unroll 4
    for (int64_t n = first + row; n < end; n += warps) sum += dy[n * columns + column];
    sums[row][lane] = sum;
    __syncthreads();
    if (row > 0 || column >= columns) return;
    for (int r = 1; r < warps; ++r) sum += sums[r][lane];
    parts[blockIdx.y * columns + column] = sum;
}

// How the planes of one channel of dy (examples, channels, plane) are summed: in `pieces` pieces a plane,
// `across` threads along a piece.
struct PlanePieces {
    int64_t examples, channels, plane, pieces, piece, per_part;
    int across;
};

// parts (gridDim.y, channels) = sums of up to `per_part` pieces of dy (examples, channels, plane) each.
template <class T>
__global__ void __launch_bounds__(threads) bias_of_planes(T* parts, const T* dy, const PlanePieces p) {
    SHARED(T, sums, [warps]);
    const int column = threadIdx.x % p.across, row = threadIdx.x / p.across, down = threads / p.across;
    const int64_t all = p.examples * p.pieces, first = blockIdx.y * p.per_part, channel = blockIdx.x;
    const int64_t last = first + p.per_part < all ? first + p.per_part : all, end = row < down ? last : 0;
    T sum = 0;
    for (int64_t i = first + row; i < end; i += down) {
        const int64_t n = i / p.pieces, start = (i - n * p.pieces) * p.piece;
        const int64_t count = p.plane - start < p.piece ? p.plane - start : p.piece;
        const T* const from = dy + (n * p.channels + channel) * p.plane + start;
        T of_piece = 0;
#pragma unroll 4
        for (int64_t q = column; q < count; q += p.across) of_piece += from[q];
        sum += of_piece;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % warp == 0) sums[threadIdx.x / warp] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int w = 1; w < warps; ++w) sum += sums[w];
    parts[blockIdx.y * p.channels + channel] = sum;
}

// out (channels) = sum of parts (count, channels, plane) over everything else: a warp for each channel.
template <class T>
__global__ void __launch_bounds__(threads)
    bias_of_parts(T* out, const T* parts, int64_t count, int64_t channels, int64_t plane) {
    const int lane = threadIdx.x % warp;
    const int64_t step = int64_t(gridDim.x) * warps;
    for (int64_t o = int64_t(blockIdx.x) * warps + threadIdx.x / warp; o < channels; o += step) {
        T sum = 0;
        for (int64_t i = lane; i < count * plane; i += warp) {
            const int64_t part = i / plane;
            sum += parts[(part * channels + o) * plane + i - part * plane];
        }
        sum = warp_sum(sum);
        if (lane == 0) out[o] = sum;
    }
}

template <class T>
void add_parts(const BiasBackward<T>& a, const T* parts, int64_t count, int64_t plane) {
    LAUNCH(bias_of_parts<T>, blocks_for(a.channels, warps), threads, 0, a.out, parts, count, a.channels,
           plane);
}

// launch(parts, number of them, items of a part) where `count` items of `numbers` numbers each are summed in
// `tiles` blocks side by side; then the sum of the parts (.., channels, plane) to out, unless there is one
// part and it is the result.
template <class T, class Launch>
void in_parts(const BiasBackward<T>& a, int64_t count, int64_t numbers, int64_t tiles, int64_t plane,
              const Launch& launch) {
    const int64_t wanted = (enough_blocks + tiles - 1) / tiles;
    const int64_t most = (count * numbers + part_numbers - 1) / part_numbers;
    const int64_t cuts = wanted < most ? wanted : most, per_part = (count + cuts - 1) / cuts;
    const int64_t parts = (count + per_part - 1) / per_part;
    if (parts == 1 && plane == 1) return launch(a.out, parts, per_part);
    const Scratch<T> memory(parts * a.channels * plane);
    launch(memory.data(), parts, per_part);
    add_parts(a, memory.data(), parts, plane);
}

}  // namespace

template <class T>
void bias_backward(const BiasBackward<T>& a) {
    if (a.channels == 0) return;
    if (a.examples == 0 || a.plane == 0) return add_parts(a, a.dy, 0, 1);  // zeros
    if (a.plane < narrow) {
        const int64_t columns = a.channels * a.plane, tiles = (columns + warp - 1) / warp;
        return in_parts(a, a.examples, warp, tiles, a.plane, [&](T* to, int64_t parts, int64_t per_part) {
            // More tiles than a grid may have fit into no memory.
            const dim3 grid{unsigned(tiles), unsigned(parts)};
            LAUNCH(bias_of_columns<T>, grid, threads, 0, to, a.dy, a.examples, columns, per_part);
        });
    }
    const int64_t piece = evenly(a.plane, piece_numbers), pieces = (a.plane + piece - 1) / piece;
    in_parts(a, a.examples * pieces, piece, a.channels, 1, [&](T* to, int64_t parts, int64_t per_part) {
        const PlanePieces p{
            a.examples, a.channels, a.plane, pieces, piece, per_part, int(evenly(piece, 2 * warp))};
        LAUNCH(bias_of_planes<T>, dim3(unsigned(a.channels), unsigned(parts)), threads, 0, to, a.dy, p);
    });
}
template void bias_backward<float>(const BiasBackward<float>&);
template void bias_backward<double>(const BiasBackward<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
