// One kernel for each kind of fault that the device must find, and its repaired twin, which must be clean.
// The line of a fault is the one that ends with "// fault: <kernel>".
#pragma once
#include "device_test.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr const char* faults_file = __FILE__;

// All kernels take these: 64 results, 64 operands, scratch memory for 64 numbers.
#define ARGUMENTS \
    [[maybe_unused]] float *out, [[maybe_unused]] const float *x, [[maybe_unused]] float *scratch
#define OWN (blockIdx.x * blockDim.x + threadIdx.x)

// ---- bounds and alignment --------------------------------------------------------------------------------

template <bool repaired>
__global__ void behind_the_end(ARGUMENTS) {
    if (!repaired || OWN < 64) out[OWN] = 1;  // fault: behind_the_end
}
template <bool repaired>
__global__ void before_the_begin(ARGUMENTS) {
    const int i = int(OWN);
    out[i] = x[repaired && i == 0 ? 0 : i - 1];  // fault: before_the_begin
}
template <bool repaired>
__global__ void across_the_end(ARGUMENTS) {
    const float4 four = *reinterpret_cast<const float4*>(x + (repaired ? 60 : 64));  // fault: across_the_end
    out[0] = four.x;
}
template <bool repaired>
__global__ void behind_shared(ARGUMENTS) {
    SHARED(float, tile, [64]);
    float* const end = tile + 63;
    end[repaired ? 0 : 1] = 1;  // fault: behind_shared
}
template <bool repaired>
__global__ void behind_dynamic_shared(ARGUMENTS) {
    DYNAMIC_SHARED(float, tile);
    tile[repaired ? 31 : 32] = 1;  // fault: behind_dynamic_shared
}
template <bool repaired>
__global__ void behind_a_row(ARGUMENTS) {
    SHARED(float, tile, [4][16]);
    tile[1][OWN + (repaired ? 0 : 1)] = 1;  // fault: behind_a_row
}
template <bool repaired>
__global__ void behind_registers(ARGUMENTS) {
    float acc[4] = {};
    for (int i = 0; i < int(blockDim.x) + (repaired ? 3 : 4); ++i) acc[i] += x[i];  // fault: behind_registers
    out[0] = acc[0];
}
template <bool repaired>
__global__ void divides_by_zero(ARGUMENTS) {
    const unsigned parts = gridDim.x - (repaired ? 0 : 1);
    out[0] = float(7 / parts);  // fault: divides_by_zero
}
template <bool repaired>
__global__ void misaligned_vector(ARGUMENTS) {
    float4* const to = reinterpret_cast<float4*>(out + (repaired ? 4 : 1));
    *to = make_float4(1, 2, 3, 4);  // fault: misaligned_vector
}
template <bool repaired>
__global__ void misaligned_shared_vector(ARGUMENTS) {
    SHARED(float, tile, [8]);
    float2* const to = reinterpret_cast<float2*>(tile + (repaired ? 2 : 3));
    *to = make_float2(1, 2);  // fault: misaligned_shared_vector
}
template <bool repaired>
__global__ void misaligned_copy(ARGUMENTS) {
    SHARED(float, tile, [8]);
    copy_bytes<8>(tile, x + (repaired ? 2 : 1));  // fault: misaligned_copy
    commit_copies();
    wait_copies<0>();
}

// ---- memory never written, or not to be written ----------------------------------------------------------

template <bool repaired>
__global__ void shared_never_written(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x + (repaired ? 0 : 32)];  // fault: shared_never_written
}
template <bool repaired>
__global__ void shared_of_the_block_before(ARGUMENTS) {
    SHARED(float, tile, [1]);
    if (repaired || blockIdx.x == 0) tile[0] = 1;
    out[blockIdx.x] = tile[0];  // fault: shared_of_the_block_before
}
template <bool repaired>
__global__ void scratch_never_written(ARGUMENTS) {
    if (repaired) scratch[5] = 1;
    out[0] = scratch[5];  // fault: scratch_never_written
}
template <bool repaired>
__global__ void result_read_before_written(ARGUMENTS) {
    if (repaired) out[0] = 0;
    out[0] += x[0];  // fault: result_read_before_written
}
template <bool repaired>
__global__ void operand_written(ARGUMENTS) {
    (repaired ? out : const_cast<float*>(x))[threadIdx.x] = 1;  // fault: operand_written
}

