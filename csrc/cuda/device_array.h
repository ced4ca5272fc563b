// An array on a GPU: any object with __cuda_array_interface__, as CuPy, Numba and PyTorch have it. See
// bindings/raw_array.h. The interface's text: Numba's documentation, "CUDA Array Interface (Version 3)".
// Version 2, which PyTorch gives, is version 3 without a stream.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "bindings/dtype.h"
#include "bindings/shape.h"

namespace tinygrad_nm {

class DeviceArray {
  public:
    static constexpr const char* library = "cupy";
    static constexpr bool copied = false;  // a copy costs memory and time that the caller should see
    static constexpr bool slow_to_read = true;

    DeviceArray() = default;
    // TypeError if there is no interface or it is of another form, ValueError if its content cannot be used.
    DeviceArray(const char* operation, const char* argument, pybind11::handle value);

    PyObject* object() const { return object_; }
    char* data() const { return data_; }
    int ndim() const { return int(sizes_.size()); }
    int64_t size(int axis) const { return sizes_[size_t(axis)]; }
    int64_t step(int axis) const { return steps_[size_t(axis)]; }

    template <class T>
    bool has() const {
        return kind_ == DtypeOf<T>::kind && element_size_ == int64_t(sizeof(T));
    }
    int64_t element_size() const { return element_size_; }
    std::string dtype_text() const;

    bool contiguous() const { return contiguous_; }
    bool aligned() const;
    bool writeable() const { return writeable_; }
    bool native() const { return native_; }

    // The stream whose work must be done before the data is read: 0 for none, 1 for the legacy default
    // stream, 2 for that of the thread, else a cudaStream_t.
    uintptr_t stream() const { return stream_; }

    // Views that are interleaved need not share an element; here they count as if they did.
    static bool share_memory(const DeviceArray&, const DeviceArray&) { return true; }

  private:
    PyObject* object_ = nullptr;
    char* data_ = nullptr;
    Shape sizes_, steps_;  // steps in bytes
    int64_t element_size_ = 1;
    uintptr_t stream_ = 0;
    char kind_ = 0;
    bool native_ = false, writeable_ = false, contiguous_ = false;
};

}  // namespace tinygrad_nm
