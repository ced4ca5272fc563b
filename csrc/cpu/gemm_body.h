// Matrix multiplication in the manner of BLIS: five loops around a register tile (tile_body.h).
//
// An operand is packed into panels where it is read often enough to pay for that, else the register tile
// reads it where it lies (`direct`). Which way, and how the work is cut into blocks and tasks, follows from
// shapes and strides alone, and k is never cut between threads: any number of threads gives the same bits.
#pragma once
#include "cpu/arena.h"
#include "cpu/gemm_dots_body.h"
#include "cpu/panels_body.h"
#include "cpu/parallel.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

constexpr int64_t block_rows =
    168 / tile_rows * tile_rows;                       // MC: MC x KC of A stay in the second-level cache
constexpr int64_t block_columns = 4096;                // NC: KC x NC of B stay in the third level
constexpr int64_t least_rows = 2 * tile_rows;          // of a task,
constexpr int64_t least_rows_packing = 3 * tile_rows;  // and of one that packs B for itself
constexpr int64_t least_panels = 8;                    // of B: each task packs its rows of A again
constexpr int64_t most_tasks = 15;                     // and one, where a block of rows is not smaller anyway
constexpr int64_t direct_a_panels = 2;         // A is read where it lies for at most so many panels of B,
constexpr int64_t direct_a_bytes = 128 << 10;  // or if it is so small and B has few columns
constexpr int64_t direct_b_rows = 16;          // B likewise for so few rows of A and at most so many bytes,
constexpr int64_t direct_b_most = 32 << 20;    // or if it stays in the second-level cache
constexpr int64_t few_rows = 128;              // with so few columns A streams by
constexpr int64_t short_depth = 64;        // a block so short is written row by row: C is what takes the time
constexpr int64_t few_bytes = 512 << 10;   // of B, with so few columns
constexpr int64_t own_b_bytes = 96 << 10;  // of B, packed by every task
constexpr int64_t strip_columns = 512;     // of a large product's parts, each by one thread:
constexpr int64_t strip_rows = 1024;       // about so many columns, in an even number of strips, and rows,
constexpr int64_t strip_tasks = 8;  // in all about so many parts or more: each packs its columns of B again
constexpr int next_level = TINYGRAD_NM_VECTOR_BYTES == 64 ? 2 : 3;  // two panels of B fill the first level
constexpr int64_t packed_depth = 8;                                 // rows of B that are packed together
constexpr double task_work = 1.5e6;          // of a task at least: operations times the bytes of an element
constexpr double inner_parallel_work = 4e6;  // smaller matrices of a batch are computed by one thread each

// What one register tile needs: A and B where it begins, A as in multiply(), and its place in C.
template <class T>
struct TileTask {
    int64_t kc;
    const T* a;
    int64_t a_step;
    bool a_adjacent;
    const T* b;
    int64_t b_step;
    Tile<T> tile;
    T* c;
    int64_t row_stride;
    int64_t
        ahead;  // how many columns from here the rows of C are asked for: those of this tile or of the next
    const T* next_b;  // asked for meanwhile, too: so many rows of the next panel of B
    int64_t next_rows;
};

// What the far caches and memory hold is asked for bit by bit while the first sums are formed: the rows of C,
// then those of the next panel of B. Few and long loops, or such of a constant number of steps: leaving
// others is mispredicted each time.
template <class T, bool adjacent, int rows, int vectors>
void compute_tile(const TileTask<T>& t) {
    constexpr int far = 120 / rows, near = 24 / rows;  // products between two rows of C
    Accumulators<T, rows, vectors> acc;
    clear<T, rows, vectors>(acc);
    const T *a = t.a, *b = t.b, *c = t.c + t.ahead, *next = t.next_b;
    int64_t left = t.kc;
    const auto add = [&](int64_t steps) TINYGRAD_NM_INLINE_LAMBDA {
        add_products<T, adjacent, rows, vectors>(steps, a, t.a_step, b, t.b_step, acc);
        a += steps * (adjacent ? t.a_step : 1);
        b += steps * t.b_step;
        left -= steps;
    };
    const auto ask = [&](int steps) TINYGRAD_NM_INLINE_LAMBDA {
        for (int r = 0; r < rows && left >= steps; ++r, c += t.row_stride) {
            __builtin_prefetch(c, 1);
            if (vectors > 1) __builtin_prefetch(c + Vec<T>::lanes, 1);
            add(steps);
        }
    };
    if (left >= far * rows)
        ask(far);
    else
        ask(near);
    for (int64_t r = 0; r < t.next_rows && left > 0; ++r, next += t.b_step) {
        for (int v = 0; v < tile_vectors; ++v) __builtin_prefetch(next + v * Vec<T>::lanes, 0, next_level);
        add(1);
    }
    add(left);
    store_tile<T, rows, vectors>(acc, t.tile, t.c, t.row_stride);
}

