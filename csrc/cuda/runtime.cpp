#include "cuda/runtime.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <utility>

#include "cuda/device.h"
#include "cuda/memory.h"

namespace tinygrad_nm {
namespace {

thread_local cudaStream_t stream_of_thread = cudaStreamLegacy;

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string why_no_driver() {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return "there is no CUDA driver (libcuda.so.1), install NVIDIA's driver for the GPU";
    return "the CUDA driver knows CUDA " + version_text(driver) + ", but this module was built with CUDA " +
           version_text(CUDART_VERSION) + ", update the driver or build with an older CUDA";
}

std::string why_no_device() {
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return "the CUDA driver finds no GPU" +
           (visible ? std::string(" (CUDA_VISIBLE_DEVICES is '") + visible + "')" : std::string());
}

// What CUDA says, and for what an installation lacks, how to mend it.
std::string why(cudaError_t error) {
    const std::string said = std::string("CUDA says: ") + cudaGetErrorString(error);
    switch (error) {
        case cudaErrorInsufficientDriver:
            return why_no_driver();
        case cudaErrorNoDevice:
            return why_no_device();
        case cudaErrorInitializationError:
            return said + " (a process forked after CUDA was used cannot use it, start it with 'spawn')";
        case cudaErrorNoKernelImageForDevice:
            return said +
                   ", build on the machine with this GPU, or with TINYGRAD_NM_CUDA_ALL_ARCHITECTURES=ON";
        case cudaErrorUnsupportedPtxVersion:
            return said + ", update the driver, or build on the machine with this GPU";
        default:
            return said;
    }
}

struct OutOfDeviceMemory : std::bad_alloc {
    explicit OutOfDeviceMemory(std::string text) : text(std::move(text)) {}
    const char* what() const noexcept override { return text.c_str(); }
    std::string text;
};

std::string in_operation(const std::string& what) {
    return current_operation ? std::string(current_operation) + ": " + what : what;
}

int current_device() {
    int device = 0;
    check_cuda(cudaGetDevice(&device), "the current device");
    return device;
}

// The pool keeps the scratch memory that was returned, for the next call: without this it goes back to the
// system whenever the device has nothing to do.
void keep_memory_of_pool(int device) {
    static std::atomic<uint64_t> kept{0};  // a bit for each device
    const uint64_t bit = uint64_t(1) << (device % 64);
    if (kept.load(std::memory_order_relaxed) & bit) return;
    cudaMemPool_t pool;
    check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "the pool of memory");
    uint64_t all = UINT64_MAX;
    check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "the pool of memory");
    kept.fetch_or(bit, std::memory_order_relaxed);
}

int count_devices(const char* function) {
    int count = 0;
    check_cuda(cudaGetDeviceCount(&count), function);
    return count;
}

void check_device(const char* function, int device) {
    const int count = count_devices(function);
    if (device < 0 || device >= count)
        throw std::invalid_argument(std::string(function) + ": there is no device " + std::to_string(device) +
                                    ", use a number from 0 to " + std::to_string(count - 1));
}

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "an attribute of the device");
    return value;
}

}  // namespace

thread_local const char* current_operation = nullptr;

void throw_cuda(cudaError_t error, const std::string& what) {
    cudaGetLastError();  // or the next launch would report it
    throw std::runtime_error(in_operation(what) + ": " + why(error));
}

void check_launch(const char* kernel) {
    const cudaError_t result = cudaGetLastError();
    if (result != cudaSuccess) throw_cuda(result, std::string("launch of ") + kernel);
}

cudaStream_t current_stream() {
    return stream_of_thread;
}
void set_stream(uintptr_t stream) {
    stream_of_thread = stream == 0 ? cudaStreamLegacy : reinterpret_cast<cudaStream_t>(stream);
}
uintptr_t get_stream() {
    return reinterpret_cast<uintptr_t>(stream_of_thread);
}

// Once for each kernel and device, and then all that a block may have: the size of one launch would hold for
// the launches of other threads as well.
void allow_shared(const void* kernel, size_t bytes) {
    if (bytes == 0) return;
    static std::mutex mutex;
    static std::set<std::pair<const void*, int>> allowed;
    const int device = current_device();
    const std::lock_guard<std::mutex> lock(mutex);
    if (allowed.count({kernel, device})) return;
    cudaFuncAttributes of_kernel;
    check_cuda(cudaFuncGetAttributes(&of_kernel, kernel), "the attributes of a kernel");
    const int most =
        attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device) - int(of_kernel.sharedSizeBytes);
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
               "shared memory for a kernel");
    allowed.insert({kernel, device});
}

void* memory_of_device(size_t bytes, size_t) {
    keep_memory_of_pool(current_device());
    void* memory = nullptr;
    const cudaError_t result = cudaMallocAsync(&memory, bytes, stream_of_thread);
    if (result == cudaSuccess) return memory;
    const std::string what = std::to_string(bytes) + " bytes of scratch memory on the GPU";
    if (result != cudaErrorMemoryAllocation) throw_cuda(result, what);
    cudaGetLastError();
    throw OutOfDeviceMemory(in_operation(what) + ": there is no memory left, use smaller batches");
}

void return_memory(void* memory) noexcept {
    cudaFreeAsync(memory, stream_of_thread);
}

int device_count() {
    return count_devices("device_count");
}

int driver_version() {
    int version = 0;
    check_cuda(cudaDriverGetVersion(&version), "driver_version");
    if (version == 0) throw std::runtime_error("driver_version: " + why_no_driver());
    return version;
}

int runtime_version() {
    int version = 0;
    check_cuda(cudaRuntimeGetVersion(&version), "runtime_version");
    return version;
}

std::string device_name(int device) {
    check_device("device_name", device);
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, device), "device_name");
    return properties.name;
}

std::pair<int, int> compute_capability(int device) {
    check_device("compute_capability", device);
    return {attribute(cudaDevAttrComputeCapabilityMajor, device),
            attribute(cudaDevAttrComputeCapabilityMinor, device)};
}

void synchronize() {
    check_cuda(cudaDeviceSynchronize(), "synchronize");
}

}  // namespace tinygrad_nm
