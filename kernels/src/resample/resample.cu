// Whole clips to mono at the features' rate. The filter is that of resample/cpu.rs, evaluated at each output's own time
// between the source samples: as many sets of taps as there are phases, made on the host.

// A clip in the upload buffer.
struct SourceClip {
    long long source; // its first byte; a multiple of 8
    long long out;    // its first sample in the mono buffer
    int n_source;     // samples a channel
    int n_out;
    int is_s16;       // else f32
    int channels;     // 1 or 2, interleaved
};

struct Stereo {
    float left, right;
};

constexpr float S16_SCALE = 1.0f / 32768.0f;

// Sample `n` as the mean of the channels, full scale 1; 0 outside of the clip. As `downmix` in backend/cpu.rs.
DEVICE float mono_sample(const unsigned char *upload, const SourceClip &clip, long long n) {
    if (n < 0 || n >= clip.n_source) {
        return 0.0f;
    }
    const unsigned char *first = upload + clip.source;
    if (clip.is_s16 && clip.channels == 1) {
        return (float)((const short *)first)[n] * S16_SCALE;
    }
    if (clip.is_s16) {
        unsigned pair = ((const unsigned *)first)[n];
        return ((float)(short)(pair & 0xffffu) + (float)(short)(pair >> 16)) * (0.5f * S16_SCALE);
    }
    if (clip.channels == 1) {
        return ((const float *)first)[n];
    }
    Stereo pair = ((const Stereo *)first)[n];
    return (pair.left + pair.right) * 0.5f;
}

struct CopyClips {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
};

// Clips that are at the right rate.
KERNEL(copy_clips, CopyClips) {
    const SourceClip clip = p.clips[blockIdx.x];
    const long long step = (long long)gridDim.y * blockDim.x;
    for (long long n = (long long)blockIdx.y * blockDim.x + threadIdx.x; n < clip.n_out; n += step) {
        p.mono[clip.out + n] = mono_sample(p.upload, clip, n);
    }
}

struct alignas(16) Quad {
    float x, y, z, w;
};

DEVICE void load_quad(const float *from, float *to) {
    const Quad quad = *(const Quad *)from;
    to[0] = quad.x;
    to[1] = quad.y;
    to[2] = quad.z;
    to[3] = quad.w;
}

// Place `at` of an array that has four floats of padding after every 32: threads that each read or write eight floats,
// side by side, then meet in no bank.
DEVICE int padded(int at) { return at + ((at >> 5) << 2); }

// `at` is a multiple of 8.
DEVICE void load_padded(const float *array, int at, float *to) {
    load_quad(array + padded(at), to);
    load_quad(array + padded(at) + 4, to + 4);
}

constexpr int DECIMATE_OUTPUTS = 8; // neighbouring outputs of a thread

struct Decimate {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
    const float *taps; // [down][n_steps]: tap down * i + q is at [q][i]
    int down;          // source samples an output
    int n_steps;       // a multiple of 8
    int half;          // taps before the centre
    int stride;        // floats from one stream to the next in shared memory
};

// The samples under a tile, dealt out to `down` streams: stream q has every down-th sample from the q-th on. Outputs
// that follow each other then need samples that follow each other.
DEVICE void load_streams(const Decimate &p, const SourceClip &clip, long long first, int n_each, float *streams) {
    const long long start = first * p.down - p.half;
    const unsigned down = (unsigned)p.down;
    for (unsigned s = threadIdx.x; s < down * (unsigned)n_each; s += blockDim.x) {
        streams[(s % down) * p.stride + padded((int)(s / down))] = mono_sample(p.upload, clip, start + s);
    }
}

// Adds one stream's products to eight outputs: a window of 16 samples slides over the stream, eight at a time.
DEVICE void add_stream(const float *stream, const float *taps, int n_steps, float *sums) {
    float parts[DECIMATE_OUTPUTS] = {};
    float window[16], tap[8];
    int at = threadIdx.x * DECIMATE_OUTPUTS;
    load_padded(stream, at, window);
    for (int step = 0; step < n_steps; step += 8) {
        at += 8;
        load_padded(stream, at, window + 8);
        load_quad(taps + step, tap);
        load_quad(taps + step + 4, tap + 4);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int r = 0; r < DECIMATE_OUTPUTS; ++r) {
                parts[r] = fmaf(tap[i], window[i + r], parts[r]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            window[i] = window[i + 8];
        }
    }
    for (int r = 0; r < DECIMATE_OUTPUTS; ++r) {
        sums[r] += parts[r];
    }
}

