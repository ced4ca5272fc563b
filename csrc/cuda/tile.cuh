// The inner loop of every product: a block's tile of C in registers, summed over panels in shared memory.
//
//   acc[i][j] += sum over p in [p_begin, p_end), in order, of A(row(i), p) B(p, column(j))
//
// A loader brings a panel of A or B. It is any object with
//   template <int depth, int pitch> __device__ void load(T (&panel)[depth][pitch], int64_t p)
// which writes panel[q][x] = the operand's element (x, p + q) for q < depth and all x of the tile, by all
// threads of the block, with copy_number / copy_bytes or plain stores. It must not read beyond the operand,
// and what it writes instead does not matter: rows of a panel from p_end on are not used, rows and columns of
// the tile beyond the matrix not kept.
#pragma once
#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// A thread has thread_rows x thread_columns numbers of the tile, in groups of `group` neighbours.
template <int rows_, int columns_, int depth_, int thread_rows_, int thread_columns_, int group_ = 4>
struct ProductTile {
    static constexpr int rows = rows_, columns = columns_, depth = depth_, group = group_;
    static constexpr int thread_rows = thread_rows_, thread_columns = thread_columns_;
    static constexpr int down = rows / thread_rows, across = columns / thread_columns,
                         threads = down * across;
    // The pad spreads the columns of a panel over the banks of shared memory, for operands that are copied by
    // columns.
    static constexpr int pad = 4, a_pitch = rows + pad, b_pitch = columns + pad;
    // The threads of a warp form a rectangle near to 4 x 8, so that together they read few numbers of each
    // panel.
    static constexpr int warp_across = across < 8 ? across : 32 / down > 8 ? 32 / down : 8;
    static constexpr int warp_down = 32 / warp_across, warps_across = across / warp_across;

    // The row (column) in the tile of a thread's i-th row (j-th column).
    static __device__ __forceinline__ int row(int i) {
        const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return int(warp / warps_across * warp_down + lane / warp_across) * group + i / group * down * group +
               i % group;
    }
    static __device__ __forceinline__ int column(int j) {
        const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        return int(warp % warps_across * warp_across + lane % warp_across) * group +
               j / group * across * group + j % group;
    }
};

// Neighbours at a multiple of 16 bytes, read or written at once.
template <class T, int count>
struct alignas(16) Group {
    T v[count];
};

// p_end - p_begin is below 2^31. May be called again and again.
template <class T, class Tile, class LoadA, class LoadB>
__device__ __forceinline__ void multiply_tile(T (&acc)[Tile::thread_rows][Tile::thread_columns], LoadA& a,
                                              LoadB& b, int64_t p_begin, int64_t p_end) {
    constexpr int depth = Tile::depth, group = Tile::group, a_pitch = Tile::a_pitch, b_pitch = Tile::b_pitch;
    constexpr int a_size = depth * a_pitch, size = a_size + depth * b_pitch;
    SHARED(T, panels, [2 * size]);  // at 0 and at `size`: a panel of A and one of B
    const int count = int(p_end - p_begin);
    if (count <= 0) return;
    const auto load = [&](int p, int at) {
        a.load(*reinterpret_cast<T(*)[depth][a_pitch]>(panels + at), p_begin + p);
        b.load(*reinterpret_cast<T(*)[depth][b_pitch]>(panels + at + a_size), p_begin + p);
        commit_copies();
    };
    const auto wait = [] {  // for the newest panels, and for those who still multiply the ones before
        wait_copies<0>();
        __syncthreads();
    };
    const auto multiply = [&](int at, int q) {
        using Numbers = Group<T, group>;
        T x[Tile::thread_rows], y[Tile::thread_columns];
        const T *const a_row = panels + at + q * a_pitch, *const b_row = panels + at + a_size + q * b_pitch;
#pragma unroll
        for (int i = 0; i < Tile::thread_rows; i += group)
            *reinterpret_cast<Numbers*>(x + i) = *reinterpret_cast<const Numbers*>(a_row + Tile::row(i));
#pragma unroll
        for (int j = 0; j < Tile::thread_columns; j += group)
            *reinterpret_cast<Numbers*>(y + j) = *reinterpret_cast<const Numbers*>(b_row + Tile::column(j));
#pragma unroll
        for (int i = 0; i < Tile::thread_rows; ++i)
#pragma unroll
            for (int j = 0; j < Tile::thread_columns; ++j) acc[i][j] = fma(x[i], y[j], acc[i][j]);
    };
    const auto multiply_rows = [&](int at, int rows) {
#pragma unroll 1
        for (int q = 0; q < rows; ++q) multiply(at, q);
    };

    // The first panel is the short one, if any is. So the main loop has no condition but its end: while the
    // threads multiply one panel, the next, which is whole, is on its way.
    const int first = (count - 1) % depth + 1;
    int at = 0, p = first;
    load(0, at);
    wait();
    if (p < count) load(p, size);
    multiply_rows(at, first);
    for (at = size; p < count - depth; at = size - at) {
        wait();
        load(p += depth, size - at);
#pragma unroll
        for (int q = 0; q < depth; ++q) multiply(at, q);
    }
    wait();
    if (p < count) multiply_rows(at, depth);
    __syncthreads();
}

// use(row in the tile, column in the tile, numbers) for each group of neighbouring columns that the thread
// has.
template <class T, class Tile, class Use>
__device__ __forceinline__ void for_each_group(T (&acc)[Tile::thread_rows][Tile::thread_columns], Use&& use) {
#pragma unroll 1
    for (int i = 0; i < Tile::thread_rows; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::thread_columns; j += Tile::group) {
            Group<T, Tile::group> numbers;
#pragma unroll
            for (int l = 0; l < Tile::group; ++l) numbers.v[l] = acc[0][j + l];
            use(Tile::row(i), Tile::column(j), numbers);
        }
        // Registers have no index that could be computed: the next row moves to the front.
#pragma unroll
        for (int r = 0; r + 1 < Tile::thread_rows; ++r)
#pragma unroll
            for (int j = 0; j < Tile::thread_columns; ++j) acc[r][j] = acc[r + 1][j];
    }
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
