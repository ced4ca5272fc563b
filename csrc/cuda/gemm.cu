// C = activation(alpha A B + beta C + bias); shapes and strides in shared/gemm.h.
//
// A block computes a tile of C (tile.cuh). A sum runs over p in order, or, where the tiles are too few to keep a device
// busy, over parts of k in order: then the blocks write partial sums, and a second kernel adds those, part after part.
// How many parts there are depends on m, n, k and batch alone, and so does every bit of C.
#include <algorithm>

#include "cuda/kernels.cuh"
#include "cuda/matrix_loader.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

template <class T>
constexpr int lanes = 16 / sizeof(T);

template <class T>
struct GemmTask {
    Gemm<T> g;
    bool c_vectors;       // the rows of C consist of whole vectors of 16 bytes
    unsigned tiles_down;  // tiles in a column of C
    int64_t parts;        // of k
    T* partial;           // [part][batch][m][pitch], null if there is but one part
    int64_t pitch;        // n, rounded up to whole vectors

    // Of part s the first p: parts differ by 16 at most, but for the rest that goes to the last.
    __host__ __device__ int64_t begin(int64_t s) const { return s == parts ? g.k : g.k / 16 * s / parts * 16; }
    __device__ T* partial_row(int64_t s, int64_t batch, int64_t row) const {
        return partial + ((s * g.batch + batch) * g.m + row) * pitch;
    }
};

// C(row, column ...) = activation(alpha values + beta C + bias), for a group of neighbouring columns.
template <class T, int count>
__device__ __forceinline__ void finish(const GemmTask<T>& task, int64_t batch, int64_t row, int64_t column,
                                       Group<T, count>& values) {
    const Gemm<T>& g = task.g;
    const Epilogue<T>& e = g.epilogue;
    T* const to = g.c.data + batch * g.c_batch_stride + row * g.c.row_stride + column * g.c.column_stride;
    const auto each = [&](auto&& use) {
#pragma unroll
        for (int l = 0; l < count; ++l)
            if (task.c_vectors || column + l < g.n) use(l, values.v[l]);
    };
    each([&](int, T& value) { value *= g.alpha; });
    if (g.beta != 0) {
        Group<T, count> old;
        if (task.c_vectors) old = *reinterpret_cast<const Group<T, count>*>(to);
        each([&](int l, T& value) {
            value = fma(g.beta, task.c_vectors ? old.v[l] : to[l * g.c.column_stride], value);
        });
    }
    if (e.bias) each([&](int l, T& value) { value += e.bias[e.bias_axis == BiasAxis::rows ? row : column + l]; });
    with_activation(e.activation, [&](auto formula) {
        each([&](int, T& value) { value = formula.forward(value, e.parameter); });
    });
    if (task.c_vectors)
        *reinterpret_cast<Group<T, count>*>(to) = values;
    else
        each([&](int l, T& value) { to[l * g.c.column_stride] = value; });
}

// Grid: the tiles of C, column after column; the parts of k; the batch.
template <class T, class Tile, Reads a_reads, Reads b_reads>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads) gemm_tiles(const GemmTask<T> task) {
    const Gemm<T>& g = task.g;
    const int64_t i0 = int64_t(blockIdx.x % task.tiles_down) * Tile::rows;
    const int64_t j0 = int64_t(blockIdx.x / task.tiles_down) * Tile::columns, part = blockIdx.y, batch = blockIdx.z;
    const int64_t begin = task.begin(part);
    const int count = int(task.begin(part + 1) - begin);
    const T* const a_data = g.a.data + batch * g.a_batch_stride + begin * g.a.column_stride;
    const T* const b_data = g.b.data + batch * g.b_batch_stride + begin * g.b.row_stride;
    MatrixLoader<T, Tile::rows, Tile::threads, a_reads> a(a_data, g.a.row_stride, g.a.column_stride, i0, g.m, count);
    MatrixLoader<T, Tile::columns, Tile::threads, b_reads> b(b_data, g.b.column_stride, g.b.row_stride, j0, g.n, count);
    T acc[Tile::thread_rows][Tile::thread_columns] = {};
    multiply_tile<T, Tile>(acc, a, b, 0, count);
    for_each_group<T, Tile>(acc, [&](int i, int j, auto& values) {
        const int64_t row = i0 + i, column = j0 + j;
        if (row >= g.m || column >= g.n) return;
        if (task.partial)
            *reinterpret_cast<Group<T, Tile::group>*>(task.partial_row(part, batch, row) + column) = values;
        else
            finish(task, batch, row, column, values);
    });
}

