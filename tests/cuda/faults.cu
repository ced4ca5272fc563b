// One kernel for each kind of fault that the strict device must find, and its repaired twin.
#include "cuda/launch.cuh"

namespace faults {

template <bool repaired>
__global__ void out_of_bounds(float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (!repaired || i < n) out[i] = 1;  // FAULT 0
}
template <bool repaired>
__global__ void out_of_shared_bounds(float* out) {
    SHARED(float, tile, [32]);
    tile[threadIdx.x + (repaired ? 0 : 1)] = 1;  // FAULT 1
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}
template <bool repaired>
__global__ void misaligned(float* out) {
    *reinterpret_cast<float4*>(out + (repaired ? 4 : 1)) = make_float4(1, 2, 3, 4);  // FAULT 2
}
template <bool repaired>
__global__ void never_written(float* out) {
    SHARED(float, tile, [64]);
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x + (repaired ? 0 : 32)];  // FAULT 3
}
template <bool repaired>
__global__ void barrier_not_reached(float* out) {
    if (repaired || threadIdx.x < 16) __syncthreads();  // FAULT 4
    out[threadIdx.x] = 1;
}
template <bool repaired>
__global__ void race_in_block(float* out) {
    SHARED(float, tile, [32]);
    tile[threadIdx.x] = 0;
    __syncthreads();
    tile[threadIdx.x] = float(threadIdx.x);  // FAULT 5
    if (repaired) __syncthreads();
    out[threadIdx.x] = tile[31 - threadIdx.x];
}
template <bool repaired>
__global__ void race_between_blocks(float* out) {
    if (threadIdx.x == 0) out[repaired ? blockIdx.x : 0] = 1;  // FAULT 6
}
template <bool repaired>
__global__ void missing_wait(float* out, const float* x) {
    SHARED(float, tile, [32]);
    COPY_ASYNC(4, &tile[threadIdx.x], x + threadIdx.x);
    COMMIT_COPIES();
    if (repaired) WAIT_COPIES(0);
    __syncthreads();
    out[threadIdx.x] = tile[31 - threadIdx.x];  // FAULT 7
    WAIT_COPIES(0);
}

// Runs the fault of this number on out (64) and x (64).
template <bool repaired>
void run(int fault, float* out, const float* x) {
    switch (fault) {
        case 0:
            return LAUNCH(out_of_bounds<repaired>, 3, 32, 0, out, 64);
        case 1:
            return LAUNCH(out_of_shared_bounds<repaired>, 1, 32, 0, out);
        case 2:
            return LAUNCH(misaligned<repaired>, 1, 1, 0, out);
        case 3:
            return LAUNCH(never_written<repaired>, 1, 32, 0, out);
        case 4:
            return LAUNCH(barrier_not_reached<repaired>, 1, 32, 0, out);
        case 5:
            return LAUNCH(race_in_block<repaired>, 1, 32, 0, out);
        case 6:
            return LAUNCH(race_between_blocks<repaired>, 2, 32, 0, out);
        case 7:
            return LAUNCH(missing_wait<repaired>, 1, 32, 0, out, x);
    }
}
void run(bool repaired, int fault, float* out, const float* x) {
    repaired ? run<true>(fault, out, x) : run<false>(fault, out, x);
}

}  // namespace faults
