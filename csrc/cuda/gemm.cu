// C = activation(alpha A B + beta C + bias); shapes and strides in shared/gemm.h.
//
// A block computes a tile of C (tile.cuh). A sum runs over p in order, or, where the tiles are too few to
// keep a device busy, over parts of k in order: then the blocks write partial sums, and a second kernel adds
// those, part after part. How many parts there are depends on m, n, k and batch alone, and so does every bit
// of C.
#include <algorithm>

#include "cuda/kernels.cuh"
#include "cuda/matrix_loader.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

template <class T>
constexpr int lanes = 16 / sizeof(T);

constexpr int64_t unit = 16;  // of k, which is cut at multiples of it; no panel is deeper

template <class T>
struct GemmTask {
    Gemm<T> g;
    bool c_vectors;  // the rows of C consist of whole vectors of 16 bytes
    bool down_on_x;  // the grid's x runs over rows of tiles, y over columns; else the other way
    int64_t parts;   // of k, each of so many units, the first `longer` of one more, the last also of the rest
    int64_t units, longer;

    __device__ int64_t begin(int64_t s) const {
        return s == parts ? g.k : (s * units + (s < longer ? s : longer)) * unit;
    }
};

// C(row, column ...) = activation(alpha values + beta C + bias), for a group of neighbouring columns.
template <class T, int count>
__device__ __forceinline__ void finish(const GemmTask<T>& task, int64_t batch, int64_t row, int64_t column,
                                       Group<T, count>& values) {
    const Gemm<T>& g = task.g;
    const Epilogue<T>& e = g.epilogue;
    T* const to = g.c.data + batch * g.c_batch_stride + row * g.c.row_stride + column * g.c.column_stride;
    // The columns of a group may end before it does.
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
    if (e.bias)
        each([&](int l, T& value) { value += e.bias[e.bias_axis == BiasAxis::rows ? row : column + l]; });
    if (e.activation != Activation::identity) {
#pragma unroll 1
        for (int turn = 0; turn < count; ++turn) {  // one after the other: the formulas are long
            T value = values.v[0];
            with_activation(e.activation, [&](auto formula) { value = formula.forward(value, e.parameter); });
#pragma unroll
            for (int l = 0; l + 1 < count; ++l) values.v[l] = values.v[l + 1];
            values.v[count - 1] = value;
        }
    }
    if (task.c_vectors)
        *reinterpret_cast<Group<T, count>*>(to) = values;
    else
        each([&](int l, T& value) { to[l * g.c.column_stride] = value; });
}

// Grid: the tiles of C; on z the parts of k times the batch, in the order in which C lies in memory.
template <class T, class Tile, Reads a_reads, Reads b_reads>
__global__ void __launch_bounds__(Tile::threads, 2048 / sizeof(T) / Tile::threads)
    gemm_tiles(const GemmTask<T> task) {
    const Gemm<T>& g = task.g;
    // Of the tile in C; computed anew at the end, since registers are short until then.
    const auto i0 = [&] { return int64_t(task.down_on_x ? blockIdx.x : blockIdx.y) * Tile::rows; };
    const auto j0 = [&] { return int64_t(task.down_on_x ? blockIdx.y : blockIdx.x) * Tile::columns; };
    const unsigned batches = unsigned(g.batch), part = blockIdx.z / batches,
                   batch = blockIdx.z - part * batches;
    const int64_t begin = task.begin(part);
    const int count = int(task.begin(part + 1) - begin);
    const T* const a_data = g.a.data + batch * g.a_batch_stride + begin * g.a.column_stride;
    const T* const b_data = g.b.data + batch * g.b_batch_stride + begin * g.b.row_stride;
    MatrixLoader<T, Tile::rows, Tile::a_pitch, Tile::threads, a_reads> a(a_data, g.a.row_stride,
                                                                         g.a.column_stride, i0(), g.m, count);
    MatrixLoader<T, Tile::columns, Tile::b_pitch, Tile::threads, b_reads> b(b_data, g.b.column_stride,
                                                                            g.b.row_stride, j0(), g.n, count);
    T acc[Tile::thread_rows][Tile::thread_columns] = {};
    multiply_tile<T, Tile>(acc, a, b, 0, count);
    for_each_group<T, Tile>(acc, [&](int i, int j, auto& values) {
        const int64_t row = i0() + i, column = j0() + j;
        if (row >= g.m || column >= g.n) return;
        finish(task, blockIdx.z, row, column, values);
    });
}

