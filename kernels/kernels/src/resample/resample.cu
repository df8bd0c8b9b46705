// Conversion of whole clips to mono at the features' rate. The filter is that of the resampler in the crate signal, evaluated
// at each output's own time between the source samples: one set of taps per phase, computed on the host.

// A clip in the upload buffer.
struct SourceClip {
    long long source; // index of its first byte; a multiple of 8
    long long out;    // index of its first sample in the mono buffer
    int n_source;     // samples per channel
    int n_out;
    int level;        // index of the row that is the whole clip, whose level is computed; -1 if there is none
    int reserved;
};

struct alignas(8) Stereo {
    float left, right;
};

struct alignas(4) StereoS16 {
    short left, right;
};

constexpr float S16_SCALE = 1.0f / 32768.0f;

// Returns one sample as the mean of its channels, with full scale 1, like `downmix` in backend/cpu.rs. Every kernel
// that reads clips has an instance for each of these types, so that the type is not checked for each sample.
DEVICE float mono(float sample) { return sample; }
DEVICE float mono(Stereo pair) { return (pair.left + pair.right) * 0.5f; }
DEVICE float mono(short sample) { return (float)sample * S16_SCALE; }
DEVICE float mono(StereoS16 pair) { return ((float)pair.left + (float)pair.right) * (0.5f * S16_SCALE); }

// Samples `start` to `start + count` of a clip, of which some may be outside of the clip.
template <typename Sample> struct Stretch {
    const Sample *samples;
    long long start, n_source;
    bool is_inside; // all samples are inside the clip
};

template <typename Sample>
DEVICE Stretch<Sample> stretch(const unsigned char *upload, const SourceClip &clip, long long start, int count) {
    const Sample *samples = (const Sample *)(upload + clip.source);
    return {samples, start, clip.n_source, start >= 0 && start + count <= clip.n_source};
}

// Returns sample `s` of a stretch; 0 outside of the clip.
template <typename Sample> DEVICE float sample_of(const Stretch<Sample> &from, int s) {
    if (from.is_inside || (from.start + s >= 0 && from.start + s < from.n_source)) {
        const Sample sample = from.samples[from.start + s];
        return mono(sample);
    }
    return 0.0f;
}

// Returns the bits of the larger magnitude; those of a NaN are larger than any number's.
DEVICE unsigned louder(unsigned largest, float sample) {
    const unsigned bits = __float_as_uint(sample) & 0x7fffffffu;
    return bits > largest ? bits : largest;
}

DEVICE void raise_level(unsigned *level, unsigned largest) {
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0 && largest != 0) {
        atomicMax(level, largest);
    }
}

struct CopyClips {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
    unsigned *levels; // one per row
};

// Copies clips that already have the features' rate.
template <typename Sample> DEVICE void copy_clips(const CopyClips &p) {
    const SourceClip clip = p.clips[blockIdx.x];
    const Sample *samples = (const Sample *)(p.upload + clip.source);
    const long long step = (long long)gridDim.y * blockDim.x;
    unsigned largest = 0;
    for (long long n = (long long)blockIdx.y * blockDim.x + threadIdx.x; n < clip.n_out; n += step) {
        const Sample sample = samples[n];
        const float value = mono(sample);
        p.mono[clip.out + n] = value;
        largest = louder(largest, value);
    }
    if (clip.level >= 0) {
        raise_level(p.levels + clip.level, largest);
    }
}

KERNEL(copy_clips_f32, CopyClips) { copy_clips<float>(p); }
KERNEL(copy_clips_f32_stereo, CopyClips) { copy_clips<Stereo>(p); }
KERNEL(copy_clips_s16, CopyClips) { copy_clips<short>(p); }
KERNEL(copy_clips_s16_stereo, CopyClips) { copy_clips<StereoS16>(p); }

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

// Returns the index of element `at` in an array in which each thread reads or writes eight adjacent floats, four at a
// time. The hardware serves a quarter of a warp at once: without this mapping, every fourth thread would use the same
// banks.
DEVICE int swizzled(int at) { return at ^ ((at >> 3) & 4); }

// Loads the floats `8 at` to `8 at + 8`.
DEVICE void load_swizzled(const float *array, unsigned at, float *to) {
    const Quad *quads = (const Quad *)array;
    const unsigned first = 2 * at ^ (at >> 2 & 1);
    const Quad low = quads[first], high = quads[first ^ 1];
    to[0] = low.x;
    to[1] = low.y;
    to[2] = low.z;
    to[3] = low.w;
    to[4] = high.x;
    to[5] = high.y;
    to[6] = high.z;
    to[7] = high.w;
}

