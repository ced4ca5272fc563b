// What a kernel may use of CUDA's execution model, compared with plain loops.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/elementwise.cuh"
#include "device_test.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr unsigned all_lanes = 0xffffffffu;

// Runs a kernel on one result, in each order, and returns the result.
template <class T, class Launch>
std::vector<T> result_of(size_t size, Launch&& launch) {
    std::vector<T> first;
    in_each_order([&](emulation::Order) {
        std::vector<T> out(size);
        Call call;
        T* const p = call.out("out", out);
        const std::string error = call.error([&] { launch(p); });
        CHECK_THAT(error.empty(), error);
        if (first.empty()) first = out;
        CHECK_THAT(out == first, "another order, another result");
    });
    return first;
}

// ---- grids, blocks, threads ------------------------------------------------------------------------------

// out[block][thread] = all that the thread knows of its place
__global__ void places(int* out) {
    const int block = int(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
    const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    const int threads = int(blockDim.x * blockDim.y * blockDim.z);
    out[block * threads + thread] = int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z +
                                        1000 * blockIdx.x + 10000 * blockIdx.y + 100000 * blockIdx.z);
}
DEVICE_TEST(every_thread_of_every_block) {
    const auto out =
        result_of<int>(12 * 30, [](int* p) { LAUNCH(places, dim3(3, 2, 2), dim3(5, 3, 2), 0, p); });
    for (int b = 0; b < 12; ++b)
        for (int t = 0; t < 30; ++t) {
            const int at = t % 5 + 10 * (t / 5 % 3) + 100 * (t / 15) + 1000 * (b % 3) + 10000 * (b / 3 % 2) +
                           100000 * (b / 6);
            CHECK_EQUAL(out[size_t(b * 30 + t)], at);
        }
}

// order[n] = block and thread that ran n-th
__global__ void turns(int* order, int* count) {
    order[atomicAdd(count, 1)] = int(blockIdx.x * blockDim.x + threadIdx.x);
}
DEVICE_TEST(orders_of_blocks_and_threads) {
    constexpr int blocks = 5, threads = 40, all = blocks * threads;
    const auto run = [](emulation::Order order, unsigned seed) {
        emulation::set_order(order, seed);
        std::vector<int> turn(all), count(1);
        Call call;
        int *const p = call.out("turn", turn), *const c = call.inout("count", count);
        const std::string error = call.error([&] { LAUNCH(turns, blocks, threads, 0, p, c); });
        CHECK_THAT(error.empty(), error);
        emulation::set_order(emulation::Order::forward);
        return turn;
    };
    std::vector<int> forward(all);
    std::iota(forward.begin(), forward.end(), 0);
    const std::vector<int> reverse(forward.rbegin(), forward.rend());
    CHECK_THAT(run(emulation::Order::forward, 0) == forward, "forward");
    CHECK_THAT(run(emulation::Order::reverse, 0) == reverse, "reverse");
    std::vector<int> shuffled = run(emulation::Order::shuffled, 1);
    CHECK_THAT(shuffled == run(emulation::Order::shuffled, 1), "the same seed");
    CHECK_THAT(shuffled != run(emulation::Order::shuffled, 2), "another seed");
    int in_step = 0;
    for (int i = 0; i < all; ++i) in_step += shuffled[size_t(i)] == i;
    CHECK_THAT(in_step < all / 4, "shuffled blocks and threads");
    std::sort(shuffled.begin(), shuffled.end());
    CHECK_THAT(shuffled == forward, "every thread once");
}

// A launch sees what the launches before it have written.
__global__ void number(float* x) {
    x[threadIdx.x] = float(threadIdx.x);
}
__global__ void add_reversed(float* out, const float* x) {
    out[threadIdx.x] = x[31 - threadIdx.x] + 1;
}
DEVICE_TEST(launches_are_in_order) {
    const auto out = result_of<float>(32, [](float* p) {
        Scratch<float> first(32), second(32);
        LAUNCH(number, 1, 32, 0, first.data());
        LAUNCH(add_reversed, 1, 32, 0, second.data(), first.data());
        LAUNCH(number, 1, 32, 0, first.data());
        LAUNCH(add_reversed, 1, 32, 0, p, second.data());
    });
    for (size_t i = 0; i < 32; ++i) CHECK_EQUAL(out[i], float(i) + 2);
}

// ---- shared memory and barriers --------------------------------------------------------------------------

