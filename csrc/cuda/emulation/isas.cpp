// The emulated device's architectures, of which each runs the code paths that its __CUDA_ARCH__ chooses.
#include "shared/dispatch.h"

namespace tinygrad_nm {

namespace sm_75 {
extern const Kernels device_kernels;
}
namespace sm_80 {
extern const Kernels device_kernels;
}

extern const char* const isa_variable = "TINYGRAD_NM_CUDA_ARCHITECTURE";

std::vector<Isa> isas() {
    return {{&sm_80::device_kernels, true, "emulated: asynchronous copies"},
            {&sm_75::device_kernels, true, "emulated"}};
}

}  // namespace tinygrad_nm