constexpr int DECIMATE_OUTPUTS = 8; // adjacent outputs per thread

struct Decimate {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
    const float *taps; // [down][n_steps]: tap down * i + q is at [q][i]
    int down;          // source samples per output
    int n_steps;       // a multiple of 8
    int half;          // taps before the centre
    int stride;        // floats from the start of one stream to the next in shared memory
    unsigned *levels;  // one per row
};

// Loads the samples of a tile as `down` streams: stream q contains every down-th sample, starting with sample q.
// Consecutive outputs then need consecutive samples of each stream.
template <typename Sample>
DEVICE void load_streams(const Decimate &p, const SourceClip &clip, long long first, int n_each, float *streams) {
    const int count = p.down * n_each;
    const Stretch<Sample> from = stretch<Sample>(p.upload, clip, first * p.down - p.half, count);
    // Sample s is element s / down of stream s % down. Each iteration advances both by the same amounts.
    const int each = blockDim.x / p.down, rest = blockDim.x % p.down;
    int number = threadIdx.x / p.down, stream = threadIdx.x % p.down;
    for (int s = threadIdx.x; s < count; s += blockDim.x) {
        streams[stream * p.stride + swizzled(number)] = sample_of(from, s);
        number += each;
        stream += rest;
        if (stream >= p.down) {
            stream -= p.down;
            ++number;
        }
    }
}

// Adds one stream's products to eight outputs: a window of 16 samples moves over the stream, eight samples at a time.
DEVICE void add_stream(const float *stream, const float *taps, int n_steps, float *sums) {
    float parts[DECIMATE_OUTPUTS] = {};
    float window[16], tap[8];
    unsigned at = threadIdx.x;
    load_swizzled(stream, at, window);
    // Unrolled by two, so that the window is not copied between registers.
#pragma unroll 2
    for (int step = 0; step < n_steps; step += 8) {
        ++at;
        load_swizzled(stream, at, window + 8);
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

// Converts rates whose ratio is a whole number. A block computes a tile of eight outputs per thread.
template <typename Sample> DEVICE void decimate(const Decimate &p) {
    SHARED(float, taps);
    float *streams = taps + p.down * p.n_steps;
    const SourceClip clip = p.clips[blockIdx.x];
    const int n_tile = blockDim.x * DECIMATE_OUTPUTS;
    for (int i = threadIdx.x; i < p.down * p.n_steps; i += blockDim.x) {
        taps[i] = p.taps[i];
    }
    unsigned largest = 0;
    for (long long first = (long long)blockIdx.y * n_tile; first < clip.n_out; first += (long long)gridDim.y * n_tile) {
        load_streams<Sample>(p, clip, first, n_tile + p.n_steps, streams);
        __syncthreads();
        float sums[DECIMATE_OUTPUTS] = {};
        for (int q = 0; q < p.down; ++q) {
            add_stream(streams + q * p.stride, taps + q * p.n_steps, p.n_steps, sums);
        }
        __syncthreads();
        // Write through shared memory, so that neighbouring threads write neighbouring samples.
        const int at = threadIdx.x * DECIMATE_OUTPUTS;
        const Quad left = {sums[0], sums[1], sums[2], sums[3]}, right = {sums[4], sums[5], sums[6], sums[7]};
        *(Quad *)(streams + swizzled(at)) = left;
        *(Quad *)(streams + swizzled(at + 4)) = right;
        __syncthreads();
        float *out = p.mono + clip.out + first;
        const int n_left = clip.n_out - first < n_tile ? (int)(clip.n_out - first) : n_tile;
        for (int i = threadIdx.x; i < n_left; i += blockDim.x) {
            const float value = streams[swizzled(i)];
            out[i] = value;
            largest = louder(largest, value);
        }
        __syncthreads();
    }
    if (clip.level >= 0) {
        raise_level(p.levels + clip.level, largest);
    }
}

KERNEL(decimate_f32, Decimate) { decimate<float>(p); }
KERNEL(decimate_f32_stereo, Decimate) { decimate<Stereo>(p); }
KERNEL(decimate_s16, Decimate) { decimate<short>(p); }
KERNEL(decimate_s16_stereo, Decimate) { decimate<StereoS16>(p); }

constexpr int POLYPHASE_OUTPUTS = 8; // outputs per thread, all of one phase

struct Polyphase {
    const unsigned char *upload;
    float *mono;
    const SourceClip *clips;
    const float *taps; // [n_taps][up]: the taps of output m are at m % up
    int up, down;      // the rates' ratio in lowest terms
    int n_taps;        // even
    int half;          // taps before the time of an output
    int n_columns;     // outputs per row of the tile, a multiple of `up`
    int unused;
    unsigned *levels;  // one per row
};

// Computes outputs `column`, `column + n_columns` ..., which have the same phase; their samples are `row_step` apart.
// Each output is computed as two sums.
DEVICE void phase_sums(const Polyphase &p, const float *samples, int column, int row_step, float *sums) {
    // A tile fits into shared memory, so the product is far below 2^32.
    const unsigned place = (unsigned)column * (unsigned)p.down, up = (unsigned)p.up;
    const float *taps = p.taps + (unsigned)column % up;
    // One pointer per row, advanced in each iteration: otherwise the address would be computed for each access.
    const float *windows[POLYPHASE_OUTPUTS];
    for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
        windows[r] = samples + place / up + r * row_step;
    }
    float odd[POLYPHASE_OUTPUTS] = {};
#pragma unroll 4
    for (int tap = 0; tap < p.n_taps; tap += 2) {
        const float weight = taps[0], next = taps[p.up];
#pragma unroll
        for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
            sums[r] = fmaf(weight, windows[r][0], sums[r]);
            odd[r] = fmaf(next, windows[r][1], odd[r]);
            windows[r] += 2;
        }
        taps += 2 * p.up;
    }
    for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
        sums[r] += odd[r];
    }
}