// out = sum of x over the block in a tree, in static and in dynamic shared memory
template <class T>
__global__ void sums(T* out) {
    SHARED(T, tree, [64]);
    DYNAMIC_SHARED(T, mirror);
    const int t = int(threadIdx.x);
    tree[t] = mirror[63 - t] = T(t);
    for (int half = 32; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) tree[t] += tree[t + half], mirror[63 - t] += mirror[63 - t - half];
    }
    if (t == 0) out[2 * blockIdx.x] = tree[0], out[2 * blockIdx.x + 1] = mirror[63];
}
DEVICE_TEST(static_and_dynamic_shared_memory) {
    for (const double sum : result_of<double>(6, [](double* p) { LAUNCH(sums<double>, 3, 64, 64 * 8, p); }))
        CHECK_EQUAL(sum, 2016.0);
    for (const int sum : result_of<int>(6, [](int* p) { LAUNCH(sums<int>, 3, 64, 64 * 4, p); }))
        CHECK_EQUAL(sum, 2016);
}

__global__ void barriers_that_count(int* out) {
    const int t = int(threadIdx.x);
    const int count = __syncthreads_count(t % 3 == 0), some = __syncthreads_or(t == 7),
              none = __syncthreads_or(t < 0);
    const int every = __syncthreads_and(t >= 0), not_every = __syncthreads_and(t != 69);
    out[t] = count + 1000 * (some + 2 * none + 4 * every + 8 * not_every);
}
DEVICE_TEST(barriers_with_predicates) {
    for (const int value : result_of<int>(70, [](int* p) { LAUNCH(barriers_that_count, 1, 70, 0, p); }))
        CHECK_EQUAL(value, 24 + 1000 * (1 + 4));
}

// ---- warps -----------------------------------------------------------------------------------------------

// out[operation][thread], of groups of `width` lanes
template <class T>
__global__ void shuffles(T* out, int width) {
    const int t = int(threadIdx.x), n = int(blockDim.x);
    const T own = T(t) + T(0.5);
    out[t] = __shfl_sync(all_lanes, own, 5, width);
    out[n + t] = __shfl_sync(all_lanes, own, t + 3, width);
    out[2 * n + t] = __shfl_up_sync(all_lanes, own, 3, width);
    out[3 * n + t] = __shfl_down_sync(all_lanes, own, 3, width);
    out[4 * n + t] = __shfl_xor_sync(all_lanes, own, 6, width);
}
template <class T>
void check_shuffles(int width) {
    constexpr int n = 64;
    const auto out = result_of<T>(5 * n, [&](T* p) { LAUNCH(shuffles<T>, 1, n, 0, p, width); });
    for (int t = 0; t < n; ++t) {
        const int group = t / width * width, warp = t / 32 * 32, lane = t - group,
                  partner = warp + ((t - warp) ^ 6);
        const int from[] = {group + 5 % width, group + (t - warp + 3) % width, lane >= 3 ? t - 3 : t,
                            lane + 3 < width ? t + 3 : t, partner < group + width ? partner : t};
        for (int operation = 0; operation < 5; ++operation)
            CHECK_THAT(out[size_t(operation * n + t)] == T(from[operation]) + T(0.5),
                       "operation " + std::to_string(operation) + " of thread " + std::to_string(t) +
                           ", width " + std::to_string(width));
    }
}
DEVICE_TEST(shuffles_of_each_width_and_type) {
    for (const int width : {1, 2, 4, 8, 16, 32}) {
        check_shuffles<float>(width);
        check_shuffles<double>(width);
        check_shuffles<int>(width);
        check_shuffles<unsigned long long>(width);
    }
}

// Each half of a warp by itself: out = sum over the half, and which lanes of it are even.
__global__ void halves(int* out) {
    const int t = int(threadIdx.x);
    const unsigned mask = t % 32 < 16 ? 0xffffu : 0xffff0000u;
    int sum = t;
    for (int by = 8; by > 0; by /= 2) sum += __shfl_xor_sync(mask, sum, by);
    if (t % 32 < 16) __syncwarp(mask);
    const unsigned even = __ballot_sync(mask, t % 2 == 0);
    out[t] = sum + 10000 * (int(even == (0x55555555u & mask)) + 2 * __any_sync(mask, t == 20) +
                            4 * __all_sync(mask, t < 32));
}
DEVICE_TEST(votes_and_parts_of_a_warp) {
    const auto out = result_of<int>(64, [](int* p) { LAUNCH(halves, 1, 64, 0, p); });
    for (int t = 0; t < 64; ++t) {
        const int first = t / 16 * 16;
        CHECK_EQUAL(out[size_t(t)], 16 * first + 120 + 10000 * (1 + 2 * (first == 16) + 4 * (first < 32)));
    }
}

