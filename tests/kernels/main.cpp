// kernel_tests [part of a name]...: runs the tests whose name contains one of the parts (all without parts).
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
    return run_tests(count - 1, parts + 1,
                     "up to " + std::to_string(tinygrad_nm::max_threads()) + " threads");
}
