// What a device does around a kernel: nothing on the CPU; the emulated device shows the kernel the arrays of
// this call and no other memory; CUDA makes their device the current one, and orders their streams.
#pragma once
#include "bindings/raw_array.h"

#if defined(TINYGRAD_NM_EMULATED)
#include "cuda/emulation/operands.h"
#elif defined(TINYGRAD_NM_CUDA)
#include "cuda/device_call.h"
#endif

namespace tinygrad_nm {

enum class Use { read, written, updated };  // updated: read as well

#if defined(TINYGRAD_NM_EMULATED)
class KernelScope : public emulation::Operands {
  public:
    static constexpr bool wants_arrays = emulation::strict;
    using Operands::Operands;
    void add(const char* argument, const RawArray& array, Use use) {
        const Extent e = extent(array);
        Operands::add({.name = argument,
                       .begin = e.first,
                       .bytes = size_t(e.last - e.first),
                       .element = size_t(array.element_size()),
                       .written = use != Use::written,
                       .writable = use != Use::read});
    }
};
#elif defined(TINYGRAD_NM_CUDA)
class KernelScope : public DeviceCall {
  public:
    static constexpr bool wants_arrays = true;
    using DeviceCall::DeviceCall;
    void add(const char* argument, const RawArray& array, Use) {
        if (!extent(array).empty()) DeviceCall::add(argument, array.data(), array.stream());
    }
};
#else
struct KernelScope {
    static constexpr bool wants_arrays = false;
    explicit KernelScope(const char*) {}
    void add(const char*, const RawArray&, Use) {}
    void begin() {}
    void end() {}
};
#endif

}  // namespace tinygrad_nm
