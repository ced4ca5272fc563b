#include "shared/dispatch.h"

namespace tinygrad_nm {

// One for each file of isa/.
extern const Kernels kernels_generic;
extern const Kernels kernels_wide;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

extern const char* const isa_variable = "TINYGRAD_NM_ISA";

std::vector<Isa> isas() {
    std::vector<Isa> list;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const auto add = [&list](const Kernels& kernels, bool available) {
        list.push_back(
            {&kernels, available,
             available ? "the processor and the operating system support it" : "processor lacks it"});
    };
    add(kernels_avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"));
    add(kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#endif
    list.push_back({&kernels_generic, true, "baseline of this processor family"});
    list.push_back({&kernels_wide, true, "baseline instructions in 64-byte vectors, for tests"});
    return list;
}

}  // namespace tinygrad_nm
