// What a strict build watches: every access of a kernel, which the compiler reports (sanitizer.cpp), to
// memory that the device knows. In a fast build nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace tinygrad_nm::emulation {

// Memory of the device for the launches to come. An element is what a race or a number never written is found
// by.
struct Region {
    const char* name;
    const char* begin;
    size_t bytes, element;  // the last a power of two
    bool written;           // before the first launch
    bool writable;

    const char* end() const { return begin + bytes; }
};

#ifdef TINYGRAD_NM_STRICT
constexpr bool strict = true;
void watch_memory(const Region&);
void forget_memory(const void* begin);
long long first_unwritten(const void* begin);  // an element that no kernel has written, -1: there is none
std::string host_access();  // what code around the launches has done to the device's memory; empty: nothing

// While it lives, the launch with these arguments runs.
class WatchedLaunch {
  public:
    WatchedLaunch(const void* arguments, size_t bytes);
    ~WatchedLaunch();
    WatchedLaunch(const WatchedLaunch&) = delete;
    WatchedLaunch& operator=(const WatchedLaunch&) = delete;
};
void watch_shared(const char* name, void* begin, size_t bytes, size_t element,
                  size_t place);  // until the launch ends
void watch_block();               // begins
void watch_barrier();             // all threads of the block have reached it
void watch_sync_warp(unsigned first_thread, uint32_t lanes);
void watch_thread(unsigned thread, const void* stack, size_t bytes);  // runs from now on
void watch_no_thread();

// `address`: in the kernel, where the access is.
void watch_access(const void* p, size_t bytes, bool write, const void* address);
void watch_atomic(const void* p, size_t bytes, const void* address);
void watch_copy(const void* shared, size_t bytes,
                const void* address);                 // an asynchronous copy to there begins
void watch_copied(const void* shared, size_t bytes);  // and has been waited for
bool watches(const void* p);         // a kernel runs, and p is not on the stack of its thread
std::string name_of(const void* p);  // of the memory
#else
constexpr bool strict = false;
inline void watch_memory(const Region&) {}
inline void forget_memory(const void*) {}
inline long long first_unwritten(const void*) {
    return -1;
}
inline std::string host_access() {
    return {};
}
struct WatchedLaunch {
    WatchedLaunch(const void*, size_t) {}
};
inline void watch_shared(const char*, void*, size_t, size_t, size_t) {}
inline void watch_block() {}
inline void watch_barrier() {}
inline void watch_sync_warp(unsigned, uint32_t) {}
inline void watch_thread(unsigned, const void*, size_t) {}
inline void watch_no_thread() {}
inline void watch_access(const void*, size_t, bool, const void*) {}
inline void watch_atomic(const void*, size_t, const void*) {}
inline void watch_copy(const void*, size_t, const void*) {}
inline void watch_copied(const void*, size_t) {}
#endif

}  // namespace tinygrad_nm::emulation
