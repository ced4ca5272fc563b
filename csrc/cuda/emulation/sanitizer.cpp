// Kernels of a strict build are compiled with -fsanitize=thread,alignment,bounds,integer-divide-by-zero: the
// compiler calls these functions at every access. They are ours, not the sanitizers'.
#include <cstdint>
#include <string>

#include "cuda/emulation/machine.h"
#include "cuda/emulation/watch.h"

using namespace tinygrad_nm::emulation;

#define ADDRESS __builtin_extract_return_addr(__builtin_return_address(0))

#define ACCESS(size)                           \
    void __tsan_read##size(void* p) {          \
        watch_access(p, size, false, ADDRESS); \
    }                                          \
    void __tsan_write##size(void* p) {         \
        watch_access(p, size, true, ADDRESS);  \
    }
#define UNALIGNED(size)                          \
    void __tsan_unaligned_read##size(void* p) {  \
        watch_access(p, size, false, ADDRESS);   \
    }                                            \
    void __tsan_unaligned_write##size(void* p) { \
        watch_access(p, size, true, ADDRESS);    \
    }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)
void __tsan_read_range(void* p, size_t bytes) {
    watch_access(p, bytes, false, ADDRESS);
}
void __tsan_write_range(void* p, size_t bytes) {
    watch_access(p, bytes, true, ADDRESS);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// The compiler may split a vector access into its members, so the sanitizer of alignment looks at the whole.
struct SourceLocation {
    const char* file;
    uint32_t line, column;
};
struct TypeDescription {
    uint16_t kind, info;
    char name[1];  // "'float4'"
};
struct TypeMismatch {
    SourceLocation location;
    const TypeDescription* type;
    unsigned char log_alignment, kind;
};
void __ubsan_handle_type_mismatch_v1(const TypeMismatch* m, uintptr_t p) {
    constexpr unsigned char load = 0, store = 1;
    const char* const verb = m->kind == load ? "reads " : m->kind == store ? "writes " : "uses ";
    const void* const pointer = reinterpret_cast<const void*>(p);
    if (!watches(pointer)) return;
    fail(verb + std::string(m->type->name) + " of " + name_of(pointer) +
             " at an address that is not a multiple of " + std::to_string(1 << m->log_alignment),
         {ADDRESS});
}
struct OutOfBounds {
    SourceLocation location;
    const TypeDescription *array, *index;
};
void __ubsan_handle_out_of_bounds(const OutOfBounds* m, uintptr_t index) {
    if (!watches(nullptr)) return;
    fail("uses element " + std::to_string(intptr_t(index)) + " of an array of type " + m->array->name,
         {ADDRESS});
}
void __ubsan_handle_divrem_overflow(const void*, uintptr_t, uintptr_t) {
    if (watches(nullptr)) fail("divides a whole number by zero", {ADDRESS});
}
}