// ---- types, constants, atomics ---------------------------------------------------------------------------

template <class T, size_t size, size_t alignment>
constexpr bool laid_out = sizeof(T) == size && alignof(T) == alignment;
static_assert(laid_out<char2, 2, 2> && laid_out<char3, 3, 1> && laid_out<char4, 4, 4> &&
              laid_out<uchar4, 4, 4>);
static_assert(laid_out<short2, 4, 4> && laid_out<short4, 8, 8> && laid_out<ushort4, 8, 8>);
static_assert(laid_out<int2, 8, 8> && laid_out<int3, 12, 4> && laid_out<int4, 16, 16> &&
              laid_out<uint4, 16, 16>);
static_assert(laid_out<float2, 8, 8> && laid_out<float3, 12, 4> && laid_out<float4, 16, 16>);
static_assert(laid_out<double2, 16, 16> && laid_out<double3, 24, 8>);
static_assert(laid_out<longlong2, 16, 16> && laid_out<ulonglong2, 16, 16>);

__constant__ float coefficients[4] = {1, 2, 4, 8};
__global__ void vectors_and_constants(float* out, const float* table) {
    const float4 four = make_float4(table[0], coefficients[threadIdx.x], coefficients[1], 3);
    reinterpret_cast<float4*>(out)[threadIdx.x] = four;
}
DEVICE_TEST(vector_types_and_constant_memory) {
    const auto out =
        result_of<float>(16, [](float* p) { LAUNCH(vectors_and_constants, 1, 4, 0, p, coefficients + 2); });
    const float expected[] = {4, 1, 2, 3, 4, 2, 2, 3, 4, 4, 2, 3, 4, 8, 2, 3};
    CHECK_THAT(std::equal(out.begin(), out.end(), expected), "float4 of constants");
}

template <class T>
concept adds = requires(T* p) {
    atomicAdd(p, T(1));
};
template <class T>
concept compares = requires(T* p) {
    atomicMax(p, T(1)), atomicMin(p, T(1));
};
template <class T>
concept exchanges = requires(T* p) {
    atomicExch(p, T(1));
};
template <class T>
concept swaps = requires(T* p) {
    atomicCAS(p, T(1), T(2));
};
static_assert(adds<int> && adds<unsigned> && adds<unsigned long long> && adds<float> && adds<double>);
static_assert(compares<int> && compares<unsigned> && compares<long long> && compares<unsigned long long>);
static_assert(exchanges<int> && exchanges<unsigned> && exchanges<unsigned long long> && exchanges<float>);
static_assert(swaps<int> && swaps<unsigned> && swaps<unsigned long long> && swaps<unsigned short>);
static_assert(!adds<long> && !adds<short> && !compares<float> && !exchanges<double> && !swaps<long>);

// All threads of all blocks, on one number each.
template <class T>
__global__ void atomic_sums(T* sum) {
    atomicAdd(sum, 3);
}
template <class T>
__global__ void atomic_extremes(T* most, T* least) {
    const T own = T(blockIdx.x * blockDim.x + threadIdx.x) + 10;
    atomicMax(most, own);
    atomicMin(least, own);
}
template <class T>
__global__ void atomic_products(T* product, T* last) {
    for (T seen = 1, before; (before = atomicCAS(product, seen, T(seen * 3))) != seen;) seen = before;
    atomicExch(last, 9);
}
template <class T, class Launch>
std::pair<T, T> after_atomics(T first, T second, Launch&& launch) {
    std::vector<T> a(1, first), b(1, second);
    Call call;
    T *const p = call.inout("a", a), *const q = call.inout("b", b);
    const std::string error = call.error([&] { launch(p, q); });
    CHECK_THAT(error.empty(), error);
    return {a[0], b[0]};
}
template <class T>
void check_sum() {
    CHECK_EQUAL(after_atomics<T>(5, 0, [](T* a, T*) { LAUNCH(atomic_sums<T>, 3, 7, 0, a); }).first, T(68));
}
template <class T>
void check_extremes() {
    const auto [most, least] =
        after_atomics<T>(12, 12, [](T* a, T* b) { LAUNCH(atomic_extremes<T>, 3, 7, 0, a, b); });
    CHECK_EQUAL(most, T(30));
    CHECK_EQUAL(least, T(10));
}
template <class T>
void check_product() {
    const auto [product, last] =
        after_atomics<T>(1, 1, [](T* a, T* b) { LAUNCH(atomic_products<T>, 3, 3, 0, a, b); });
    CHECK_EQUAL(product, T(19683));
    CHECK_EQUAL(last, T(9));
}
DEVICE_TEST(atomics_of_each_type) {
    check_sum<int>(), check_sum<unsigned>(), check_sum<unsigned long long>(), check_sum<float>(),
        check_sum<double>();
    check_extremes<int>(), check_extremes<unsigned>(), check_extremes<long long>(),
        check_extremes<unsigned long long>();
    check_product<int>(), check_product<unsigned>(), check_product<unsigned long long>();
}