// Rates whose ratio is a whole number. A block computes a tile of eight outputs a thread.
KERNEL(decimate, Decimate) {
    SHARED(float, taps);
    float *streams = taps + p.down * p.n_steps;
    const SourceClip clip = p.clips[blockIdx.x];
    const int n_tile = blockDim.x * DECIMATE_OUTPUTS;
    for (int i = threadIdx.x; i < p.down * p.n_steps; i += blockDim.x) {
        taps[i] = p.taps[i];
    }
    for (long long first = (long long)blockIdx.y * n_tile; first < clip.n_out; first += (long long)gridDim.y * n_tile) {
        load_streams(p, clip, first, n_tile + p.n_steps, streams);
        __syncthreads();
        float sums[DECIMATE_OUTPUTS] = {};
        for (int q = 0; q < p.down; ++q) {
            add_stream(streams + q * p.stride, taps + q * p.n_steps, p.n_steps, sums);
        }
        __syncthreads();
        // Through shared memory, so that neighbouring threads write neighbouring samples.
        Quad *staged = (Quad *)(streams + padded(threadIdx.x * DECIMATE_OUTPUTS));
        staged[0] = {sums[0], sums[1], sums[2], sums[3]};
        staged[1] = {sums[4], sums[5], sums[6], sums[7]};
        __syncthreads();
        for (int i = threadIdx.x; i < n_tile && first + i < clip.n_out; i += blockDim.x) {
            p.mono[clip.out + first + i] = streams[padded(i)];
        }
        __syncthreads();
    }
}

constexpr int POLYPHASE_OUTPUTS = 8; // outputs of a thread, all of one phase

struct Polyphase {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
    const float *taps; // [n_taps][up]: those of output m are at m % up
    int up, down;      // the rates' ratio in lowest terms
    int n_taps;        // even
    int half;          // taps before an output's own time
    int n_columns;     // outputs of a row of the tile, a multiple of `up`
    int unused;
};

// Outputs `column`, `column + n_columns` ...: their phase is one, their samples lie `row_step` apart. Two sums each.
DEVICE void phase_sums(const Polyphase &p, const float *samples, int column, int row_step, float *sums) {
    const float *window = samples + (int)((long long)column * p.down / p.up);
    const float *taps = p.taps + column % p.up;
    float odd[POLYPHASE_OUTPUTS] = {};
    for (int tap = 0; tap < p.n_taps; tap += 2) {
        float weight = taps[0], next = taps[p.up];
        for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
            sums[r] = fmaf(weight, window[r * row_step + tap], sums[r]);
            odd[r] = fmaf(next, window[r * row_step + tap + 1], odd[r]);
        }
        taps += 2 * p.up;
    }
    for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
        sums[r] += odd[r];
    }
}

// Any other ratio. A block computes a tile of eight rows of `n_columns` outputs.
KERNEL(polyphase, Polyphase) {
    SHARED(float, samples);
    const SourceClip clip = p.clips[blockIdx.x];
    const int n_tile = p.n_columns * POLYPHASE_OUTPUTS;
    const int row_step = p.n_columns / p.up * p.down;
    for (long long first = (long long)blockIdx.y * n_tile; first < clip.n_out; first += (long long)gridDim.y * n_tile) {
        const long long start = first / p.up * p.down - p.half;
        for (int s = threadIdx.x; s < POLYPHASE_OUTPUTS * row_step + p.n_taps; s += blockDim.x) {
            samples[s] = mono_sample(p.upload, clip, start + s);
        }
        __syncthreads();
        for (int column = threadIdx.x; column < p.n_columns; column += blockDim.x) {
            float sums[POLYPHASE_OUTPUTS] = {};
            phase_sums(p, samples, column, row_step, sums);
            for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
                long long m = first + (long long)r * p.n_columns + column;
                if (m < clip.n_out) {
                    p.mono[clip.out + m] = sums[r];
                }
            }
        }
        __syncthreads();
    }
}

struct Levels {
    const float *mono;
    const Row *rows;
    unsigned *levels; // bits of each row's largest magnitude; those of a NaN are larger than any number's
};

KERNEL(levels, Levels) {
    const Row row = p.rows[blockIdx.x];
    const long long step = (long long)gridDim.y * blockDim.x;
    unsigned largest = 0;
    for (long long n = (long long)blockIdx.y * blockDim.x + threadIdx.x; n < row.n_pcm; n += step) {
        unsigned bits = __float_as_uint(p.mono[row.pcm + n]) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0 && largest != 0) {
        atomicMax(p.levels + blockIdx.x, largest);
    }
}
