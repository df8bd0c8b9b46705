// Frames of a signal: padding, conditioning and window, for transforms of any length.

// Parameters of all frames of a feature.
struct Framing {
    int n_fft, hop_length, win_length;
    int start;      // first sample under the window of frame 0; negative if it is padding
    int pad_mode;   // PAD_*
    int remove_dc;  // subtract the frame's mean
    float scale, preemphasis;
};

enum { PAD_ZEROS = 0, PAD_REFLECT = 1, PAD_EDGE = 2 };

// Returns the sample at `index` of a row's signal, which may be before its start or after its end.
DEVICE float sample_at(const float *pcm, const Row &row, long long index, int pad_mode) {
    long long last = row.n_signal - 1;
    if (index < 0 || index > last) {
        if (pad_mode == PAD_EDGE) {
            index = index < 0 ? 0 : last;
        } else if (pad_mode == PAD_REFLECT) {
            long long period = last > 0 ? 2 * last : 1;
            long long turn = index % period;
            turn += turn < 0 ? period : 0;
            index = last == 0 ? 0 : (turn < period - turn ? turn : period - turn);
        } else {
            return 0.0f;
        }
    }
    return index < row.n_pcm ? pcm[row.pcm + index] : 0.0f;
}

// Applies scale, DC removal and pre-emphasis, in Kaldi's order: `x` is the sample, `before` the previous one in the
// frame (for the first sample, itself). Scaled samples are rounded like those from which `mean` was computed, so that a
// constant signal becomes 0.
DEVICE float condition(float x, float before, float mean, const Framing &framing) {
    x = product(x, framing.scale) - mean;
    before = product(before, framing.scale) - mean;
    return framing.preemphasis == 0.0f ? x : x - framing.preemphasis * before;
}

// Returns the row that contains frame `frame` of the batch: the last row that begins at or before it and has frames.
DEVICE int row_of_frame(const Row *rows, int n_rows, long long frame) {
    int low = 0, high = n_rows;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (rows[middle].frame <= frame) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Returns |x|² raised to `exponent` / 2.
DEVICE float raise(float power, float exponent) {
    if (exponent == 2.0f) {
        return power;
    }
    return exponent == 1.0f ? sqrtf(power) : (float)pow((double)power, (double)exponent * 0.5);
}

struct Frames {
    const float *pcm;
    const Row *rows;
    const void *window; // in the transform's precision
    void *frames;       // [count][n_fft], real or complex
    long long first;    // first frame of the batch
    int count, n_frames; // frames to write; frames after n_frames of the batch are zeros
    int n_rows;
    int sample_numbers; // 1: real samples; 2: complex samples, whose imaginary parts are 0
    Framing framing;
};

// One block per frame.
template <typename Real> DEVICE void write_frames(const Frames &p) {
    SHARED(double, scratch);
    const Framing &f = p.framing;
    const Real *window = (const Real *)p.window;
    for (int at = blockIdx.x; at < p.count; at += gridDim.x) {
        Real *out = (Real *)p.frames + (long long)at * f.n_fft * p.sample_numbers;
        bool there = p.first + at < p.n_frames;
        Row row = p.rows[row_of_frame(p.rows, p.n_rows, there ? p.first + at : 0)];
        long long start = (p.first + at - row.frame) * f.hop_length + f.start;
        float mean = 0.0f;
        if (f.remove_dc) {
            double sum = 0.0;
            for (int i = threadIdx.x; i < f.win_length; i += blockDim.x) {
                sum += there ? (double)product(sample_at(p.pcm, row, start + i, f.pad_mode), f.scale) : 0.0;
            }
            mean = (float)(group_sum(sum, scratch, 0, blockDim.x / 32) / f.win_length);
        }
        for (int i = threadIdx.x; i < f.n_fft; i += blockDim.x) {
            Real value = 0;
            if (there && i < f.win_length) {
                float x = sample_at(p.pcm, row, start + i, f.pad_mode);
                float before = sample_at(p.pcm, row, start + (i > 0 ? i - 1 : 0), f.pad_mode);
                value = (Real)condition(x, before, mean, f) * window[i];
            }
            out[i * p.sample_numbers] = value;
            if (p.sample_numbers == 2) {
                out[2 * i + 1] = 0;
            }
        }
    }
}

KERNEL(frames_f32, Frames) { write_frames<float>(p); }
KERNEL(frames_f64, Frames) { write_frames<double>(p); }
