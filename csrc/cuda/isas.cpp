// One table of kernels: which code of it runs, the driver chooses by the GPU.
#include "shared/dispatch.h"

namespace tinygrad_nm {

namespace cuda {
extern const Kernels device_kernels;
}

extern const char* const isa_variable = nullptr;

std::vector<Isa> isas() {
    return {{&cuda::device_kernels, true, "compiled for " TINYGRAD_NM_CUDA_ARCHITECTURES}};
}

}  // namespace tinygrad_nm
