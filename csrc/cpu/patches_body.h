// Patches of images as a matrix that is never stored: gathered straight into GEMM panels.
//
// The results of a correlation (image, row, column) are cut into blocks. The part of the source that a block
// reads is copied once, with its zero padding, into a window; in a window the element for a result and a tap
// (channel, i, j) lies at offset(result) + offset(tap), without any test for borders. So a panel, whichever
// of the two runs along its lanes, is gathered by two tables of offsets.
#pragma once
#include "cpu/arena.h"
#include "cpu/parallel.h"
#include "cpu/tile_body.h"

namespace tinygrad_nm {
namespace {

// Along one axis: result r and tap i read source[r * step + i * tap_step - before], 0 outside of [0, size).
struct Axis {
    int64_t size, results, taps, step, tap_step, before;

    int64_t extent(int64_t some_results) const {
        return (some_results - 1) * step + (taps - 1) * tap_step + 1;
    }
};

constexpr int64_t most_positions = 512;  // results in a block
constexpr int64_t enough_tasks = 16;     // fewer leave threads idle: blocks are made smaller

// Results in a block so that `all` of them give enough tasks.
template <class T>
int64_t task_positions(int64_t all) {
    constexpr int64_t unit = tile_columns<T>;
    return larger(unit, smaller(divide_up(divide_up(all, enough_tasks), unit) * unit, most_positions));
}

struct PositionBlock {
    int64_t image, images, row, rows, column, columns;  // first and number

    int64_t positions() const { return images * rows * columns; }
};

// Cuts a batch of results into blocks of whole images, else of rows of one image, else of parts of a row.
struct BlockPlan {
    int64_t batch, height, width;
    int64_t images, rows, columns;  // of a block; the last ones may be smaller

    BlockPlan(int64_t batch, int64_t height, int64_t width, int64_t positions)
        : batch(batch), height(height), width(width) {
        columns = equal_block(width, positions, 1);
        rows = columns < width ? 1 : equal_block(height, larger(1, positions / width), 1);
        images = rows < height ? 1 : equal_block(batch, larger(1, positions / (rows * columns)), 1);
        if (columns < width) images = 1;
    }
    int64_t count() const {
        return divide_up(batch, images) * divide_up(height, rows) * divide_up(width, columns);
    }
    PositionBlock operator[](int64_t index) const {
        const int64_t across = divide_up(width, columns), down = divide_up(height, rows);
        const int64_t image = index / (across * down) * images;
        const int64_t row = index / across % down * rows, column = index % across * columns;
        return {image,  smaller(images, batch - image),  row, smaller(rows, height - row),
                column, smaller(columns, width - column)};
    }
};

// Distances between neighbours of an array (image or channel, row, column).
struct Strides {
    int64_t outer, row, column;
};

// table[p] = where position p of the block lies, counted from the block's first position.
void position_offsets(const PositionBlock& block, const Strides& strides, int64_t* table) {
    for (int64_t n = 0; n < block.images; ++n)
        for (int64_t y = 0; y < block.rows; ++y)
            for (int64_t x = 0; x < block.columns; ++x)
                *table++ = n * strides.outer + y * strides.row + x * strides.column;
}

// table[t] = where tap first + t lies; taps count through channel, i, j.
void tap_offsets(int64_t first, int64_t count, int64_t taps_y, int64_t taps_x, const Strides& strides,
                 int64_t* table) {
    if (count == 0) return;
    int64_t c = first / (taps_y * taps_x), i = first / taps_x % taps_y, j = first % taps_x;
    for (int64_t t = 0; t < count; ++t) {
        table[t] = c * strides.outer + i * strides.row + j * strides.column;
        if (++j < taps_x) continue;
        j = 0;
        if (++i < taps_y) continue;
        i = 0;
        ++c;
    }
}

// Images (batch, channels, y.size, x.size) whose rows are contiguous.
template <class T>
struct Images {
    const T* data;
    int64_t image_stride, channel_stride;
    Axis y, x;
};

// Layout (image, channel, row, column) of the copied source of blocks of at most the plan's size.
struct WindowLayout {
    int64_t channels, height, width;

