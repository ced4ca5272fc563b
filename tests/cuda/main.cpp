// emulation_tests [part of a name]...: runs the tests whose name contains one of the parts (all without
// parts).
#include "cuda/emulation/watch.h"
#include "kernels/test.h"

int main(int count, char** parts) {
    return kernel_tests::run_tests(
        count - 1, parts + 1,
        tinygrad_nm::emulation::strict ? "emulated device, strict" : "emulated device, fast");
}
