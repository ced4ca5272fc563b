// Matrix multiplication in the manner of BLIS: five loops around a register tile (tile_body.h).
//
// An operand is packed into panels where it is read often enough to pay for that, else the register tile
// reads it where it lies (`direct`). Which way, and how the work is cut into blocks and tasks, follows from
// shapes and strides alone, and k is never cut between threads: any number of threads gives the same bits.
#pragma once
#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t block_rows =
    168 / tile_rows * tile_rows;                  // MC: MC x KC of A stay in the second-level cache
constexpr int64_t block_columns = 4096;           // NC: KC x NC of B stay in the third level
constexpr int64_t packed_rows = 24 * block_rows;  // rows of A packed at a time
constexpr int64_t direct_a_columns = 128;         // A is read where it lies for at most so many columns of B
constexpr int64_t direct_b_rows = 48;             // B likewise for at most so many rows of A
constexpr int64_t dot_rows = 4;                   // so few rows are computed by dot products
constexpr double task_work = 5e5;                 // operations of a task at least
constexpr double inner_parallel_work = 4e6;  // smaller matrices of a batch are computed by one thread each

// panel[p * width + w] = source[w * across + p * along] for p < kc, w < used.
template <class T, int width>
void pack_panel(T* panel, const T* source, int64_t across, int64_t along, int used, int64_t kc) {
    if (used == width && across == 1) {
        for (int64_t p = 0; p < kc; ++p) memcpy(panel + p * width, source + p * along, width * sizeof(T));
        return;
    }
    // A line of memory is read to its end before the next: far-apart rows would evict each other.
    constexpr int64_t line = 64 / sizeof(T);
    for (int64_t p = 0; p < kc; p += line) {
        const int64_t end = smaller(p + line, kc);
        for (int w = 0; w < used; ++w)
            for (int64_t q = p; q < end; ++q) panel[q * width + w] = source[w * across + q * along];
    }
}

// One block of k: what a task needs to know.
template <class T>
struct GemmBlock {
    const Gemm<T>& g;
    int64_t row, rows, column, columns, depth, kc;  // first row ... of the block; depth: first k
    const T* a_panels;                              // null: A is direct
    const T* b_panels;
    bool direct_b;  // all panels of B but an incomplete last one

    bool last() const { return depth + kc >= g.k; }
};

// A register tile, at row i and column j of the block; by way of a copy if the columns of C are not adjacent.
template <class T, bool direct_a>
void compute_tile(const GemmBlock<T>& block, int64_t i, int64_t j) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    const Gemm<T>& g = block.g;
    const int rows = int(smaller(mr, block.rows - i)), columns = int(smaller(nr, block.columns - j));
    const Tile<T> tile = {block.row + i,
                          block.column + j,
                          rows,
                          columns,
                          g.alpha,
                          block.depth == 0 ? g.beta : T(1),
                          block.last() ? &g.epilogue : nullptr};
    const bool direct_b = block.direct_b && columns == nr;
    const T* const b =
        direct_b ? g.b.data + block.depth * g.b.row_stride + tile.j0 : block.b_panels + j * block.kc;
    const int64_t b_step = direct_b ? g.b.row_stride : nr;

    T* const corner = g.c.data + tile.i0 * g.c.row_stride + tile.j0 * g.c.column_stride;
    T copy[mr * nr];
    const bool adjacent = g.c.column_stride == 1;
    if (!adjacent && tile.beta != 0)
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c)
                copy[r * nr + c] = corner[r * g.c.row_stride + c * g.c.column_stride];

    Accumulators<T> acc;
    if constexpr (direct_a) {
        const T* row[mr];
        for (int r = 0; r < mr; ++r)  // rows beyond the last one repeat it
            row[r] = g.a.data + (tile.i0 + smaller(r, rows - 1)) * g.a.row_stride +
                     block.depth * g.a.column_stride;
        multiply_rows<T>(block.kc, row, g.a.column_stride, b, b_step, acc);
    } else {
        multiply_panels<T>(block.kc, block.a_panels + i * block.kc, b, acc, b_step);
    }
    store_tile<T>(acc, tile, adjacent ? corner : copy, adjacent ? g.c.row_stride : nr);

    if (!adjacent)
        for (int c = 0; c < columns; ++c)
            for (int r = 0; r < rows; ++r)
                corner[r * g.c.row_stride + c * g.c.column_stride] = copy[r * nr + c];
}