// The partial sums, added in the order of the parts. Grid: groups of columns, rows of C, the batch.
constexpr unsigned sum_across = 32, sum_down = 4;
template <class T>
__global__ void __launch_bounds__(sum_across* sum_down) gemm_sum_parts(const GemmTask<T> task) {
    const int64_t column = (int64_t(blockIdx.x) * sum_across + threadIdx.x) * lanes<T>;
    if (column >= task.g.n) return;
    for (int64_t row = int64_t(blockIdx.y) * sum_down + threadIdx.y; row < task.g.m; row += int64_t(gridDim.y) * sum_down) {
        Group<T, lanes<T>> sum = {};
#pragma unroll 4
        for (int64_t part = 0; part < task.parts; ++part) {
            const auto more = *reinterpret_cast<const Group<T, lanes<T>>*>(task.partial_row(part, blockIdx.z, row) + column);
#pragma unroll
            for (int l = 0; l < lanes<T>; ++l) sum.v[l] = part ? sum.v[l] + more.v[l] : more.v[l];
        }
        finish(task, blockIdx.z, row, column, sum);
    }
}

template <class T>
using Launch = void (*)(const GemmTask<T>&, const dim3& grid);
template <class T, class Tile, Reads a, Reads b>
void launch(const GemmTask<T>& task, const dim3& grid) {
    LAUNCH((gemm_tiles<T, Tile, a, b>), grid, Tile::threads, 0, task);
}

// Which tile a product is computed with: the first whose row of the table it reaches.
template <class T>
struct TileRow {
    int64_t least_m, least_n, least_tiles;  // the last over the whole batch
    int64_t blocks;                         // k is cut until there are so many: what fills about 128 multiprocessors
    int rows, columns;
    Launch<T> fast[2][2];  // A, B read by vectors, along p; null: not in, since this tile is for small products
    Launch<T> any;         // null: the next row of the table does it
};
template <class T, class Tile, bool has_fast, bool has_any>
constexpr TileRow<T> tile_row(int64_t least_m, int64_t least_n, int64_t least_tiles) {
    constexpr Reads v = Reads::vectors, p = Reads::along_p, n = Reads::numbers;
    TileRow<T> row{least_m, least_n, least_tiles, 128 * 512 / Tile::threads, Tile::rows, Tile::columns, {}, nullptr};
    if constexpr (has_fast) {
        row.fast[0][0] = launch<T, Tile, v, v>, row.fast[0][1] = launch<T, Tile, v, p>;
        row.fast[1][0] = launch<T, Tile, p, v>, row.fast[1][1] = launch<T, Tile, p, p>;
    }
    if constexpr (has_any) row.any = launch<T, Tile, n, n>;
    return row;
}
template <class T>
constexpr TileRow<T> tile_table[] = {
    tile_row<float, ProductTile<128, 128, 16, 8, 8>, true, false>(65, 65, 96),
    tile_row<float, ProductTile<64, 64, 16, 8, 4>, true, true>(33, 33, 48),
    tile_row<float, ProductTile<32, 32, 16, 4, 4>, false, true>(9, 9, 1),
    tile_row<float, ProductTile<8, 128, 16, 4, 4>, false, true>(1, 9, 1),
    tile_row<float, ProductTile<128, 8, 16, 4, 4>, false, true>(1, 1, 1)};
template <>
constexpr TileRow<double> tile_table<double>[] = {
    tile_row<double, ProductTile<128, 64, 8, 8, 4, 2>, true, false>(65, 33, 96),
    tile_row<double, ProductTile<64, 64, 8, 4, 4, 2>, true, true>(33, 33, 48),
    tile_row<double, ProductTile<32, 32, 8, 4, 4, 2>, false, true>(9, 9, 1),
    tile_row<double, ProductTile<8, 128, 8, 4, 4, 2>, false, true>(1, 9, 1),
    tile_row<double, ProductTile<128, 8, 8, 4, 4, 2>, false, true>(1, 1, 1)};

constexpr int64_t least_part = 128;               // of k, products
constexpr int64_t most_part = int64_t(1) << 30;   // a block counts them in 32 bits
constexpr int64_t most_on_y_and_z = 65535;        // blocks of a grid

template <class T>
int64_t tiles_of(const Gemm<T>& g, const TileRow<T>& row) {
    return (g.m + row.rows - 1) / row.rows * ((g.n + row.columns - 1) / row.columns);
}

// A batch that a grid can have.
template <class T>
void run(const Gemm<T>& g) {
    const TileRow<T>* row = tile_table<T>;
    while (g.m < row->least_m || g.n < row->least_n || g.batch * tiles_of(g, *row) < row->least_tiles) ++row;
    const int64_t parts = std::max(std::min(row->blocks / (g.batch * tiles_of(g, *row)), g.k / least_part), g.k / most_part + 1);
    const Reads a = reads_of(g.a.data, g.a.row_stride, g.a.column_stride, g.a_batch_stride, g.m, g.k >= least_part);
    const Reads b = reads_of(g.b.data, g.b.column_stride, g.b.row_stride, g.b_batch_stride, g.n, g.k >= least_part);
    const bool fast = a != Reads::numbers && b != Reads::numbers;
    if (!fast && !row->any) ++row;

    GemmTask<T> task{.g = g, .c_vectors = ..., };
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& g) {
}
template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