// ---- barriers and warps ----------------------------------------------------------------------------------

template <bool repaired>
__global__ void barrier_not_reached(ARGUMENTS) {
    if (repaired || threadIdx.x < 16) __syncthreads();  // fault: barrier_not_reached
}
template <bool repaired>
__global__ void different_barriers(ARGUMENTS) {
    if (repaired || threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();  // fault: different_barriers
}
template <bool repaired>
__global__ void lane_does_not_come(ARGUMENTS) {
    if (repaired || threadIdx.x != 3) __syncwarp();  // fault: lane_does_not_come
}
template <bool repaired>
__global__ void not_in_its_mask(ARGUMENTS) {
    __syncwarp(repaired || threadIdx.x < 16 ? 0xffffffffu : 0xffffu);  // fault: not_in_its_mask
}
template <bool repaired>
__global__ void reads_an_absent_lane(ARGUMENTS) {
    if (threadIdx.x >= 16) return;
    __shfl_sync(0xffffu, 1.0f, repaired ? 15 : 16);  // fault: reads_an_absent_lane
}
template <bool repaired>
__global__ void different_warp_operations(ARGUMENTS) {
    if (repaired || threadIdx.x < 16)
        __any_sync(0xffffffffu, 1);
    else
        __any_sync(0xffffffffu, 1);  // fault: different_warp_operations
}
template <bool repaired>
__global__ void shuffle_of_a_wrong_width(ARGUMENTS) {
    __shfl_xor_sync(0xffffffffu, 1, 1, repaired ? 16 : 12);  // fault: shuffle_of_a_wrong_width
}

// ---- races -----------------------------------------------------------------------------------------------

template <bool repaired>
__global__ void read_without_barrier(ARGUMENTS) {
    SHARED(float, tile, [32]);
    tile[threadIdx.x] = 1;
    if (repaired) __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x & ~1];  // fault: read_without_barrier
}
template <bool repaired>
__global__ void overwritten_without_barrier(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x ^ 32];
    if (repaired) __syncthreads();
    if (threadIdx.x >= 32) tile[threadIdx.x] = 2;  // fault: overwritten_without_barrier
}
template <bool repaired>
__global__ void read_by_all_and_written(ARGUMENTS) {
    SHARED(float, tile, [1]);
    if (threadIdx.x == 0) tile[0] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[0];
    if (repaired) __syncthreads();
    if (threadIdx.x == 63) tile[0] = 2;  // fault: read_by_all_and_written
}
template <bool repaired>
__global__ void two_writes(ARGUMENTS) {
    SHARED(float, tile, [32]);
    tile[repaired ? threadIdx.x : threadIdx.x / 2] = 1;  // fault: two_writes
}
template <bool repaired>
__global__ void two_writes_of_a_result(ARGUMENTS) {
    out[repaired ? threadIdx.x : 7] = 1;  // fault: two_writes_of_a_result
}
template <bool repaired>
__global__ void lanes_in_step(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    if (repaired) __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x & ~1];  // fault: lanes_in_step
}
// A shuffle does not order memory, and a __syncwarp orders that of its own lanes alone.
template <bool repaired>
__global__ void shuffle_is_no_barrier(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    if (!repaired) __shfl_sync(0xffffffffu, 1, 0);
    if (repaired) __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x ^ 1];  // fault: shuffle_is_no_barrier
}
template <bool repaired>
__global__ void syncwarp_for_two_warps(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x ^ (repaired ? 31 : 32)];  // fault: syncwarp_for_two_warps
}
template <bool repaired>
__global__ void syncwarp_of_half_a_warp(ARGUMENTS) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    __syncwarp(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u);
    out[threadIdx.x] = tile[threadIdx.x ^ (repaired ? 15 : 16)];  // fault: syncwarp_of_half_a_warp
}
template <bool repaired>
__global__ void atomic_and_plain(ARGUMENTS) {
    SHARED(int, count, [1]);
    if (threadIdx.x == 0) count[0] = 0;
    __syncthreads();
    atomicAdd(&count[0], 1);
    if (repaired) __syncthreads();
    if (threadIdx.x == 63) out[0] = float(count[0]);  // fault: atomic_and_plain
}
template <bool repaired>
__global__ void blocks_write_the_same(ARGUMENTS) {
    if (threadIdx.x == 0) out[repaired ? blockIdx.x : 0] = 1;  // fault: blocks_write_the_same
}
template <bool repaired>
__global__ void block_reads_another_s(ARGUMENTS) {
    out[OWN] = 1;
    scratch[OWN] = out[repaired ? OWN : OWN % 32];  // fault: block_reads_another_s
}
template <bool repaired>
__global__ void block_overwrites_another_s(ARGUMENTS) {
    const float mine = x[OWN];
    out[OWN] = mine;
    scratch[OWN] = mine;
    if (blockIdx.x == 1 && !repaired) scratch[threadIdx.x] = 2;  // fault: block_overwrites_another_s
}

