// Kernels for the tests of the emulation. Include after device.cuh.

struct Test {
    float *out;
    int n, reserved;
};

// Sums n values per block with barriers: any order of threads produces the same bits.
KERNEL(sums, Test) {
    SHARED(float, shared);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < p.n; i += blockDim.x) {
        sum += 1.0f / (float)(i + 1 + (int)blockIdx.x);
    }
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            shared[threadIdx.x] += shared[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        p.out[blockIdx.y * gridDim.x + blockIdx.x] = shared[0];
    }
}

// Sums by shuffles, and computes a block's maximum.
KERNEL(shuffles, Test) {
    SHARED(double, scratch);
    double sum = group_sum((double)threadIdx.x, scratch, 0, blockDim.x / 32);
    unsigned down = __shfl_down_sync(0xffffffffu, threadIdx.x, 3);
    float first = __shfl_sync(0xffffffffu, (float)threadIdx.x, 32 + 7);
    unsigned largest = warp_max(threadIdx.x);
    if (blockIdx.x == 0) {
        float *out = p.out + 4 * threadIdx.x;
        out[0] = (float)sum;
        out[1] = (float)down;
        out[2] = first;
        out[3] = (float)largest;
    }
}

// Reads values written by neighbours without a barrier.
KERNEL(race, Test) {
    SHARED(float, shared);
    shared[threadIdx.x] = (float)threadIdx.x;
    p.out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

// Records the first writer in a block and the first block that writes.
KERNEL(first, Test) {
    unsigned *place = (unsigned *)p.out;
    atomicMin(place, threadIdx.x);
    if (place[1] == 0xffffffffu) {
        place[1] = blockIdx.x * blockDim.x + threadIdx.x;
    }
}

KERNEL(divergent_barrier, Test) {
    if (threadIdx.x < 40) {
        __syncthreads();
    }
}

KERNEL(two_barriers, Test) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

KERNEL(divergent_shuffle, Test) {
    if (threadIdx.x != 37) {
        p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    }
}

KERNEL(narrow_shuffle, Test) { p.out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1); }

KERNEL(beyond_shared, Test) {
    SHARED(float, shared);
    __syncthreads();
    int index = threadIdx.x;
    shared[index + (index == 33 ? p.n : 0)] = 0.0f;
    __syncthreads();
}

KERNEL(beyond_global, Test) { p.out[p.n] = 0.0f; }

KERNEL(uninitialised, Test) {
    SHARED(float, shared);
    p.out[threadIdx.x] = shared[threadIdx.x];
    shared[threadIdx.x] = 1.0f; // must not be visible to the next block
}

// Not inlined, because two inlined copies would share a frame.
template <int floats> __attribute__((noinline)) float large_frame() {
    volatile float frame[floats];
    for (int i = 0; i < floats; ++i) {
        frame[i] = (float)i;
    }
    return frame[floats - 1];
}

// Stacks have 16,384 floats.
KERNEL(large_stack, Test) {
    if (threadIdx.x == 32) {
        p.out[0] = p.n ? large_frame<16500>() : large_frame<16000>();
    }
}

KERNEL(many_barriers, Test) {
    SHARED(float, shared);
    shared[threadIdx.x] = 1.0f;
    for (int i = 0; i < p.n; ++i) {
        __syncthreads();
        shared[threadIdx.x ^ (i & 1)] += 1.0f;
    }
    p.out[threadIdx.x] = shared[threadIdx.x];
}
