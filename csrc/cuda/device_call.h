// Around the kernels of one call: the device of its arrays is the current one, and the streams that the
// arrays come from are in order with the current stream.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace tinygrad_nm {

class DeviceCall {
  public:
    explicit DeviceCall(const char* operation);
    ~DeviceCall();  // the device and the operation are again what they were
    DeviceCall(const DeviceCall&) = delete;
    DeviceCall& operator=(const DeviceCall&) = delete;

    // An array that is not empty, and the stream it comes from, 0 for none. std::invalid_argument if its
    // memory is not on a GPU, or on another one than that of the arrays before.
    void add(const char* argument, const void* data, uintptr_t stream);
    void begin();  // what the current stream is given from now on waits for the arrays' streams
    void end();    // and these wait for what it was given; the host waits for nothing

  private:
    const char *operation_, *operation_before_;
    const char* first_argument_ = nullptr;
    int device_ = 0, device_before_ = -1;
    std::array<uintptr_t, 16> streams_;  // each once, the current one not among them
    size_t stream_count_ = 0;
};

}  // namespace tinygrad_nm