// Converts rates with any other ratio. A block computes a tile of eight rows of `n_columns` outputs.
template <typename Sample> DEVICE void polyphase(const Polyphase &p) {
    SHARED(float, samples);
    const SourceClip clip = p.clips[blockIdx.x];
    const int n_tile = p.n_columns * POLYPHASE_OUTPUTS;
    const int row_step = p.n_columns / p.up * p.down;
    const int count = POLYPHASE_OUTPUTS * row_step + p.n_taps;
    unsigned largest = 0;
    for (long long first = (long long)blockIdx.y * n_tile; first < clip.n_out; first += (long long)gridDim.y * n_tile) {
        const Stretch<Sample> from = stretch<Sample>(p.upload, clip, first / p.up * p.down - p.half, count);
        for (int s = threadIdx.x; s < count; s += blockDim.x) {
            samples[s] = sample_of(from, s);
        }
        __syncthreads();
        for (int column = threadIdx.x; column < p.n_columns; column += blockDim.x) {
            float sums[POLYPHASE_OUTPUTS] = {};
            phase_sums(p, samples, column, row_step, sums);
            for (int r = 0; r < POLYPHASE_OUTPUTS; ++r) {
                long long m = first + (long long)r * p.n_columns + column;
                if (m < clip.n_out) {
                    p.mono[clip.out + m] = sums[r];
                    largest = louder(largest, sums[r]);
                }
            }
        }
        __syncthreads();
    }
    if (clip.level >= 0) {
        raise_level(p.levels + clip.level, largest);
    }
}

KERNEL(polyphase_f32, Polyphase) { polyphase<float>(p); }
KERNEL(polyphase_f32_stereo, Polyphase) { polyphase<Stereo>(p); }
KERNEL(polyphase_s16, Polyphase) { polyphase<short>(p); }
KERNEL(polyphase_s16_stereo, Polyphase) { polyphase<StereoS16>(p); }

struct Levels {
    const float *mono;
    const Row *rows;
    unsigned *levels; // one per row
};

// Computes the levels of rows that are parts of clips; the kernels above compute those of whole clips.
KERNEL(levels, Levels) {
    const Row row = p.rows[blockIdx.x];
    const long long step = (long long)gridDim.y * blockDim.x;
    unsigned largest = 0;
    for (long long n = (long long)blockIdx.y * blockDim.x + threadIdx.x; n < row.n_pcm; n += step) {
        largest = louder(largest, p.mono[row.pcm + n]);
    }
    raise_level(p.levels + blockIdx.x, largest);
}