// The partial sums [parts][batch][m][pitch], added in the order of the parts. Grid: groups of columns, rows
// of C, the batch.
constexpr unsigned sum_across = 32, sum_down = 4;
template <class T>
__global__ void __launch_bounds__(sum_across* sum_down)
    gemm_sum_parts(const GemmTask<T> task, const T* partial, int64_t pitch) {
    using Numbers = Group<T, lanes<T>>;
    const int64_t column = (int64_t(blockIdx.x) * sum_across + threadIdx.x) * lanes<T>;
    if (column >= task.g.n) return;
    int64_t row = int64_t(blockIdx.y) * sum_down + threadIdx.y;
    for (; row < task.g.m; row += int64_t(gridDim.y) * sum_down) {
        const T* from = partial + (blockIdx.z * task.g.m + row) * pitch + column;
        Numbers sum = {};
#pragma unroll 2
        for (int64_t part = 0; part < task.parts; ++part, from += task.g.batch * task.g.m * pitch) {
            const Numbers more = *reinterpret_cast<const Numbers*>(from);
#pragma unroll
            for (int l = 0; l < lanes<T>; ++l) sum.v[l] += more.v[l];
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

// A tile, and the products that it is for.
template <class T>
struct TileRow {
    int64_t least_m, least_n, least_tiles;  // the last over the whole batch
    int rows, columns, threads;
    Launch<T> fast[2][2];  // A (B) read by vectors, along p; null: the products are too small for that
    Launch<T> any;         // null: the next tile does it
};
template <class T, int rows, int columns, int thread_rows, int thread_columns, bool has_fast, bool has_any>
constexpr TileRow<T> tile_row(int64_t least_m, int64_t least_n, int64_t least_tiles) {
    constexpr Reads vectors = Reads::vectors, along_p = Reads::along_p, numbers = Reads::numbers;
    using Tile = ProductTile<rows, columns, 64 / sizeof(T), thread_rows, thread_columns, lanes<T>>;
    TileRow<T> row{least_m, least_n, least_tiles, rows, columns, Tile::threads, {}, nullptr};
    if constexpr (has_fast) {
        row.fast[0][0] = launch<T, Tile, vectors, vectors>;
        row.fast[0][1] = launch<T, Tile, vectors, along_p>;
        row.fast[1][0] = launch<T, Tile, along_p, vectors>;
        row.fast[1][1] = launch<T, Tile, along_p, along_p>;
    }
    if constexpr (has_any) row.any = launch<T, Tile, numbers, numbers>;
    return row;
}
// The first row that a product reaches is taken. 8 x 8 doubles do not fit into a thread's registers.
template <class T>
constexpr int widest = 512 / sizeof(T);
template <class T>
constexpr TileRow<T> tile_table[] = {
    tile_row<T, 128, widest<T>, 8, widest<T> / 16, true, false>(65, widest<T> / 2 + 1, 96),
    tile_row<T, 64, 64, 8, 4, true, true>(33, 33, 48),
    tile_row<T, 32, 32, 4, 4, false, true>(9, 9, 1),
    tile_row<T, 8, 128, 4, 4, false, true>(1, 9, 1),
    tile_row<T, 128, 8, 4, 4, false, true>(1, 1, 1),
};

constexpr int64_t enough_threads = 128 * 512;    // k is cut until so many are busy: 128 multiprocessors,
constexpr int64_t least_part = 128;              // but into parts of at least so many products,
constexpr int64_t most_part = int64_t(1) << 30;  // and at most so many, since a block counts them in 32 bits
constexpr int64_t most_on_z = 65535;             // blocks of a grid; on y likewise

constexpr int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// A batch that a grid can have.
template <class T>
void run(const Gemm<T>& g) {
    const auto tiles = [&](const TileRow<T>& r) {
        return divide_up(g.m, r.rows) * divide_up(g.n, r.columns) * g.batch;
    };
    const TileRow<T>* row = tile_table<T>;
    while (g.m < row->least_m || g.n < row->least_n || tiles(*row) < row->least_tiles) ++row;
    const int64_t wanted = std::min(enough_threads / (tiles(*row) * row->threads), g.k / least_part);
    const int64_t parts = std::max(wanted, g.k / most_part + 1);

    const bool whole_panels = g.k >= unit;
    const Reads a =
        reads_of(g.a.data, g.a.row_stride, g.a.column_stride, g.a_batch_stride, g.m, whole_panels);
    const Reads b =
        reads_of(g.b.data, g.b.column_stride, g.b.row_stride, g.b_batch_stride, g.n, whole_panels);
    const bool fast = row->fast[0][0] && a != Reads::numbers && b != Reads::numbers;
    if (!fast && !row->any) ++row;
    const Launch<T> launch = fast ? row->fast[a == Reads::along_p][b == Reads::along_p] : row->any;

    const auto whole = [](int64_t count) { return count % lanes<T> == 0; };
    const bool c_vectors = g.c.column_stride == 1 && whole(g.n) && whole(g.c.row_stride) &&
                           whole(g.c_batch_stride) && uintptr_t(g.c.data) % 16 == 0;
    const int64_t down = divide_up(g.m, row->rows), across = divide_up(g.n, row->columns);
    const GemmTask<T> task{g, c_vectors, down >= across, parts, g.k / unit / parts, g.k / unit % parts};
    // Both sides cannot have more tiles than fit on y: no memory would hold such a C.
    const dim3 tiles_parts_batch(unsigned(std::max(down, across)), unsigned(std::min(down, across)),
                                 unsigned(parts * g.batch));
    if (parts == 1) return launch(task, tiles_parts_batch);

    const int64_t pitch = divide_up(g.n, lanes<T>) * lanes<T>;
    const Scratch<T> partial(parts * g.batch * g.m * pitch);
    GemmTask<T> of_parts = task;
    of_parts.g.c = {partial.data(), pitch, 1}, of_parts.g.c_batch_stride = g.m * pitch,
    of_parts.c_vectors = true;
    of_parts.g.alpha = 1, of_parts.g.beta = 0, of_parts.g.epilogue = {};
    launch(of_parts, tiles_parts_batch);
    const dim3 sums(unsigned(divide_up(pitch, sum_across * lanes<T>)),
                    unsigned(std::min(divide_up(g.m, sum_down), most_on_z)), unsigned(g.batch));
    LAUNCH(gemm_sum_parts<T>, sums, dim3(sum_across, sum_down), 0, task, partial.data(), pitch);
}

}  // namespace

template <class T>
void gemm(const Gemm<T>& g) {
    if (g.m == 0 || g.n == 0) return;
    const int64_t most = most_on_z / (g.k / most_part + 1);
    for (int64_t first = 0; first < g.batch; first += most) {
        Gemm<T> some = g;
        some.batch = std::min(g.batch - first, most);
        some.a.data += first * g.a_batch_stride;
        some.b.data += first * g.b_batch_stride;
        some.c.data += first * g.c_batch_stride;
        run(some);
    }
}
template void gemm<float>(const Gemm<float>&);
template void gemm<double>(const Gemm<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
