#include "cuda/emulation/fibre.h"

#include <sys/mman.h>

#include <new>

// tinygrad_nm_switch(save, load) puts the registers that a function must keep on the stack, the stack pointer
// into *save, and goes on where `load` was saved.
extern "C" void tinygrad_nm_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.type tinygrad_nm_switch, @function
.hidden tinygrad_nm_switch
.globl tinygrad_nm_switch
tinygrad_nm_switch:
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
.size tinygrad_nm_switch, . - tinygrad_nm_switch
)");
constexpr int words = 7, return_word = 6, above = 1;  // on entry the stack is 8 beside a multiple of 16
#elif defined(__aarch64__)
asm(R"(
.text
.type tinygrad_nm_switch, %function
.hidden tinygrad_nm_switch
.globl tinygrad_nm_switch
tinygrad_nm_switch:
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
.size tinygrad_nm_switch, . - tinygrad_nm_switch
)");
constexpr int words = 20, return_word = 11, above = 0;
#else
#error "the emulated device needs a switch of stacks for this processor"
#endif

namespace tinygrad_nm::emulation {

Fibre::Fibre() {
    void* p = mmap(nullptr, guard + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<unsigned char*>(p);
    mprotect(memory_, guard, PROT_NONE);
    // Were all stacks to begin at the same place of their pages, they would push each other out of the cache.
    static size_t count = 0;
    constexpr size_t step = 5 * 64, page = 4096;
    top_ = memory_ + guard + size - count++ * step % page;
}
Fibre::~Fibre() {
    munmap(memory_, guard + size);
}

void Fibre::start(void (*entry)()) {
    void** top = reinterpret_cast<void**>(top_) - above - words;
    for (int i = 0; i < words + above; ++i) top[i] = nullptr;
    top[return_word] = reinterpret_cast<void*>(entry);
    here_ = top;
}
void Fibre::resume() {
    tinygrad_nm_switch(&caller_, here_);
}
void Fibre::leave() {
    tinygrad_nm_switch(&here_, caller_);
}

}  // namespace tinygrad_nm::emulation
