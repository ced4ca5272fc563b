// Arrays as Python passes them, read where they lie. What they are is fixed for a module: NumPy's, or any
// object with __cuda_array_interface__. Either type has
//
//   library                        "numpy" or "cupy", for messages
//   copied                         whether an operand that a kernel cannot take is copied, or refused
//   slow_to_read                   whether a call should not read the same object twice
//   RawArray(operation, argument, value)    TypeError for what is no such array
//   object(), data(), ndim(), size(axis), step(axis)     step: bytes from one element to the next
//   has<T>(), dtype_text(), element_size()
//   contiguous(), aligned(), native(), writeable()
//   share_memory(a, b)             of two whose extents meet
//   native_copy()                  where `copied`
#pragma once
#ifdef TINYGRAD_NM_CUDA
#include "cuda/device_array.h"
#else
#include "bindings/numpy_array.h"
#endif

namespace tinygrad_nm {

#ifdef TINYGRAD_NM_CUDA
using RawArray = DeviceArray;
#else
using RawArray = NumpyArray;
#endif

// The bytes [first, last) that the elements of an array may occupy; none if it is empty.
struct Extent {
    const char *first, *last;
    bool empty() const { return first == last; }
};
inline Extent extent(const RawArray& a) {
    Extent e{a.data(), a.data() + a.element_size()};
    for (int i = 0; i < a.ndim(); ++i) {
        if (a.size(i) == 0) return {a.data(), a.data()};
        const int64_t reach = (a.size(i) - 1) * a.step(i);
        (reach < 0 ? e.first : e.last) += reach;
    }
    return e;
}

}  // namespace tinygrad_nm
