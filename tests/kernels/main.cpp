// kernel_tests [part of a name]...: runs the tests whose name contains one of the parts (all without parts).
#include <cstring>
#include <exception>

#include "cpu/parallel.h"
#include "shared/dispatch.h"
#include "test.h"

int main(int count, char** parts) {
    using namespace kernel_tests;
    for (const tinygrad_nm::Isa& isa : tinygrad_nm::isas()) {
        const std::string name = std::string("ISA ") + isa.kernels->name;
        if (isa.available)
            std::printf("%s: run\n", name.c_str());
        else
            not_run(name, isa.why);
    }
    int run = 0;
    for (const Test& test : tests()) {
        bool chosen = count == 1;
        for (int i = 1; i < count; ++i) chosen = chosen || std::strstr(test.name, parts[i]);
        if (!chosen) continue;
        const long before = failures;
        try {
            test.run();
        } catch (const std::exception& e) {
            report(false, test.name, 0, std::string("exception: ") + e.what());
        }
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
        std::fflush(stdout);
        ++run;
    }
    std::printf("%d tests, %ld checks, %ld failures, %ld not run, up to %d threads\n", run, checks, failures,
                skipped, tinygrad_nm::max_threads());
    return failures || !run;
}
