// A CUDA runtime of two GPUs that only tells what it is asked to do, one line a call, for
// test_cuda_runtime.py: the program runs the scenario that its argument names, on what csrc/cuda/runtime.cpp
// and device_call.cpp make of it.
//
// An address of memory says where it lies: 1000 to 1999 on device 0, 2000 to 2999 on device 1, others on the
// host.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "cuda/device.h"
#include "cuda/device_call.h"
#include "cuda/memory.h"
#include "cuda/runtime.h"

using namespace tinygrad_nm;

namespace {

int device = 0;  // the current one
cudaError_t last_error = cudaSuccess;
std::map<std::string, cudaError_t> failures;  // by function

size_t number(const void* pointer) {
    return reinterpret_cast<size_t>(pointer);
}
const void* at(size_t address) {
    return reinterpret_cast<const void*>(address);
}

// What a function does: it says so, and fails if it shall.
template <class... Arguments>
cudaError_t call(const char* function, const char* format, Arguments... arguments) {
    std::printf("%s", function);
    std::printf(format, arguments...);
    std::printf("\n");
    const auto failure = failures.find(function);
    return last_error = failure == failures.end() ? cudaSuccess : failure->second;
}

}  // namespace

extern "C" {

cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}
const char* cudaGetErrorString(cudaError_t) {
    return "it failed";
}
cudaError_t cudaGetDeviceCount(int* count) {
    *count = 2;
    return call("count devices", "");
}
cudaError_t cudaGetDevice(int* current) {
    *current = device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int to) {
    device = to;
    return call("set device", " %d", to);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* of, const void* pointer) {
    const size_t place = number(pointer) / 1000;
    of->type = place == 1 || place == 2 ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    of->device = int(place) - 1;
    const auto failure = failures.find("attributes");
    return failure == failures.end() ? cudaSuccess : failure->second;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    static size_t events = 0;
    *event = reinterpret_cast<cudaEvent_t>(++events);
    return call("create event", " %zu%s", events, flags & cudaEventDisableTiming ? "" : " with timing");
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return call("record event", " %zu on stream %zu", number(event), number(stream));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    return call("wait", " of stream %zu for event %zu", number(stream), number(event));
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call("destroy event", " %zu", number(event));
}
cudaError_t cudaDeviceSynchronize() {
    return call("synchronize", "");
}
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream) {
    *memory = const_cast<void*>(at(1024));
    return call("allocate", " %zu bytes on stream %zu", bytes, number(stream));
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
    return call("free", " %zu on stream %zu", number(memory), number(stream));
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t*, int of) {
    return call("pool", " of device %d", of);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
    if (attribute != cudaMemPoolAttrReleaseThreshold) return cudaErrorInvalidValue;
    return call("keep", " up to %llx bytes", *static_cast<unsigned long long*>(value));
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
    of->sharedSizeBytes = 1000;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaErrorInvalidValue;
    return call("allow", " kernel %zu %d bytes", number(kernel), value);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int of) {
    *value = attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 65536 : 7 + of;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = failures.count("no driver") ? 0 : 12020;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int of) {
    std::snprintf(properties->name, sizeof properties->name, "GPU %d", of);
    return cudaSuccess;
}

}  // extern "C"

namespace {

struct Operand {
    const char* argument;
    size_t address;
    uintptr_t stream;
};

void run(std::initializer_list<Operand> operands) {
    DeviceCall call("gemm");
    for (const Operand& o : operands) call.add(o.argument, at(o.address), o.stream);
    call.begin();
    std::printf("launch on stream %zu of device %d\n", number(current_stream()), device);
    check_launch("tiles");
    call.end();
}

const std::map<std::string, std::function<void()>> scenarios = {
    {"same stream",
     [] {
         run({{"out", 1000, 1}, {"a", 1100, 1}, {"b", 1200, 0}});
     }},
    {"other streams",
     [] {
         set_stream(50);
         run({{"a", 2100, 70}, {"b", 2200, 2}, {"c", 2300, 50}, {"out", 2000, 70}});
     }},
    {"two devices",
     [] {
         run({{"a", 1100, 0}, {"out", 2000, 0}});
     }},
    {"host memory",
     [] {
         run({{"a", 5000, 0}});
     }},
    {"null",
     [] {
         run({{"a", 0, 0}});
     }},
    {"no array", [] { run({}); }},
    {"failed launch",
     [] {
         last_error = cudaErrorInvalidValue;
         run({{"out", 1000, 0}});
     }},
    {"failed wait",
     [] {
         failures["wait"] = cudaErrorInvalidResourceHandle;
         run({{"out", 1000, 9}});
     }},
    {"scratch",
     [] {
         set_stream(50);
         for (int i = 0; i < 2; ++i) return_memory(memory_of_device(100, 4));
         device = 1;
         return_memory(memory_of_device(100, 4));
     }},
    {"no memory",
     [] {
         failures["allocate"] = cudaErrorMemoryAllocation;
         const DeviceCall call("conv2d");
         memory_of_device(100, 4);
     }},
    {"shared",
     [] {
         for (const size_t bytes : {0, 100, 60000}) allow_shared(at(1), bytes);
         device = 1;
         allow_shared(at(1), 100);
         allow_shared(at(2), 100);
     }},
    {"streams of threads",
     [] {
         set_stream(50);
         std::thread([] { std::printf("%zu\n", get_stream()); }).join();
         std::printf("%zu\n", get_stream());
         set_stream(0);
         std::printf("%zu\n", get_stream());
     }},
    {"devices",
     [] {
         const auto [major, minor] = compute_capability(1);
         std::printf("%s %d.%d\n", device_name(1).c_str(), major, minor);
         device_name(2);
     }},
    {"no driver",
     [] {
         failures["no driver"] = cudaSuccess;
         failures["count devices"] = cudaErrorInsufficientDriver;
         device_count();
     }},
    {"old driver",
     [] {
         failures["attributes"] = cudaErrorInsufficientDriver;
         run({{"a", 1000, 0}});
     }},
    {"no device",
     [] {
         failures["count devices"] = cudaErrorNoDevice;
         device_count();
     }},
};

}  // namespace

int main(int, char** arguments) {
    try {
        scenarios.at(arguments[1])();
    } catch (const std::invalid_argument& error) {
        std::printf("ValueError: %s\n", error.what());
    } catch (const std::bad_alloc& error) {
        std::printf("MemoryError: %s\n", error.what());
    } catch (const std::runtime_error& error) {
        std::printf("RuntimeError: %s\n", error.what());
    }
    std::printf("device %d, error %d\n", device, int(last_error));
}
