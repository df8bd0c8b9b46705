// The part of CUDA that kernels use, as C++. Include after block.h and before device.cuh, which defines these macros
// for GPUs.

#define KERNEL(name, Params)                                                                                          \
    static void name(const Params &p);                                                                                \
    extern "C" __attribute__((visibility("default"))) int emulated_##name(                                            \
        const void *params, unsigned bytes, const emulated::Launch *launch, char *report, size_t report_bytes) {      \
        return emulated::launch<Params, name>(#name, params, bytes, *launch, report, report_bytes);                   \
    }                                                                                                                 \
    static void name(const Params &p)
#define KERNEL_OF(name, Params, threads, blocks) KERNEL(name, Params)
#define SHARED(type, name) type *name = reinterpret_cast<type *>(emulated::block->shared)
#define DEVICE static inline

#define threadIdx (emulated::self->index)
#define blockIdx (emulated::block->at)
#define blockDim (emulated::block->threads)
#define gridDim (emulated::block->grid)

// The source location of the call distinguishes threads that wait at different barriers or shuffles.
#define __syncthreads() emulated::barrier(__FILE__, __LINE__)
#define __shfl_sync(mask, value, from) emulated::exchange(mask, value, (from) % 32u, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, by) emulated::exchange(mask, value, emulated::lane_xor(by), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, by) emulated::exchange(mask, value, emulated::lane_down(by), __FILE__, __LINE__)

template <typename T> DEVICE T __ldg(const T *at) { return *at; }

DEVICE unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

DEVICE float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// All threads that share memory take turns, so these operations are atomic.
DEVICE unsigned atomicMax(unsigned *at, unsigned value) {
    unsigned old = *at;
    *at = old > value ? old : value;
    return old;
}

DEVICE unsigned atomicMin(unsigned *at, unsigned value) {
    unsigned old = *at;
    *at = old < value ? old : value;
    return old;
}

DEVICE unsigned atomicOr(unsigned *at, unsigned value) {
    unsigned old = *at;
    *at = old | value;
    return old;
}

extern "C" {
// For buffers in Rust: makes AddressSanitizer report accesses to this memory.
__attribute__((visibility("default"))) void emulated_poison(const void *at, size_t bytes) { emulated::poison(at, bytes); }
}
