// The gradient of a convolution in w (shared/conv2d.h): the product of dy and patches, summed over all
// positions.
#include "cuda/conv2d_loaders.cuh"
#include "cuda/conv2d_winograd.cuh"
#include "cuda/kernels.cuh"
#include "cuda/tile.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

template <class T>
struct WeightProduct {
    Conv2dShape s;
    const T *x, *dy;
    T* to;  // (parts, as w)
    int64_t weights, results;
    ResultStep step;
    Split split;
    int64_t row_tiles, column_tiles, blocks;
};

// to[part, o, c, i, j] = sum over the part's results p = (n, oh, ow) of
// dy[p, o] * patch[p, group(o), c, i, j]. A block's tile is filters o by weights (c, i, j) of one group. The
// sum is long and the tiles are few: so it is split.
template <class T, class Tile, class Index>
__global__ void __launch_bounds__(Tile::threads, least_blocks<Tile>)
    conv2d_weights(const WeightProduct<T> g) {
    SHARED(Tap<Index>, weights, [Tile::columns]);  // beyond the last there is the last again
    const Conv2dShape& s = g.s;
    Index part = block_index<Index>();
    if (part >= Index(g.blocks)) return;
    const Index m0 = take(part, Index(g.row_tiles)) * Tile::rows;
    const Index j0 = take(part, Index(g.column_tiles)) * Tile::columns;
    const Index group = take(part, Index(s.groups)), p_begin = part * Index(g.split.length);
    const Index left = Index(g.weights) - j0;
    for (int j = threadIdx.x; j < Tile::columns; j += Tile::threads)
        weights[j] = tap_of_weight<Index>(j0 + (j < left ? j : left - 1), s);
    __syncthreads();

    const int64_t o0 = group * s.group_filters + m0, c0 = group * s.group_channels;
    ResultLoader<T, Tile, Index> dy(g.dy + o0 * (s.out_h * s.out_w), Index(s.group_filters) - m0, s, g.step,
                                    p_begin, g.results);
    WindowLoader<T, Tile, Index> x(g.x + c0 * (s.height * s.width), weights, s, g.step, p_begin, g.results);
    T acc[Tile::thread_rows][Tile::thread_columns] = {};
    multiply_tile<T, Tile>(acc, dy, x, p_begin, p_begin + g.split.length);

    T* const to = g.to + part * (s.filters * g.weights) + o0 * g.weights + j0;
#pragma unroll
    for (int i = 0; i < Tile::thread_rows; ++i)
#pragma unroll
        for (int j = 0; j < Tile::thread_columns; ++j) {
            const int row = Tile::row(i), column = Tile::column(j);
            if (m0 + row < s.group_filters && column < left) to[row * g.weights + column] = acc[i][j];
        }
}

template <class T, class Tile, class Index>
void multiply_windows(const Conv2dBackwardWeight<T>& a) {
    const Conv2dShape& s = a.shape;
    WeightProduct<T> g{};
    g.s = s, g.x = a.x, g.dy = a.dy;
    g.weights = s.group_channels * s.kernel_h * s.kernel_w, g.results = s.batch * s.out_h * s.out_w;
    const int64_t plane = s.out_h * s.out_w;
    g.step = {Tile::depth / plane, Tile::depth % plane, Tile::depth % plane / s.out_w, Tile::depth % s.out_w};
    g.row_tiles = tiles_of(s.group_filters, Tile::rows), g.column_tiles = tiles_of(g.weights, Tile::columns);
    const int64_t tiles = g.row_tiles * g.column_tiles * s.groups, size = s.filters * g.weights;
    g.split = split_sum(g.results, Tile::depth, tiles, Tile::threads);
    const Scratch<T> partial(g.split.parts > 1 ? g.split.parts * size : 0);
    g.to = g.split.parts > 1 ? partial.data() : a.out;
    g.blocks = tiles * g.split.parts;
    LAUNCH((conv2d_weights<T, Tile, Index>), grid_of(g.blocks), Tile::threads, 0, g);
    if (g.split.parts > 1) add_parts<T>({a.out, partial.data(), g.split.parts, size});
}

template <class T, class Tile>
constexpr TileRow<Conv2dBackwardWeight<T>> tile_row(double cost) {
    return {Tile::rows, Tile::columns, cost, multiply_windows<T, Tile, int32_t>};
}
template <class T>
struct Tiles;
template <>
struct Tiles<float> {
    using Smallest = ProductTile<16, 64, 8, 4, 4>;
    static constexpr TileRow<Conv2dBackwardWeight<float>> rows[] = {
        tile_row<float, ProductTile<128, 128, 8, 8, 8>>(1.0),
        tile_row<float, ProductTile<64, 64, 8, 8, 8>>(1.1),
        tile_row<float, Smallest>(1.8),
    };
};
template <>
struct Tiles<double> {
    using Smallest = ProductTile<16, 64, 8, 4, 4>;
    static constexpr TileRow<Conv2dBackwardWeight<double>> rows[] = {
        tile_row<double, ProductTile<64, 64, 8, 4, 4>>(1.0),
        tile_row<double, Smallest>(1.2),
    };
};

}  // namespace

template <class T>
void conv2d_backward_weight(const Conv2dBackwardWeight<T>& a) {
    if (winograd_applies(a.shape, a.winograd)) return conv2d_winograd_backward_weight(a);
    const Conv2dShape& s = a.shape;
    if (s.batch == 0)
        return add_parts<T>({a.out, nullptr, 0, s.filters * s.group_channels * s.kernel_h * s.kernel_w});
    if (!fits_32_bits(s)) return multiply_windows<T, typename Tiles<T>::Smallest, int64_t>(a);
    best_tile(Tiles<T>::rows, s.group_filters, s.group_channels * s.kernel_h * s.kernel_w).run(a);
}
template void conv2d_backward_weight<float>(const Conv2dBackwardWeight<float>&);
template void conv2d_backward_weight<double>(const Conv2dBackwardWeight<double>&);

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
