// Each fault of faults.cu is found, with kernel, block, thread and source line, and its repaired twin is
// clean.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

namespace faults {
void run(bool repaired, int fault, float* out, const float* x);
}
using namespace tinygrad_nm::emulation;

namespace {

struct Fault {
    const char *kernel, *what, *line;  // the line's text: how faults.cu marks it
};
constexpr Fault expected[] = {
    {"out_of_bounds", "behind the end of global memory of 256 bytes", "FAULT 0"},
    {"out_of_shared_bounds", "the end of tile of 128 bytes", "FAULT 1"},
    {"misaligned", "not a multiple of 16", "FAULT 2"},
    {"never_written", "reads tile where nothing was written", "FAULT 3"},
    {"barrier_not_reached", "waits at a barrier that 16 of 32 threads do not reach", "FAULT 4"},
    {"race_in_block", "by different threads without a barrier in between", "FAULT 5"},
    {"race_between_blocks", "without order between blocks", "FAULT 6"},
    {"missing_wait", "before the asynchronous copy to it was waited for", "FAULT 7"},
};

// What the device says of a fault; empty: nothing.
std::string run(bool repaired, int fault) {
    alignas(64) float out[64];
    std::vector<float> x(64, 2.0f);
    watch_memory(out, sizeof out, 4, false, "global memory");
    watch_memory(x.data(), 4 * x.size(), 4, true, "x");
    std::string said;
    try {
        faults::run(repaired, fault, out, x.data());
    } catch (const std::runtime_error& error) {
        said = error.what();
    }
    forget_memory(out), forget_memory(x.data());
    return said;
}

// The number of the line of faults.cu that ends with this mark.
int line_of(const char* mark) {
    FILE* file = std::fopen(TINYGRAD_NM_FAULTS, "r");
    char text[512];
    int number = 0, found = 0;
    while (file && std::fgets(text, sizeof text, file)) {
        ++number;
        if (std::strstr(text, mark)) found = number;
    }
    if (file) std::fclose(file);
    return found;
}

}  // namespace

int main() {
    int failures = 0;
    for (const Order order : {Order::forward, Order::reverse, Order::shuffled})
        for (int fault = 0; fault < int(std::size(expected)); ++fault) {
            set_order(order, 3);
            const Fault& e = expected[fault];
            const std::string said = run(false, fault), clean = run(true, fault);
            std::string line = "(faults.cu:";
            line += std::to_string(line_of(e.line));
            bool good = clean.empty();
            for (const std::string& part : {std::string(e.kernel), std::string(e.what), line,
                                            std::string("block ("), std::string("thread (")})
                good = good && said.find(part) != std::string::npos;
            std::printf("%s %s\n", good ? "ok    " : "FAILED", said.c_str());
            if (!clean.empty()) std::printf("       repaired: %s\n", clean.c_str());
            failures += !good;
        }
    return failures != 0;
}