template <class T, int rows, int vectors>
void compute_tile(const TileTask<T>& t) {
    if (t.a_adjacent)
        compute_tile<T, true, rows, vectors>(t);
    else
        compute_tile<T, false, rows, vectors>(t);
}

template <class T>
void compute_tile(const TileTask<T>& t) {
    using Compute = void (*)(const TileTask<T>&);
    static constexpr Compute of[4][tile_vectors] = {
        {compute_tile<T, tile_heights[0], 1>, compute_tile<T, tile_heights[0], 2>},
        {compute_tile<T, tile_heights[1], 1>, compute_tile<T, tile_heights[1], 2>},
        {compute_tile<T, tile_heights[2], 1>, compute_tile<T, tile_heights[2], 2>},
        {compute_tile<T, tile_heights[3], 1>, compute_tile<T, tile_heights[3], 2>}};
    of[height_class(t.tile.rows)][t.tile.columns > Vec<T>::lanes](t);
}

// A block of columns and of k. The panels of B lie one after another.
template <class T>
struct GemmBlock {
    const Gemm<T>& g;
    int64_t column, columns, depth, kc;  // first column and number of columns; first k and number
    T* b_panels;
    bool direct_a, direct_b;  // of B all panels but an incomplete last one
    bool row_wise;            // the loop over columns is the inner one
    bool alone;               // one thread computes all of it

    bool last() const { return depth + kc >= g.k; }
    const T* a(int64_t i) const { return g.a.data + i * g.a.row_stride + depth * g.a.column_stride; }
    const T* b(int64_t j) const {
        return g.b.data + depth * g.b.row_stride + (column + j) * g.b.column_stride;
    }
    T* c(int64_t i, int64_t j) const {
        return g.c.data + i * g.c.row_stride + (column + j) * g.c.column_stride;
    }
};

// Tiles whose columns are not adjacent in C go by way of a copy.
template <class T>
void compute_scattered_tile(TileTask<T> t, const Matrix<T>& c) {
    constexpr int nr = tile_columns<T>;
    T copy[tile_rows * nr];
    T* const corner = t.c;
    if (t.tile.beta != 0)
        for (int i = 0; i < t.tile.rows; ++i)
            for (int j = 0; j < t.tile.columns; ++j)
                copy[i * nr + j] = corner[i * c.row_stride + j * c.column_stride];
    t.c = copy;
    t.row_stride = nr;
    compute_tile<T>(t);
    for (int j = 0; j < t.tile.columns; ++j)
        for (int i = 0; i < t.tile.rows; ++i)
            corner[i * c.row_stride + j * c.column_stride] = copy[i * nr + j];
}

// The tile of rows [i, i + rows) and of the columns from j on; a: its panel of A, null if that is read
// directly; part: which of `parts` of the next panel of B is asked for meanwhile (parts 0: none, the next
// tile of C is).
template <class T>
TINYGRAD_NM_INLINE void compute_tile(const GemmBlock<T>& block, int64_t i, int rows, int64_t j, const T* a,
                                     int64_t part, int64_t parts) {
    constexpr int nr = tile_columns<T>;
    const Gemm<T>& g = block.g;
    const int columns = int(smaller(nr, block.columns - j));
    const bool direct_b = block.direct_b && columns == nr, transposed = g.a.row_stride == 1;
    const T* const b = direct_b ? block.b(j) : block.b_panels + j * block.kc;
    const int64_t b_step = direct_b ? g.b.row_stride : nr;
    const int64_t begin = parts ? block.kc * part / parts : 0,
                  end = parts ? block.kc * (part + 1) / parts : 0;
    const TileTask<T> t = {.kc = block.kc,
                           .a = a ? a : block.a(i),
                           .a_step = a            ? tile_rows
                                     : transposed ? g.a.column_stride
                                                  : g.a.row_stride,
                           .a_adjacent = a || transposed,
                           .b = b,
                           .b_step = b_step,
                           .tile = {i, block.column + j, rows, columns, g.alpha,
                                    block.depth == 0 ? g.beta : T(1), block.last() ? &g.epilogue : nullptr},
                           .c = block.c(i, j),
                           .row_stride = g.c.row_stride,
                           .ahead = parts ? 0 : nr,
                           .next_b = b + (direct_b ? nr : nr * block.kc) + begin * b_step,
                           .next_rows = end - begin};
    if (g.c.column_stride == 1)
        compute_tile<T>(t);
    else
        compute_scattered_tile<T>(t, g.c);
}

