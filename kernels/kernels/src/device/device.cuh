// Common definitions of all kernels. The same source is compiled for GPUs (NVRTC, nvcc) and, with emulated/cuda.h, as
// C++.
#ifndef WAVEMILL_EMULATED
#define KERNEL(name, Params) extern "C" __global__ void name(const Params p)
// For blocks of at most `threads`, of which a multiprocessor must hold at least `blocks`: this limits the registers.
#define KERNEL_OF(name, Params, threads, blocks)                                                                      \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Params p)
extern __shared__ __align__(16) unsigned char shared_bytes[];
#define SHARED(type, name) type *name = reinterpret_cast<type *>(shared_bytes)
#define DEVICE __device__ __forceinline__
#endif

// Returns `x` as a value about which the compiler knows nothing. Expressions in a loop that depend on it are then
// computed inside of the loop and occupy no register across its iterations.
#ifdef WAVEMILL_EMULATED
DEVICE int made_anew(int x) { return x; }
#else
DEVICE int made_anew(int x) {
    asm volatile("" : "+r"(x));
    return x;
}
#endif

// Returns a product that is rounded before anything is added to it, where compilers might fuse both operations: equal
// arguments then produce equal results everywhere in the code, and the same results as on the CPU.
#ifdef WAVEMILL_EMULATED
DEVICE float product(float a, float b) { return a * b; }
#else
DEVICE float product(float a, float b) { return __fmul_rn(a, b); }
#endif

// 10 / ln 10: factor from a natural logarithm to decibels.
constexpr float DB_PER_NEPER = 4.342944819032518f;

// Has the alignment of the FFT library's complex type, and is read in one access.
template <typename T> struct alignas(2 * sizeof(T)) Complex {
    T re, im;
};

// Maps floats to unsigned numbers in the same order, so that integer atomics can compute extremes; 0 is below every
// float.
DEVICE unsigned ordered_key(float x) {
    unsigned bits = __float_as_uint(x);
    return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

DEVICE float from_ordered_key(unsigned key) {
    return __uint_as_float((key >> 31) ? key ^ 0x80000000u : ~key);
}

// Natural logarithm of a normal positive number, by the same series as on the CPU (db/cpu.rs), so that decibels do not
// depend on a device's libm.
DEVICE float ln(float x) {
    int shifted = (int)(__float_as_uint(x) - 0x3f3504f3u);
    int exponent = shifted >> 23;
    float m = __uint_as_float(__float_as_uint(x) - ((unsigned)exponent << 23));
    float s = (m - 1.0f) / (m + 1.0f);
    float s2 = product(s, s);
    float tail = product(s2, 1.0f / 7.0f + product(s2, 1.0f / 9.0f));
    tail = product(s2, 1.0f / 3.0f + product(s2, 1.0f / 5.0f + tail));
    return product((float)exponent, 0.6931471805599453f) + product(2.0f, s + product(s, tail));
}

// Returns the largest of a warp's 32 values in every lane.
DEVICE unsigned warp_max(unsigned x) {
    for (int step = 16; step > 0; step >>= 1) {
        unsigned other = __shfl_xor_sync(0xffffffffu, x, step);
        x = other > x ? other : x;
    }
    return x;
}

// Smallest and largest value of a row (a clip or a segment), as keys that start at 0.
struct Range {
    unsigned max_key, inverted_min_key;
};

DEVICE float range_max(const Range &range) { return from_ordered_key(range.max_key); }
DEVICE float range_min(const Range &range) { return from_ordered_key(~range.inverted_min_key); }

// Extremes of the values processed by one thread: {0, 0} before the first value.
using Seen = Range;

DEVICE void see(Seen &seen, float x) {
    unsigned key = ordered_key(x);
    seen.max_key = key > seen.max_key ? key : seen.max_key;
    seen.inverted_min_key = ~key > seen.inverted_min_key ? ~key : seen.inverted_min_key;
}

// Extends `range` by the extremes of a warp's threads.
DEVICE void widen_range(Range *range, Seen seen) {
    unsigned max_key = warp_max(seen.max_key);
    unsigned inverted_min_key = warp_max(seen.inverted_min_key);
    if ((threadIdx.x & 31) == 0 && max_key != 0) {
        atomicMax(&range->max_key, max_key);
        atomicMax(&range->inverted_min_key, inverted_min_key);
    }
}

// Like widen_range for a single thread, if a warp's threads process different rows. Extremes only grow, so reading a
// possibly outdated value first is harmless and avoids most atomics.
DEVICE void widen_alone(Range *range, Seen seen) {
    const volatile Range *now = range;
    if (seen.max_key > now->max_key) {
        atomicMax(&range->max_key, seen.max_key);
    }
    if (seen.inverted_min_key > now->inverted_min_key) {
        atomicMax(&range->inverted_min_key, seen.inverted_min_key);
    }
}

// One clip, or one segment of it.
struct Row {
    long long pcm;   // index of the first sample in the mono buffer
    long long frame; // number of frames before the row in the batch
    int n_pcm;       // samples that exist
    int n_signal;    // length including the zeros that follow
    int n_frames;    // computed frames
    int n_kept;      // stored frames
};

// Returns the sum over a group of whole warps in every thread of it; `scratch` has one element per warp. The order of
// additions is fixed.
DEVICE double group_sum(double x, double *scratch, int first_warp, int n_warps) {
    for (int step = 16; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    if ((threadIdx.x & 31) == 0) {
        scratch[threadIdx.x >> 5] = x;
    }
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < n_warps; ++warp) {
        sum += scratch[first_warp + warp];
    }
    __syncthreads();
    return sum;
}
