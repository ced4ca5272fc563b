// The kernels of one instruction set: a table of function pointers for each element type.
#pragma once
#include "cpu/gemm.h"

namespace tinygrad_nm {

template <class T>
struct KernelTable {
    void (*gemm)(const Gemm<T>&);
};

struct Kernels {
    const char* name;
    KernelTable<float> f32;
    KernelTable<double> f64;
};

// One for each file of isa/.
extern const Kernels kernels_generic;
extern const Kernels kernels_wide;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace tinygrad_nm
