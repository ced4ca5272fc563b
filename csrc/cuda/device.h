// The GPUs of this machine and the stream of this thread, for Python. Nothing here or in device_call.h needs
// CUDA's headers. Errors are std::runtime_error, which say what is missing and how to mend it.
#pragma once
#include <cstdint>
#include <string>
#include <utility>

namespace tinygrad_nm {

int device_count();
int driver_version();   // the newest CUDA that the driver knows, 13000 for 13.0
int runtime_version();  // of the CUDA that this module was built with; needs neither driver nor GPU
std::string device_name(int device);                 // std::invalid_argument if there is no such device
std::pair<int, int> compute_capability(int device);  // (8, 0)

// A cudaStream_t as a number; 0 and 1 are the legacy default stream, 2 is the thread's own.
void set_stream(uintptr_t stream);
uintptr_t get_stream();

void synchronize();  // waits until the current device has finished all that it was given

}  // namespace tinygrad_nm