// ---- asynchronous copies ---------------------------------------------------------------------------------

template <bool repaired>
__global__ void missing_wait(ARGUMENTS) {
    SHARED(float, tile, [32]);
    copy_number(&tile[threadIdx.x], x + threadIdx.x);
    commit_copies();
    if (repaired) wait_copies<0>();
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x ^ 1];  // fault: missing_wait
}
template <bool repaired>
__global__ void missing_commit(ARGUMENTS) {
    SHARED(float, tile, [32]);
    copy_number(&tile[threadIdx.x], x + threadIdx.x);
    if (repaired) commit_copies();
    wait_copies<0>();
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x ^ 1];  // fault: missing_commit
}
template <bool repaired>
__global__ void waits_for_too_few(ARGUMENTS) {
    SHARED(float, tile, [2][32]);
    for (int i = 0; i < 2; ++i) {
        copy_number(&tile[i][threadIdx.x], x + threadIdx.x);
        commit_copies();
    }
    wait_copies<1>();
    __syncthreads();
    out[threadIdx.x] = tile[repaired ? 0 : 1][threadIdx.x ^ 1];  // fault: waits_for_too_few
    wait_copies<0>();
}
template <bool repaired>
__global__ void missing_barrier_after_wait(ARGUMENTS) {
    SHARED(float, tile, [32]);
    copy_number(&tile[threadIdx.x], x + threadIdx.x);
    commit_copies();
    wait_copies<0>();
    if (repaired) __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x & ~1];  // fault: missing_barrier_after_wait
}
// The copy may be performed before the other threads have read what was there.
template <bool repaired>
__global__ void copies_over_what_is_read(ARGUMENTS) {
    SHARED(float, tile, [32]);
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x | 1];
    if (repaired) __syncthreads();
    copy_number(&tile[threadIdx.x], x + threadIdx.x);  // fault: copies_over_what_is_read
    commit_copies();
    __syncthreads();
    wait_copies<0>();
}
template <bool repaired>
__global__ void copies_twice(ARGUMENTS) {
    SHARED(float, tile, [32]);
    copy_number(&tile[threadIdx.x], x + threadIdx.x);
    commit_copies();
    if (repaired) wait_copies<0>();
    copy_number(&tile[threadIdx.x], x + threadIdx.x);  // fault: copies_twice
    commit_copies();
    wait_copies<0>();
}
template <bool repaired>
__global__ void ends_before_the_copy(ARGUMENTS) {
    SHARED(float, tile, [32]);
    copy_number(&tile[threadIdx.x], x + threadIdx.x);  // fault: ends_before_the_copy
    commit_copies();
    if (repaired) wait_copies<0>();
}
template <bool repaired>
__global__ void copies_from_behind_the_end(ARGUMENTS) {
    SHARED(float, tile, [32]);
    const float* const from = x + threadIdx.x + (repaired ? 0 : 64);
    copy_number(&tile[threadIdx.x], from);  // fault: copies_from_behind_the_end
    commit_copies();
    wait_copies<0>();
}

