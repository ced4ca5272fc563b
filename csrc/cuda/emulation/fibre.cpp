#include "cuda/emulation/fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

// tinygrad_nm_switch_stack(save, load): stores what the calling convention keeps on the stack, the stack
// pointer at *save, and goes on where `load` was stored.
extern "C" void tinygrad_nm_switch_stack(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.type tinygrad_nm_switch_stack, @function
.hidden tinygrad_nm_switch_stack
.globl tinygrad_nm_switch_stack
tinygrad_nm_switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size tinygrad_nm_switch_stack, . - tinygrad_nm_switch_stack
)");
constexpr int kept_words = 6, return_word = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.type tinygrad_nm_switch_stack, %function
.hidden tinygrad_nm_switch_stack
.globl tinygrad_nm_switch_stack
tinygrad_nm_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size tinygrad_nm_switch_stack, . - tinygrad_nm_switch_stack
)");
constexpr int kept_words = 20, return_word = 11;
#else
#error "the emulated device needs a switch of stacks for this processor"
#endif

namespace tinygrad_nm::emulation {
namespace {
thread_local Fibre* starting = nullptr;
}

Fibre::Fibre() {
    void* p =
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<unsigned char*>(p);
}
Fibre::~Fibre() {
    munmap(memory_, size_);
}

void Fibre::first(Fibre* fibre) {
    fibre->entry_(fibre->argument_);
    abort();  // an entry leaves, it does not return
}

void Fibre::start(void (*entry)(void*), void* argument) {
    entry_ = entry, argument_ = argument;
    void** top = reinterpret_cast<void**>(memory_ + size_) - 4;  // a multiple of 16
#if defined(__x86_64__)
    --top;  // as after a call
#endif
    top -= kept_words + (return_word == kept_words ? 1 : 0);
    for (int i = 0; i < kept_words; ++i) top[i] = nullptr;
    top[return_word] = reinterpret_cast<void*>(+[] { first(starting); });
    here_ = top;
}

void Fibre::resume() {
    starting = this;
    tinygrad_nm_switch_stack(&caller_, here_);
}
void Fibre::leave() {
    tinygrad_nm_switch_stack(&here_, caller_);
}

}  // namespace tinygrad_nm::emulation