    WindowLayout(int64_t channels, const Axis& y, const Axis& x, const BlockPlan& plan)
        : channels(channels), height(y.extent(plan.rows)), width(x.extent(plan.columns)) {}
    int64_t image_stride() const { return channels * height * width; }
    Strides positions(const Axis& y, const Axis& x) const { return {image_stride(), y.step * width, x.step}; }
    Strides taps(const Axis& y, const Axis& x) const {
        return {height * width, y.tap_step * width, x.tap_step};
    }
};

// Copies what `block` reads of channels [channel, channel + channels) with its padding.
template <class T>
void copy_window(const Images<T>& source, const PositionBlock& block, int64_t channel, int64_t channels,
                 const WindowLayout& layout, T* window) {
    const int64_t top = block.row * source.y.step - source.y.before;
    const int64_t left = block.column * source.x.step - source.x.before;
    const int64_t height = source.y.extent(block.rows), width = source.x.extent(block.columns);
    const int64_t begin = smaller(larger(-left, 0), width);  // columns [begin, end) are inside of the source
    const int64_t end = larger(smaller(source.x.size - left, width), begin);
    for (int64_t n = 0; n < block.images; ++n)
        for (int64_t c = 0; c < channels; ++c) {
            const T* plane =
                source.data + (block.image + n) * source.image_stride + (channel + c) * source.channel_stride;
            T* row = window + (n * layout.channels + c) * layout.height * layout.width;
            for (int64_t y = top; y < top + height; ++y, row += layout.width) {
                const bool inside = y >= 0 && y < source.y.size && begin < end;
                const int64_t from = inside ? begin : 0, to = inside ? end : 0;
                for (int64_t i = 0; i < from; ++i) row[i] = 0;
                if (inside)
                    memcpy(row + from, plane + y * source.x.size + left + from,
                           size_t(to - from) * sizeof(T));
                for (int64_t i = to; i < width; ++i) row[i] = 0;
            }
        }
}

// The lanes of a panel as runs of adjacent elements.
template <class T>
struct Lanes {
    static constexpr int width = tile_columns<T>;
    // A run is copied with whole vectors, which may read and write beyond it: what they write there is the
    // place of the next run, of the next row of the panel, or the slack behind panel and window.
    static constexpr int64_t slack = 2 * width;

    int runs = 0;
    int start[width], vectors[width];
    int64_t offset[width];
    const int64_t* lanes;
    int used;

    Lanes(const int64_t* offsets, int used) : lanes(offsets), used(used) {
        for (int l = 0; l < used; ++l) {
            if (l > 0 && offsets[l] == offsets[l - 1] + 1) continue;
            start[runs] = l;
            offset[runs++] = offsets[l];
        }
        for (int r = 0; r < runs; ++r) {
            const int end = r + 1 < runs ? start[r + 1] : width;
            vectors[r] = int(divide_up(end - start[r], Vec<T>::lanes));
        }
    }
};

// panel[k * width + l] = window[rows[k] + lane offset l] for k < depth; the unused lanes hold anything.
template <class T>
void gather_panel(T* panel, const T* window, const int64_t* rows, int64_t depth, const Lanes<T>& lanes) {
    constexpr int width = Lanes<T>::width, vector = Vec<T>::lanes;
    if (lanes.runs == 1) {
        for (int64_t k = 0; k < depth; ++k)
            memcpy(panel + k * width, window + rows[k] + lanes.offset[0], width * sizeof(T));
        return;
    }
    if (lanes.runs * 2 <= width) {
        for (int64_t k = 0; k < depth; ++k, panel += width)
            for (int r = 0; r < lanes.runs; ++r)
                for (int v = 0; v < lanes.vectors[r]; ++v)
                    Vec<T>::load(window + rows[k] + lanes.offset[r] + v * vector)
                        .store(panel + lanes.start[r] + v * vector);
        return;
    }
    int64_t offset[width];
    for (int l = 0; l < width; ++l) offset[l] = lanes.lanes[l < lanes.used ? l : lanes.used - 1];
    for (int64_t k = 0; k < depth; ++k, panel += width) {
        const T* row = window + rows[k];
        for (int l = 0; l < width; ++l) panel[l] = row[offset[l]];
    }
}

}  // namespace
}  // namespace tinygrad_nm
