#include "cuda/device_call.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/device.h"
#include "cuda/runtime.h"

namespace tinygrad_nm {
namespace {

cudaStream_t stream_of(uintptr_t number) {
    return reinterpret_cast<cudaStream_t>(number);
}

// What `later` is given from now on waits for what `earlier` was given.
void order(uintptr_t earlier, uintptr_t later) {
    const char* const what = "the order of the arrays' streams";
    cudaEvent_t event;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), what);
    cudaError_t result = cudaEventRecord(event, stream_of(earlier));
    if (result == cudaSuccess) result = cudaStreamWaitEvent(stream_of(later), event, 0);
    cudaEventDestroy(event);  // CUDA keeps it until it is no longer waited for
    check_cuda(result, what);
}

}  // namespace

DeviceCall::DeviceCall(const char* operation) : operation_(operation), operation_before_(current_operation) {
    current_operation = operation;
}

DeviceCall::~DeviceCall() {
    current_operation = operation_before_;
    if (device_before_ >= 0 && device_before_ != device_) cudaSetDevice(device_before_);
}

void DeviceCall::add(const char* argument, const void* data, uintptr_t stream) {
    const auto refuse = [&](const std::string& text) {
        throw std::invalid_argument(std::string(operation_) + ": " + argument + text);
    };
    cudaPointerAttributes of;
    check_cuda(cudaPointerGetAttributes(&of, data), argument);
    if (of.type != cudaMemoryTypeDevice && of.type != cudaMemoryTypeManaged)
        refuse(" does not lie in a GPU's memory, copy it there with cupy.asarray");
    if (!first_argument_) {
        first_argument_ = argument;
        device_ = of.device;
    } else if (of.device != device_) {
        refuse(" lies on cuda:" + std::to_string(of.device) + ", but " + first_argument_ +
               " on cuda:" + std::to_string(device_) + ", copy one of them to the other's device");
    }
    const auto end = streams_.begin() + long(stream_count_);
    if (stream != 0 && stream != get_stream() && std::find(streams_.begin(), end, stream) == end)
        streams_.at(stream_count_++) = stream;
}

void DeviceCall::begin() {
    if (!first_argument_) return;
    check_cuda(cudaGetDevice(&device_before_), "the current device");
    if (device_before_ != device_) check_cuda(cudaSetDevice(device_), "the device of the arrays");
    for (size_t i = 0; i < stream_count_; ++i) order(streams_[i], get_stream());
}

void DeviceCall::end() {
    for (size_t i = 0; i < stream_count_; ++i) order(get_stream(), streams_[i]);
}

}  // namespace tinygrad_nm