// ---- asynchronous copies ---------------------------------------------------------------------------------

// out[i] = what is in shared memory after copy i was started, then after each of the waits
__global__ void late_copies(float* out, const float* x) {
    SHARED(float, tile, [4]);
    tile[0] = tile[1] = -1;
    copy_number(&tile[0], x);
    commit_copies();
    copy_number(&tile[1], x + 1);
    commit_copies();
    out[0] = tile[0], out[1] = tile[1];
    wait_copies<1>();
    out[2] = tile[0], out[3] = tile[1];
    wait_copies<0>();
    out[4] = tile[0], out[5] = tile[1];
}
DEVICE_TEST(copies_are_performed_at_the_wait) {
    if (emulation::strict) return;  // to look before the wait is a fault
    std::vector<float> x = {3, 4}, out(6);
    LAUNCH(late_copies, 1, 1, 0, out.data(), x.data());
    const bool late = __CUDA_ARCH__ >= 800;
    const std::vector<float> expected =
        late ? std::vector<float>{-1, -1, 3, -1, 3, 4} : std::vector<float>{3, 4, 3, 4, 3, 4};
    CHECK_THAT(out == expected, "before, and after each wait");
}

// out = x reversed within groups of so many bytes, through shared memory
template <int bytes>
__global__ void copies_of_bytes(float* out, const float* x) {
    SHARED(float4, tile, [8]);
    constexpr int numbers = bytes / 4;
    float* const own = reinterpret_cast<float*>(tile) + threadIdx.x * numbers;
    copy_bytes<bytes>(own, x + threadIdx.x * numbers);
    commit_copies();
    wait_copies<0>();
    for (int i = 0; i < numbers; ++i) out[threadIdx.x * numbers + i] = own[numbers - 1 - i];
}
template <int bytes>
void check_copies() {
    constexpr size_t numbers = bytes / 4, size = 8 * numbers;
    std::vector<float> x(size), out(size);
    std::iota(x.begin(), x.end(), 0.0f);
    Call call;
    float* const p = call.out("out", out);
    const float* const q = call.in("x", x);
    const std::string error = call.error([&] { LAUNCH(copies_of_bytes<bytes>, 1, 8, 0, p, q); });
    CHECK_THAT(error.empty(), error);
    for (size_t i = 0; i < size; ++i)
        CHECK_EQUAL(out[i], x[i / numbers * numbers + numbers - 1 - i % numbers]);
}
DEVICE_TEST(copies_of_each_size) {
    check_copies<4>(), check_copies<8>(), check_copies<16>();
}

__global__ void quotients(int64_t* out, const int64_t* x) {
    out[threadIdx.x] = quotient(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
}
DEVICE_TEST(quotients_of_every_size) {
    const int64_t edges[] = {1,          2,          3,           7,           65535,    0x7fffffff,
                             0x80000000, 0xffffffff, 0x100000000, 0x100000001, INT64_MAX};
    std::vector<int64_t> x, out;
    for (const int64_t a : edges)
        for (const int64_t b : edges) x.insert(x.end(), {a, b});
    out.resize(x.size() / 2);
    Call call;
    int64_t* const p = call.out("out", out);
    const int64_t* const q = call.in("x", x);
    const std::string error = call.error([&] { LAUNCH(quotients, 1, unsigned(out.size()), 0, p, q); });
    CHECK_THAT(error.empty(), error);
    for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], x[2 * i] / x[2 * i + 1]);
}

}  // namespace
}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
