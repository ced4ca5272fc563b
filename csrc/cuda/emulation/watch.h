// What a strict build watches: every access of a kernel, which the compiler reports (watch.cpp), to memory
// that the device knows. In a fast build nothing.
#pragma once
#include <cstddef>
#include <string>

namespace tinygrad_nm::emulation {

class Fibre;

#ifdef TINYGRAD_NM_STRICT
constexpr bool strict = true;
// Memory of the device from now on; two that share bytes (an operand given twice) count as one.
void watch_memory(const void* begin, size_t bytes, size_t element, bool written, const char* name);
void forget_memory(const void* begin);
long long first_unwritten(const void* begin);  // an element that no kernel has written, -1: there is none
void watch_launch(const void* arguments, size_t bytes);
void watch_block(const void* shared, size_t dynamic_bytes);
void watch_shared(const void* begin, size_t bytes, size_t element, const char* name);
void watch_phase(unsigned phase);
void watch_thread(unsigned thread, const Fibre* fibre);  // null: none runs
void watch_access(const void* p, size_t bytes, bool write, const void* site);
void watch_atomic(const void* p, size_t bytes, const void* site);
void watch_pending(const void* p, size_t bytes, bool pending, const void* site);
std::string describe(const std::string& what, const void* site);  // with the source line
#else
constexpr bool strict = false;
inline void watch_memory(const void*, size_t, size_t, bool, const char*) {}
inline void forget_memory(const void*) {}
inline long long first_unwritten(const void*) {
    return -1;
}
inline void watch_launch(const void*, size_t) {}
inline void watch_block(const void*, size_t) {}
inline void watch_shared(const void*, size_t, size_t, const char*) {}
inline void watch_phase(unsigned) {}
inline void watch_thread(unsigned, const Fibre*) {}
inline void watch_access(const void*, size_t, bool, const void*) {}
inline void watch_atomic(const void*, size_t, const void*) {}
inline void watch_pending(const void*, size_t, bool, const void*) {}
inline std::string describe(const std::string& what, const void*) {
    return what;
}
#endif

}  // namespace tinygrad_nm::emulation