// ---- the table -------------------------------------------------------------------------------------------

struct Arrays {
    float* out;
    const float* x;
    float* scratch;
};
struct Fault {
    const char* kernel;
    void (*faulty)(const Arrays&);
    void (*repaired)(const Arrays&);
    const char* place;  // "block (2, 0, 0), thread (0, 0, 0)"
    const char* what;
    bool in_fast = false;  // a fast build finds it as well
};
#define FAULT(kernel, grid, threads, ...)                                                             \
    {                                                                                                 \
#kernel, [](const Arrays& a) { LAUNCH(kernel<false>, grid, threads, 128, a.out, a.x, a.scratch); }, \
     [](const Arrays& a) { LAUNCH(kernel<true>, grid, threads, 128, a.out, a.x, a.scratch); }, __VA_ARGS__ \
    }
#define FIRST "block (0, 0, 0), thread (0, 0, 0)"
#define SECOND "block (0, 0, 0), thread (1, 0, 0)"

const Fault faults[] = {
    FAULT(behind_the_end, 3, 32, "block (2, 0, 0), thread (0, 0, 0)",
          "writes 4 bytes, 0 bytes behind the end of out, which has 256 bytes"),
    FAULT(before_the_begin, 2, 32, FIRST, "reads 4 bytes, 4 bytes before the begin of x"),
    FAULT(across_the_end, 1, 1, FIRST, "bytes behind the end of x, which has 256 bytes"),
    FAULT(behind_shared, 1, 1, FIRST, "writes 4 bytes, 0 bytes behind the end of tile, which has 256 bytes"),
    FAULT(behind_dynamic_shared, 1, 1, FIRST,
          "writes 4 bytes, 0 bytes behind the end of dynamic shared memory, which has 128 bytes"),
    FAULT(behind_a_row, 1, 16, "block (0, 0, 0), thread (15, 0, 0)",
          "uses element 16 of an array of type 'float [16]'"),
    FAULT(behind_registers, 1, 1, FIRST, "uses element 4 of an array of type 'float [4]'"),
    FAULT(divides_by_zero, 1, 1, FIRST, "divides a whole number by zero"),
    FAULT(misaligned_vector, 1, 1, FIRST, "of out at an address that is not a multiple of 16"),
    FAULT(misaligned_shared_vector, 1, 1, FIRST, "of tile at an address that is not a multiple of 8"),
    FAULT(misaligned_copy, 1, 1, FIRST, "an address that is not a multiple of"),

    FAULT(shared_never_written, 1, 32, FIRST, "reads element 32 of tile, where nothing was written"),
    FAULT(shared_of_the_block_before, 2, 1, "block (1, 0, 0), thread (0, 0, 0)",
          "reads element 0 of tile, where nothing was written"),
    FAULT(scratch_never_written, 1, 1, FIRST, "reads element 5 of scratch memory, where nothing was written"),
    FAULT(result_read_before_written, 1, 1, FIRST, "reads element 0 of out, where nothing was written"),
    FAULT(operand_written, 1, 32, FIRST, "writes element 0 of x, which the kernel may only read"),

    FAULT(
        barrier_not_reached, 1, 32, FIRST,
        "waits at a barrier that 16 of 32 threads do not reach, thread (16, 0, 0) the first of them:", true),
    FAULT(different_barriers, 1, 32, "block (0, 0, 0), thread (16, 0, 0)",
          "waits at another barrier than thread (0, 0, 0), which waits at faults.cuh:", true),
    FAULT(lane_does_not_come, 1, 64, FIRST, "waits for lanes of its warp that do not come", true),
    FAULT(not_in_its_mask, 1, 32, "block (0, 0, 0), thread (16, 0, 0)",
          "is not in the mask of its own warp operation", true),
    FAULT(reads_an_absent_lane, 1, 32, FIRST, "reads a lane that is not in the mask", true),
    FAULT(different_warp_operations, 1, 32, "block (0, 0, 0), thread (16, 0, 0)",
          "is in another operation of its warp than thread (0, 0, 0), which is at faults.cuh:", true),
    FAULT(shuffle_of_a_wrong_width, 1, 32, FIRST,
          "shuffles groups of lanes whose number is no power of two up to 32", true),

    FAULT(read_without_barrier, 1, 32, SECOND,
          "reads element 0 of tile, which thread (0, 0, 0) has written, without a barrier in between"),
    FAULT(overwritten_without_barrier, 1, 64, "block (0, 0, 0), thread (32, 0, 0)",
          "writes element 32 of tile, which thread (0, 0, 0) has read, without a barrier in between"),
    FAULT(read_by_all_and_written, 1, 64, "block (0, 0, 0), thread (63, 0, 0)",
          "writes element 0 of tile, which several threads have read, without a barrier in between"),
    FAULT(two_writes, 1, 32, SECOND,
          "writes element 0 of tile, which thread (0, 0, 0) has written, without a barrier in between"),
    FAULT(two_writes_of_a_result, 1, 32, SECOND,
          "writes element 7 of out, which thread (0, 0, 0) has written, without a barrier in between"),
    FAULT(lanes_in_step, 1, 64, SECOND,
          "reads element 0 of tile, which thread (0, 0, 0) has written, without"),
    FAULT(shuffle_is_no_barrier, 1, 64, FIRST,
          "which thread (1, 0, 0) has written, without a barrier in between"),
    FAULT(syncwarp_for_two_warps, 1, 64, FIRST, "which thread (32, 0, 0) has written"),
    FAULT(syncwarp_of_half_a_warp, 1, 64, FIRST, "which thread (16, 0, 0) has written"),
    FAULT(atomic_and_plain, 1, 64, "block (0, 0, 0), thread (63, 0, 0)",
          "reads element 0 of count, which several threads have written, without"),
    FAULT(blocks_write_the_same, 2, 32, "block (1, 0, 0), thread (0, 0, 0)",
          "writes element 0 of out, which another block has written: blocks are in no order"),
    FAULT(block_reads_another_s, 2, 32, "block (1, 0, 0), thread (0, 0, 0)",
          "reads element 0 of out, which another block has written: blocks are in no order"),
    FAULT(block_overwrites_another_s, 2, 32, "block (1, 0, 0), thread (0, 0, 0)",
          "writes element 0 of scratch memory, which another block has written: blocks are in no order"),

    FAULT(missing_barrier_after_wait, 1, 32, SECOND,
          "reads element 0 of tile, which thread (0, 0, 0) has written, without"),
    FAULT(copies_over_what_is_read, 1, 32, SECOND,
          "element 1 of tile, which several threads have read, without"),
    FAULT(copies_from_behind_the_end, 1, 32, FIRST, "reads 4 bytes, 0 bytes behind the end of x"),
#if __CUDA_ARCH__ >= 800
    FAULT(missing_wait, 1, 32, FIRST,
          "reads element 1 of tile, to which an asynchronous copy has not been waited for"),
    FAULT(missing_commit, 1, 32, FIRST,
          "reads element 1 of tile, to which an asynchronous copy has not been waited for"),
    FAULT(waits_for_too_few, 1, 32, FIRST,
          "reads element 33 of tile, to which an asynchronous copy has not been waited for"),
    FAULT(copies_twice, 1, 32, FIRST,
          "copies to element 0 of tile, to which an asynchronous copy has not been waited for"),
    FAULT(ends_before_the_copy, 1, 32, FIRST, "ends with an asynchronous copy that it has not waited for",
          true),
#endif
};

}  // namespace
}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
