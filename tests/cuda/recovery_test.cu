// The device after errors, in threads, after fork(), and over many launches.
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "device_test.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// out[i] = sum of x over the block, by a barrier
__global__ void block_sum(float* out, const float* x) {
    SHARED(float, all, [32]);
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 32; ++i) sum += all[i];
    out[threadIdx.x] = sum;
}
// "" if a launch goes as it should, else what went wrong.
std::string working_launch() {
    std::vector<float> x(32, 0.5f), out(32);
    Call call;
    float* const p = call.out("out", out);
    const float* const q = call.in("x", x);
    const std::string error = call.error([&] { LAUNCH(block_sum, 1, 32, 0, p, q); });
    return !error.empty() ? error : out == std::vector<float>(32, 16) ? "" : "wrong sum";
}

__global__ void throws() {
    if (threadIdx.x == 17) throw std::runtime_error("out of memory, say");
    __syncthreads();
}
__global__ void half_of_a_barrier() {
    SHARED(float, tile, [32]);
    tile[threadIdx.x] = 1;
    if (threadIdx.x < 16) __syncthreads();
}
template <int calls>
__device__ void fails_inside() {
    if constexpr (calls == 0)
        __syncwarp(0);
    else
        fails_inside<calls - 1>();
}
__global__ void nested_failure() {
    fails_inside<20>();
}
__global__ void never_runs() {}

DEVICE_TEST(an_exception_leaves_the_kernel) {
    const std::string error = Call().error([] { LAUNCH(throws, 2, 64, 0); });
    CHECK_THAT(error == "out of memory, say", error);
    CHECK_THAT(working_launch().empty(), working_launch());
}
DEVICE_TEST(the_launch_after_a_failed_one_works) {
    for (int i = 0; i < 3; ++i) {
        CHECK_THAT(contains(Call().error([] { LAUNCH(half_of_a_barrier, 1, 32, 0); }), "waits at a barrier"),
                   "fails");
        CHECK_THAT(contains(Call().error([] { LAUNCH(nested_failure, 1, 32, 0); }), "mask"), "fails");
        CHECK_THAT(
            contains(Call().error([] { LAUNCH(never_runs, 0, 32, 0); }), "a grid has at least one block"),
            "fails");
        CHECK_THAT(working_launch().empty(), working_launch());
    }
}

template <class T, int width>
__global__ void counted() {}
DEVICE_TEST(launches_are_counted_by_the_function_s_name) {
    const auto count = [](const char* name) {
        const auto device = emulation::lock_device();
        const auto found = emulation::launches().find(std::string_view(name));
        return found == emulation::launches().end() ? 0 : found->second;
    };
    const long before = count("counted");
    LAUNCH((counted<float, 3>), 1, 1, 0);
    LAUNCH((TINYGRAD_NM_DEVICE::counted<double, 4>), 1, 1, 0);
    CHECK_EQUAL(count("counted"), before + 2);
    CHECK_EQUAL(count("never_runs"), 0);
}

// ---- stacks ----------------------------------------------------------------------------------------------

// Larger than the registers of any thread.
__global__ void large_frame(float* out) {
    volatile float numbers[16 << 10];
    for (int i = 0; i < 16 << 10; ++i) numbers[i] = float(i);
    __syncthreads();
    out[threadIdx.x] = numbers[threadIdx.x];
}
DEVICE_TEST(a_thread_has_a_stack_for_64_kilobytes_of_registers) {
    std::vector<float> out(64);
    Call call;
    float* const p = call.out("out", out);
    const std::string error = call.error([&] { LAUNCH(large_frame, 1, 64, 0, p); });
    CHECK_THAT(error.empty() && out[63] == 63, error);
}

// Runs this in a child process; returns the signal that ended it, minus its exit status if none did.
template <class F>
int in_child(F&& body) {
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        alarm(60);
        _exit(body() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

__device__ __attribute__((noinline)) float recursion(float x, int depth) {
    volatile float here[256] = {x};
    return depth == 0 ? here[0] : recursion(here[0] + 1, depth - 1) + here[1];
}
__global__ void overflows_its_stack(float* out) {
    out[0] = recursion(0, 1 << 20);
}
DEVICE_TEST(a_stack_overflow_ends_the_process) {
    std::vector<float> out(1);
    CHECK_EQUAL(in_child([&] {
                    Call call;
                    float* const p = call.out("out", out);
                    call.error([&] { LAUNCH(overflows_its_stack, 1, 32, 0, p); });
                    return true;
                }),
                SIGSEGV);
}

// ---- threads, fork, memory -------------------------------------------------------------------------------

DEVICE_TEST(threads_take_turns) {
    std::string errors[4];
    std::vector<std::thread> threads;
    for (std::string& error : errors)
        threads.emplace_back([&error] {
            for (int i = 0; i < 200 && error.empty(); ++i) error = working_launch();
        });
    for (std::thread& t : threads) t.join();
    for (const std::string& error : errors) CHECK_THAT(error.empty(), error);
}

DEVICE_TEST(fork_while_another_thread_runs_kernels) {
    CHECK_THAT(working_launch().empty(), "before");
    std::mutex running;  // held by this thread until the other one may stop
    running.lock();
    std::string error;
    std::thread other([&] {
        while (!running.try_lock() && error.empty()) error = working_launch();
    });
    for (int i = 0; i < 20; ++i) CHECK_EQUAL(in_child([] { return working_launch().empty(); }), 0);
    running.unlock();
    other.join();
    CHECK_THAT(error.empty(), error);
}

// Of the heap; what the system calls resident would be the emulator's where this processor is emulated too.
size_t bytes_in_use() {
    const struct mallinfo2 heap = mallinfo2();
    return heap.uordblks + heap.hblkhd;
}
template <class F>
void check_memory(F&& launch) {
    const auto launches = [&] {
        for (int i = 0; i < 500; ++i) launch();
        return bytes_in_use();
    };
    launches();
    const size_t before = launches(), after = launches();
    CHECK_THAT(after <= before + 500, std::to_string(before) + " bytes, then " + std::to_string(after));
}
DEVICE_TEST(no_memory_is_left_behind_by_launches) {
    check_memory([] {
        working_launch();
        Scratch<double> scratch(1000);
    });
}
DEVICE_TEST(no_memory_is_left_behind_by_failures) {
    check_memory([] {
        Call().error([] { LAUNCH(throws, 1, 32, 0); });
        Call().error([] { LAUNCH(never_runs, 0, 1, 0); });
    });
}

}  // namespace
}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