// Tasks of one panel; or of a few rows, read from end to end, where these are what is contiguous. What is
// small is packed by every task that needs it (see compute_task): panels travel slowly from one processor to
// another.
template <class T>
void pack_b(const GemmBlock<T>& block) {
    constexpr int nr = tile_columns<T>;
    const Matrix<const T>& b = block.g.b;
    const int64_t first = block.direct_b ? block.columns / nr : 0, panels = divide_up(block.columns, nr);
    const auto pack = [&](int64_t panel, int64_t p, int64_t depth) {
        const int64_t j = panel * nr;
        pack_panel<T, nr>(block.b_panels + j * block.kc + p * nr, block.b(j) + p * b.row_stride,
                          b.column_stride, b.row_stride, int(smaller(nr, block.columns - j)), depth);
    };
    const bool by_rows = b.column_stride == 1;
    const int64_t tasks = by_rows ? divide_up(block.kc, packed_depth) : panels - first;
    const double bytes = double((panels - first) * nr * block.kc * int64_t(sizeof(T)));
    parallel_for(panels > first ? tasks : 0, bytes / double(tasks), [&](int64_t task) {
        if (!by_rows) return pack(first + task, 0, block.kc);
        const int64_t p = task * packed_depth;
        for (int64_t panel = first; panel < panels; ++panel)
            pack(panel, p, smaller(packed_depth, block.kc - p));
    });
}

// Rows [i0, i1) and columns [j0, j1) of the block, by one thread, which packs its rows of A. They stay in the
// second-level cache and the panel of B in the first; row by row it is the other way round.
template <class T>
void compute_task(GemmBlock<T> block, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    const Scratch own(block.b_panels ? 0 : divide_up(block.columns, nr) * nr * block.kc, sizeof(T));
    if (!block.b_panels) {
        block.b_panels = static_cast<T*>(own.data);
        pack_b(block);
    }
    const Matrix<const T>& a = block.g.a;
    const int64_t kc = block.kc, panels = block.row_wise ? 1 : divide_up(i1 - i0, mr);
    const Scratch memory(panels * mr * kc, sizeof(T));
    T* const packed = static_cast<T*>(memory.data);
    const auto height = [&](int64_t i) { return int(smaller(mr, i1 - i)); };
    const auto pack = [&](int64_t i, T* panel) {
        pack_panel<T, mr>(panel, block.a(i), a.row_stride, a.column_stride, height(i), kc);
    };
    if (block.row_wise) {
        for (int64_t i = i0; i < i1; i += mr) {
            const int rows = height(i);
            const bool direct =
                block.direct_a && rows == tile_heights[height_class(rows)];  // no row too many
            if (!direct) pack(i, packed);
            for (int64_t j = j0; j < j1; j += nr)
                compute_tile<T>(block, i, rows, j, direct ? nullptr : packed, 0, 0);
        }
        return;
    }
    for (int64_t i = i0; i < i1; i += mr) pack(i, packed + (i - i0) * kc);
    for (int64_t j = j0; j < j1; j += nr)
        for (int64_t i = i0; i < i1; i += mr)
            compute_tile<T>(block, i, height(i), j, packed + (i - i0) * kc, (i - i0) / mr, panels);
}

// Tasks of some rows (loop ic), and of some panels of B (loop jr) where the rows are few.
template <class T>
void compute_block(const GemmBlock<T>& block) {
    constexpr int mr = tile_rows, nr = tile_columns<T>;
    const int64_t m = block.g.m, n = block.columns;
    const double work = 2.0 * double(m) * double(n) * double(block.kc + 1);
    const double tasks = block.alone ? 0 : work * double(sizeof(T)) / task_work;
    const int64_t wanted = 1 + int64_t(tasks < most_tasks ? tasks : most_tasks);
    const bool whole = m <= few_rows && n >= wanted * least_panels * nr;  // B is then read once
    const int64_t least = block.b_panels || block.direct_b ? least_rows : least_rows_packing;
    const int64_t rows =
        equal_block(m, whole ? m : smaller(block_rows, larger(least, divide_up(m, wanted))), mr);
    const int64_t down = divide_up(m, rows);
    const int64_t columns =
        equal_block(n, larger(least_panels * nr, divide_up(n, divide_up(wanted, down))), nr);
    const int64_t across = divide_up(n, columns);
    parallel_for(down * across, work / double(down * across), [&](int64_t task) {
        const int64_t i = task / across * rows, j = task % across * columns;
        compute_task<T>(block, i, smaller(i + rows, m), j, smaller(j + columns, n));
    });
}

