// How threads go over all places of many planes (planes, height, width): without a division, since
// coordinates come from those of the thread and the block. Columns lie on x, rows on y, planes on z of a
// block, so that neighbouring threads have neighbours in memory; columns on z, rows on y and planes on x of
// the grid.
#pragma once
#include "cuda/launch.cuh"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

constexpr int plane_threads = 256;  // of a block at most
constexpr int64_t most_plane_blocks = 1 << 12;

struct PlaneBlocks {
    dim3 grid, block;
};

// The size of the parts when `count` is cut into as few as possible, of at most `most` each, all alike.
inline int64_t evenly(int64_t count, int64_t most) {
    const int64_t parts = (count + most - 1) / most;
    return parts > 1 ? (count + parts - 1) / parts : count;
}

// For positive sizes. Blocks of up to `threads` threads; where there are more places than `most` blocks have,
// blocks go on to the next.
inline PlaneBlocks blocks_over(int64_t planes, int64_t height, int64_t width, int64_t threads = plane_threads,
                               int64_t most = most_plane_blocks) {
    const int64_t columns = evenly(width, threads), rows = evenly(height, threads / columns);
    const int64_t room = threads / (columns * rows), deep = evenly(planes, room < 64 ? room : 64);
    const auto blocks = [](int64_t count, int64_t size, int64_t most) {
        const int64_t all = (count + size - 1) / size;
        return all < most ? all : most;
    };
    const int64_t across = blocks(width, columns, most), down = blocks(height, rows, most / across);
    return {dim3(unsigned(blocks(planes, deep, most / (across * down))), unsigned(down), unsigned(across)),
            dim3(unsigned(columns), unsigned(rows), unsigned(deep))};
}

// body(row, column) for this thread's places of a plane.
template <class Place, class Body>
__device__ __forceinline__ void for_places(Place height, Place width, const Body& body) {
    const Place down = Place(gridDim.y * blockDim.y), across = Place(gridDim.z * blockDim.x);
    for (Place column = Place(blockIdx.z * blockDim.x + threadIdx.x); column < width; column += across)
        for (Place row = Place(blockIdx.y * blockDim.y + threadIdx.y); row < height; row += down)
            body(row, column);
}

// body(plane) for this thread's planes.
template <class Body>
__device__ __forceinline__ void for_planes(int64_t planes, const Body& body) {
    const int64_t step = int64_t(gridDim.x) * blockDim.z;
    for (int64_t plane = int64_t(blockIdx.x) * blockDim.z + threadIdx.z; plane < planes; plane += step)
        body(plane);
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