// Tasks of some rows (loop ic) times some panels of B (loop jr), each a loop over tiles.
template <class T, bool direct_a>
void compute_block(const GemmBlock<T>& block) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    const int64_t rows = equal_block(block.rows, block_rows, mr);
    const double panel_work = 2.0 * double(rows) * double(nr) * double(block.kc + 1);
    const int64_t columns = nr * (1 + int64_t(task_work / panel_work));
    const int64_t down = divide_up(block.rows, rows), across = divide_up(block.columns, columns);
    const double work = 2.0 * double(block.rows) * double(block.columns) * double(block.kc + 1);
    parallel_for(down * across, work / double(down * across), [&](int64_t task) {
        const int64_t i0 = task % down * rows, j0 = task / down * columns;
        for (int64_t j = j0; j < smaller(j0 + columns, block.columns); j += nr)
            for (int64_t i = i0; i < smaller(i0 + rows, block.rows); i += mr)
                compute_tile<T, direct_a>(block, i, j);
    });
}

template <class T>
void pack_b(const Gemm<T>& g, const GemmBlock<T>& block, T* panels) {
    constexpr int nr = tile_columns<T>;
    const int64_t count = divide_up(block.columns, nr), complete = block.columns / nr;
    const int64_t first = block.direct_b ? complete : 0;
    parallel_for(count - first, double(nr * block.kc * int64_t(sizeof(T))), [&](int64_t task) {
        const int64_t j = (first + task) * nr;
        pack_panel<T, nr>(panels + j * block.kc,
                          g.b.data + block.depth * g.b.row_stride + (block.column + j) * g.b.column_stride,
                          g.b.column_stride, g.b.row_stride, int(smaller(nr, block.columns - j)), block.kc);
    });
}

template <class T>
void pack_a(const Gemm<T>& g, const GemmBlock<T>& block, T* panels) {
    constexpr int mr = tile_rows;
    parallel_for(divide_up(block.rows, mr), double(mr * block.kc * int64_t(sizeof(T))), [&](int64_t task) {
        const int64_t i = task * mr;
        pack_panel<T, mr>(panels + i * block.kc,
                          g.a.data + (block.row + i) * g.a.row_stride + block.depth * g.a.column_stride,
                          g.a.row_stride, g.a.column_stride, int(smaller(mr, block.rows - i)), block.kc);
    });
}

// The outer loops: blocks of columns (jc), of depth (pc) and of rows.
template <class T>
void multiply_blocks(const Gemm<T>& g) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    const bool direct_a = g.n <= direct_a_columns && (g.a.row_stride == 1 || g.a.column_stride == 1);
    const bool direct_b = g.m <= direct_b_rows && g.b.column_stride == 1;
    const int64_t depth = equal_block(g.k, block_depth<T>, 1), columns = equal_block(g.n, block_columns, nr);
    const int64_t rows = direct_a ? g.m : equal_block(g.m, packed_rows, mr);
    const Scratch a_memory(direct_a ? 0 : rows * depth, sizeof(T));
    const Scratch b_memory(direct_b && g.n % nr == 0 ? 0 : columns * depth, sizeof(T));
    T* const a_panels = direct_a ? nullptr : static_cast<T*>(a_memory.data);
    T* const b_panels = static_cast<T*>(b_memory.data);

    for (int64_t jc = 0; jc < g.n; jc += columns)
        for (int64_t pc = 0; pc < larger(g.k, 1); pc += depth) {  // k = 0: one empty block writes C
            GemmBlock<T> block = {
                g,        0,        0,       jc, smaller(columns, g.n - jc), pc, smaller(depth, g.k - pc),
                a_panels, b_panels, direct_b};
            pack_b(g, block, b_panels);
            for (block.row = 0; block.row < g.m; block.row += rows) {
                block.rows = smaller(rows, g.m - block.row);
                if (direct_a) {
                    compute_block<T, true>(block);
                } else {
                    pack_a(g, block, a_panels);
                    compute_block<T, false>(block);
                }
            }
        }
}