template <class T>
void multiply_blocks(const Gemm<T>& g, bool alone);

// A large product falls into parts by columns, and further by rows, each of which packs what it needs for
// itself: that costs less than fetching panels from another processor's cache.
template <class T>
void multiply_strips(const Gemm<T>& g) {
    const int64_t columns =
        equal_block(g.n, divide_up(g.n, 2 * divide_up(g.n, 2 * strip_columns)), tile_columns<T>);
    const int64_t across = divide_up(g.n, columns);
    const int64_t enough = equal_block(g.m, divide_up(g.m, divide_up(strip_tasks, across)), 1);
    const int64_t rows = equal_block(g.m, smaller(strip_rows, enough), tile_rows);
    const int64_t down = divide_up(g.m, rows);
    parallel_for(across * down, 2.0 * double(rows) * double(columns) * double(g.k), [&](int64_t task) {
        const int64_t i = task % down * rows, j = task / down * columns;
        Gemm<T> part = g;
        part.m = smaller(rows, g.m - i), part.n = smaller(columns, g.n - j);
        part.a.data += i * g.a.row_stride;
        part.b.data += j * g.b.column_stride;
        part.c.data += i * g.c.row_stride + j * g.c.column_stride;
        if (part.epilogue.bias) part.epilogue.bias += part.epilogue.bias_axis == BiasAxis::rows ? i : j;
        multiply_blocks(part, true);
    });
}

// The outer loops: blocks of columns (jc) and of depth (pc).
template <class T>
void multiply_blocks(const Gemm<T>& g, bool alone) {
    constexpr int nr = tile_columns<T>;
    const bool few = g.n <= few_rows;
    const bool small_a = few && g.m * g.k * int64_t(sizeof(T)) <= direct_a_bytes;
    const bool direct_a =
        (g.n <= direct_a_panels * nr || small_a) && (g.a.row_stride == 1 || g.a.column_stride == 1);
    const int64_t b_bytes = g.k * g.n * int64_t(sizeof(T));
    const bool small_b = b_bytes <= second_level_bytes;
    const bool direct_b =
        g.b.column_stride == 1 && (small_b || (g.m <= direct_b_rows && b_bytes <= direct_b_most));
    const int64_t columns = equal_block(g.n, direct_b ? g.n : block_columns, nr);
    // Few columns: long runs of the rows of A, while all of B stays in the second-level cache. Few rows: so
    // few rows of B at a time that its columns pass by in long runs.
    const int64_t most = few ? few_bytes / (columns * int64_t(sizeof(T)))
                         : direct_b && !small_b && g.m > tile_rows ? short_depth + 1
                                                                   : block_depth<T>;
    const int64_t depth = equal_block(g.k, most, 1);
    if (!alone && !few && !direct_b && g.n >= strip_columns && g.k > few_rows) return multiply_strips(g);
    const bool own_b = few && columns * depth * int64_t(sizeof(T)) <= own_b_bytes;
    const Scratch memory(own_b || (direct_b && g.n % nr == 0) ? 0 : columns * depth, sizeof(T));
    for (int64_t jc = 0; jc < g.n; jc += columns)
        for (int64_t pc = 0; pc < larger(g.k, 1); pc += depth) {  // k = 0: one empty block writes C
            const GemmBlock<T> block = {.g = g,
                                        .column = jc,
                                        .columns = smaller(columns, g.n - jc),
                                        .depth = pc,
                                        .kc = smaller(depth, g.k - pc),
                                        .b_panels = own_b ? nullptr : static_cast<T*>(memory.data),
                                        .direct_a = direct_a,
                                        .direct_b = direct_b,
                                        .row_wise = few || depth <= short_depth,
                                        .alone = alone};
            if (!own_b) pack_b(block);
            compute_block(block);
        }
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
    if (row_fits(g)) return multiply_row(g);
    const bool columns_adjacent = g.c.column_stride == 1 || g.c.row_stride != 1;
    // Weights (n, k) times few examples: the weights become the operand that is not packed.
    const bool large_b = g.b.row_stride == 1 && g.b.column_stride != 1 && g.m < g.n && g.m <= few_rows;
    multiply_blocks(columns_adjacent != large_b ? g : transposed(g), false);
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
