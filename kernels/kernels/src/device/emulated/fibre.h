// Fibres: the threads of a block, each with its own stack, taking turns on one host thread. First of four headers.
#define WAVEMILL_EMULATED 1
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) && !defined(WAVEMILL_EMULATED_UCONTEXT)
#define WAVEMILL_EMULATED_UCONTEXT 1
#endif
#ifdef WAVEMILL_EMULATED_UCONTEXT
#include <ucontext.h>
#endif

namespace emulated {

#ifdef __SANITIZE_ADDRESS__
constexpr bool SANITIZED = true;
inline void poison(const void *at, size_t bytes) { __asan_poison_memory_region(at, bytes); }
inline void unpoison(const void *at, size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
extern "C" void __asan_handle_no_return(void);
inline void leave_frames() { __asan_handle_no_return(); }
#else
constexpr bool SANITIZED = false;
inline void poison(const void *, size_t) {}
inline void unpoison(const void *, size_t) {}
inline void leave_frames() {}
#endif

// Kernels use little stack; frames with AddressSanitizer are several times larger.
constexpr size_t STACK_BYTES = SANITIZED ? 256 * 1024 : 64 * 1024;
// Stacks whose tops are a power of two apart would compete for the same cache lines.
constexpr size_t STACK_STRIDE = STACK_BYTES + 9 * 64;
// Bytes at the far end of a stack. If they are overwritten, the stack was too small.
constexpr size_t CANARY_BYTES = 64;
constexpr unsigned char CANARY = 0xc5;

// Saved execution state and its stack; the `stack` of the host thread is null until it is known.
struct Fibre {
#ifdef WAVEMILL_EMULATED_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer;
#endif
    const void *stack;
    size_t stack_bytes;
    void *fake_stack; // of AddressSanitizer
};

// Entry point of a fibre; never returns.
static void fibre_main();

#ifndef WAVEMILL_EMULATED_UCONTEXT
// Saves the registers that the System V ABI requires, stores the stack pointer, and continues where the other stack
// stopped.
extern "C" __attribute__((visibility("hidden"))) void emulated_switch(void **from, void *to);
asm(R"(
    .text
    .p2align 4
    .type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulated_switch, . - emulated_switch
)");
#endif

// Makes `fibre` start at `fibre_main` on its stack, discarding the stack's content.
inline void reset(Fibre &fibre) {
    char *top = (char *)fibre.stack + fibre.stack_bytes;
#ifdef WAVEMILL_EMULATED_UCONTEXT
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = (void *)fibre.stack;
    fibre.context.uc_stack.ss_size = fibre.stack_bytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, fibre_main, 0);
    (void)top;
#else
    // Six registers, the address to continue at, and a return address of 0 that ends backtraces: as if `fibre_main` had
    // just been called.
    void **frame = (void **)top - 8;
    memset(frame, 0, 8 * sizeof(void *));
    frame[6] = (void *)fibre_main;
    fibre.stack_pointer = frame;
#endif
    fibre.fake_stack = nullptr;
}

// Suspends `from` and continues `to`; `ended` means that `from` will never continue.
inline void switch_fibre(Fibre &from, Fibre &to, bool ended) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(ended ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#else
    (void)ended;
#endif
#ifdef WAVEMILL_EMULATED_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    emulated_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Called first on a new stack. The first switch of a host thread comes from its own stack, which becomes known here.
inline void arrive(Fibre &machine) {
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (!machine.stack) {
        machine.stack = stack;
        machine.stack_bytes = bytes;
    }
#else
    (void)machine;
#endif
}

// Reports whether the canary was overwritten, and restores it, so that the next launch is not blamed.
inline bool stack_overflowed(const Fibre &fibre) {
    unsigned char *canary = (unsigned char *)fibre.stack - CANARY_BYTES;
    bool overflowed = false;
    for (size_t i = 0; i < CANARY_BYTES; ++i) {
        overflowed |= canary[i] != CANARY;
        canary[i] = CANARY;
    }
    return overflowed;
}

// Assigns the `index`th fibre its part of `stacks`.
inline void place(Fibre &fibre, char *stacks, size_t index) {
    char *low = stacks + index * STACK_STRIDE;
    memset(low, CANARY, CANARY_BYTES);
    fibre.stack = low + CANARY_BYTES;
    fibre.stack_bytes = STACK_BYTES - CANARY_BYTES;
}

} // namespace emulated