// Few rows, and k adjacent in both operands: four dot products at a time, B is read once and never copied.
template <class T>
void multiply_dots(const Gemm<T>& g) {
    constexpr int64_t width = 4, lanes = Vec<T>::lanes;
    const int64_t columns = width * (1 + int64_t(task_work / (2.0 * width * double(g.m) * double(g.k + 1))));
    const int64_t tasks = divide_up(g.n, columns);
    const auto dots = [&](int64_t i, int64_t j) {
        const T *a = g.a.data + i * g.a.row_stride, *b[width];
        for (int64_t c = 0; c < width; ++c) b[c] = g.b.data + smaller(j + c, g.n - 1) * g.b.column_stride;
        Vec<T> acc[width] = {};
        for (int64_t p = 0; p < g.k; p += lanes) {
            const int rest = int(smaller(lanes, g.k - p));
            const Vec<T> x = load_up_to(a + p, rest);
            for (int64_t c = 0; c < width; ++c) acc[c] = fma(x, load_up_to(b[c] + p, rest), acc[c]);
        }
        const Epilogue<T>& e = g.epilogue;
        for (int64_t c = 0; c < smaller(width, g.n - j); ++c) {
            T* out = g.c.data + i * g.c.row_stride + (j + c) * g.c.column_stride;
            T x = g.alpha * sum(acc[c]);
            if (g.beta != 0) x += g.beta * *out;
            if (e.bias) x += e.bias[e.bias_axis == BiasAxis::rows ? i : j + c];
            *out = x;
            apply_activation<T>(e.activation, e.parameter, out, 1);
        }
    };
    parallel_for(tasks, 2.0 * double(g.m) * double(smaller(columns, g.n)) * double(g.k + 1),
                 [&](int64_t task) {
                     for (int64_t j = task * columns; j < smaller((task + 1) * columns, g.n); j += width)
                         for (int64_t i = 0; i < g.m; ++i) dots(i, j);
                 });
}

// C' = B' A'.
template <class T>
Gemm<T> transposed(const Gemm<T>& g) {
    Gemm<T> t = g;
    t.m = g.n, t.n = g.m;
    t.a = {g.b.data, g.b.column_stride, g.b.row_stride};
    t.b = {g.a.data, g.a.column_stride, g.a.row_stride};
    t.c = {g.c.data, g.c.column_stride, g.c.row_stride};
    t.a_batch_stride = g.b_batch_stride, t.b_batch_stride = g.a_batch_stride;
    t.epilogue.bias_axis = g.epilogue.bias_axis == BiasAxis::rows ? BiasAxis::columns : BiasAxis::rows;
    return t;
}

// One product of the batch.
template <class T>
void multiply(Gemm<T> g) {
    if (g.m == 0 || g.n == 0) return;
    if (smaller(g.m, g.n) <= dot_rows && g.a.column_stride == 1 && g.b.row_stride == 1)
        return multiply_dots(g.m <= g.n ? g : transposed(g));
    const bool columns_adjacent = g.c.column_stride == 1 || g.c.row_stride != 1;
    // Weights (n, k) times few examples: the weights become the operand that is not packed.
    const bool large_b =
        g.b.row_stride == 1 && g.b.column_stride != 1 && g.m < g.n && g.m <= direct_a_columns;
    multiply_blocks(columns_adjacent != large_b ? g : transposed(g));
}

template <class T>
void gemm(const Gemm<T>& g) {
    const bool one_matrix = g.b_batch_stride == 0 && g.a_batch_stride == g.m * g.a.row_stride &&
                            g.c_batch_stride == g.m * g.c.row_stride &&
                            (!g.epilogue.bias || g.epilogue.bias_axis == BiasAxis::columns);
    if (one_matrix) {  // the same B for all: the batch is more rows of A
        Gemm<T> all = g;
        all.m *= g.batch;
        return multiply(all);
    }
    const double work = 2.0 * double(g.m) * double(g.n) * double(g.k + 1);
    const auto item = [&g](int64_t i) {
        Gemm<T> one = g;
        one.a.data += i * g.a_batch_stride;
        one.b.data += i * g.b_batch_stride;
        one.c.data += i * g.c_batch_stride;
        multiply(one);
    };
    if (work < inner_parallel_work || g.batch >= 16)
        parallel_for(g.batch, work, item);
    else
        for (int64_t i = 0; i < g.batch; ++i) item(i);
}

}  // namespace
}  // namespace tinygrad_nm
