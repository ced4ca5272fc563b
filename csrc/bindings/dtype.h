// The element types of arrays: NumPy's letter of the kind, and the name for messages.
#pragma once
#include <cstdint>

namespace tinygrad_nm {

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
    static constexpr char kind = 'f';
    static constexpr const char* name = "float32";
};
template <>
struct DtypeOf<double> {
    static constexpr char kind = 'f';
    static constexpr const char* name = "float64";
};
template <>
struct DtypeOf<uint8_t> {
    static constexpr char kind = 'u';
    static constexpr const char* name = "uint8";
};
template <>
struct DtypeOf<int32_t> {
    static constexpr char kind = 'i';
    static constexpr const char* name = "int32";
};
template <>
struct DtypeOf<int64_t> {
    static constexpr char kind = 'i';
    static constexpr const char* name = "int64";
};

}  // namespace tinygrad_nm
