// The faults of faults.cuh are found, with kernel, block, thread and line, in every order; their repaired
// twins are clean.
#include "faults.cuh"

#include <cstdlib>
#include <fstream>

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

// The number of the line that ends with a mark.
int line_of(const std::string& mark, const char* path = __FILE__) {
    std::ifstream file(path);
    std::string line;
    for (int number = 1; std::getline(file, line); ++number)
        if (line.ends_with("// fault: " + mark)) return number;
    return 0;
}

constexpr const char* without_line = "(its line: addr2line, of binutils)";

std::string run(void (*kernel)(const Arrays&)) {
    std::vector<float> out(64), x(64, 1.0f);
    Call call;
    const Arrays visible = {call.out("out", out), call.in("x", x), nullptr};
    const std::string error = call.error([&] {
        const Scratch<float> scratch(64);
        kernel({visible.out, visible.x, scratch.data()});
    });
    // Few of these kernels write all results.
    return contains(error, "is left unwritten") ? "" : error;
}

DEVICE_TEST(every_fault_is_found_and_named) {
    for (const Fault& f : faults) {
        if (!emulation::strict && !f.in_fast) continue;
        const std::string kernel = f.kernel, error = run(f.faulty);
        CHECK_THAT(error.starts_with(kernel + "<false>, " + f.place + ": "), error);
        CHECK_THAT(contains(error, f.what), error);
        const int line = line_of(kernel, faults_file);
        CHECK_THAT(line > 0, kernel + " has no marked line");
        if (contains(error, without_line)) {
            if (emulation::strict)
                kernel_tests::not_run("line of " + kernel, "no addr2line for this program");
        } else {
            CHECK_THAT(contains(error, " at faults.cuh:" + std::to_string(line)),
                       error + ", expected at line " + std::to_string(line));
        }
    }
}

DEVICE_TEST(every_fault_is_found_in_every_order) {
    if (!emulation::strict) return;
    in_each_order([&](emulation::Order) {
        for (const Fault& f : faults)
            CHECK_THAT(run(f.faulty).starts_with(std::string(f.kernel) + "<false>, block ("), f.kernel);
    });
}

DEVICE_TEST(repaired_twins_are_clean) {
    in_each_order([&](emulation::Order) {
        for (const Fault& f : faults) {
            const std::string error = run(f.repaired);
            CHECK_THAT(error.empty(), error);
        }
    });
}

template <bool repaired>
__global__ void element_left_out(float* out) {
    if (repaired || threadIdx.x != 5) out[threadIdx.x] = 1;
}
DEVICE_TEST(result_left_unwritten) {
    if (!emulation::strict) return;
    std::vector<float> out(32);
    const auto error = [&](auto kernel) {
        Call call;
        float* const p = call.out("out", out);
        return call.error([&] { LAUNCH(kernel, 1, 32, 0, p); });
    };
    CHECK_THAT(error(element_left_out<true>).empty(), "all written");
    CHECK_THAT(error(element_left_out<false>) == "test: element 5 of out is left unwritten",
               error(element_left_out<false>));
}

DEVICE_TEST(the_host_may_not_use_memory_of_the_device) {
    if (!emulation::strict) return;
    std::vector<float> out(32), own(32);
    Call call;
    float* const p = call.out("out", out);
    const std::string error = call.error([&] {
        own[5] = 1;
        LAUNCH(element_left_out<true>, 1, 32, 0, p);
        own[6] = p[3];  // fault: host
    });
    CHECK_THAT(contains(error, "test: the host reads element 3 of out, which is memory of the device"),
               error);
    CHECK_THAT(contains(error, without_line) || contains(error, ":" + std::to_string(line_of("host"))),
               error);
}

// The line in the helper comes first, then where it is called, though all of it is inlined.
__device__ __forceinline__ void helper(float* out, int i) {
    out[i] = 1;  // fault: helper
}
__global__ void calls_a_helper(float* out) {
    helper(out, 64);  // fault: calls_a_helper
}
DEVICE_TEST(lines_of_inlined_functions) {
    if (!emulation::strict) return;
    std::vector<float> out(64);
    Call call;
    float* const p = call.out("out", out);
    const std::string error = call.error([&] { LAUNCH(calls_a_helper, 1, 1, 0, p); });
    if (contains(error, without_line))
        return kernel_tests::not_run("lines of inlined functions", "no addr2line for this program");
    CHECK_THAT(error.ends_with(" at faults_test.cu:" + std::to_string(line_of("helper")) +
                               ", called at faults_test.cu:" + std::to_string(line_of("calls_a_helper"))),
               error);
}
// Without the tool the error says where it would have looked, and how to have it.
DEVICE_TEST(lines_without_addr2line) {
    if (!emulation::strict) return;
    std::vector<float> out(64);
    Call call;
    float* const p = call.out("out", out);
    const std::string path = getenv("PATH");
    setenv("PATH", "/nowhere", 1);
    const std::string error = call.error([&] { LAUNCH(calls_a_helper, 1, 1, 0, p); });
    setenv("PATH", path.c_str(), 1);
    CHECK_THAT(contains(error, " at 0x") && error.ends_with("emulation_tests " + std::string(without_line)),
               error);
}

}  // namespace
}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
