// Samples to mel bands in one kernel, for n_fft from 2^8 to 2^12: a block's samples are read once, everything up to the
// bands stays in shared memory.

struct FusedMel {
    const float *pcm;
    const Row *rows;
    const float *window;           // [win_length]
    const Complex<float> *twiddles; // exp(-2 pi i t / n_fft), t < n_fft
    const MelBand *bands;
    const float *weights;
    float *out;     // [row][band][frame]
    Range *ranges;  // over all frames of a row
    Range *kept;    // over those that are stored
    int n_rows, n_mels;
    int tile_frames, group_threads; // frames a block; threads a frame: n_fft / 8
    float exponent;
    int reserved;
    Framing framing;
};

struct FusedShared {
    Complex<float> *work; // [groups][n_fft / 2]
    float *power;         // [groups][n_fft / 2 + 1]
    float *tile;          // [n_mels][tile_frames]
    float *samples;       // [span of the tile]
};

// Host code reckons with the same sizes (stft/device.rs).
DEVICE FusedShared fused_shared(float *shared, const FusedMel &p, int groups) {
    FusedShared s;
    s.work = (Complex<float> *)shared;
    s.power = shared + groups * p.framing.n_fft;
    s.tile = s.power + groups * (p.framing.n_fft / 2 + 1);
    s.samples = s.tile + p.n_mels * p.tile_frames;
    return s;
}

DEVICE Complex<float> times(Complex<float> a, Complex<float> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

DEVICE void butterfly2(Complex<float> &a, Complex<float> &b) {
    Complex<float> sum = {a.re + b.re, a.im + b.im};
    b = {a.re - b.re, a.im - b.im};
    a = sum;
}

DEVICE void butterfly4(Complex<float> *v) {
    butterfly2(v[0], v[2]);
    butterfly2(v[1], v[3]);
    v[3] = {v[3].im, -v[3].re}; // by -i
    butterfly2(v[0], v[1]);
    butterfly2(v[2], v[3]);
    Complex<float> swap = v[1];
    v[1] = v[2];
    v[2] = swap;
}

// Complex transform of m points in place, radix 4 with one radix-2 stage last where log2 m is odd. `v` holds the inputs
// j, j + m/4, j + m/2, j + 3m/4 of thread j. Stockham's order: each stage reads all, waits, and writes sorted.
// Source: Govindaraju et al., High Performance Discrete Fourier Transforms on Graphics Processors (2008).
DEVICE void transform(Complex<float> *v, Complex<float> *work, const Complex<float> *twiddles, int m, int j) {
    int quarter = m / 4;
    for (int done = 1; done < m;) {
        bool four = done * 4 <= m;
        int k = j % done;
        if (done > 1) {
            for (int r = 0; r < 4; ++r) {
                v[r] = work[j + r * quarter];
            }
        }
        __syncthreads();
        if (four) {
            // exp(-2 pi i r k / (4 done)): the table has steps of 1 / (2 m).
            int step = 2 * k * (m / (done * 4));
            for (int r = 1; r < 4; ++r) {
                v[r] = times(v[r], twiddles[r * step]);
            }
            butterfly4(v);
            int place = (j / done) * done * 4 + k;
            for (int r = 0; r < 4; ++r) {
                work[place + r * done] = v[r];
            }
        } else {
            // Two butterflies: j with j + m/2, and j + m/4 with j + 3m/4.
            v[2] = times(v[2], twiddles[2 * j]);
            v[3] = times(v[3], twiddles[2 * (j + quarter)]);
            butterfly2(v[0], v[2]);
            butterfly2(v[1], v[3]);
            for (int r = 0; r < 4; ++r) {
                work[j + r * quarter] = v[r];
            }
        }
        __syncthreads();
        done *= four ? 4 : 2;
    }
}

// Powers of the real transform of 2 m points from the complex one of m over (even, odd) pairs; as stft/fft.rs.
DEVICE void separate(const Complex<float> *z, float *power, const FusedMel &p, int m, int j) {
    for (int k = j; k <= m / 2; k += p.group_threads) {
        Complex<float> a = z[k], b = z[(m - k) % m], w = p.twiddles[k];
        float e_re = a.re + b.re, e_im = a.im - b.im;
        float o_re = a.im + b.im, o_im = b.re - a.re;
        float t_re = w.re * o_re - w.im * o_im, t_im = w.re * o_im + w.im * o_re;
        float x_re = e_re + t_re, x_im = e_im + t_im, y_re = e_re - t_re, y_im = e_im - t_im;
        power[k] = raise(0.25f * (x_re * x_re + x_im * x_im), p.exponent);
        power[m - k] = raise(0.25f * (y_re * y_re + y_im * y_im), p.exponent);
    }
}

// The thread's eight samples of a frame, conditioned and windowed, as four pairs.
DEVICE void load_pairs(Complex<float> *v, const float *samples, double *scratch, const FusedMel &p, int j) {
    const Framing &f = p.framing;
    float mean = 0.0f;
    if (f.remove_dc) {
        double sum = 0.0;
        for (int i = j; i < f.win_length; i += p.group_threads) {
            sum += (double)product(samples[i], f.scale);
        }
        int first_warp = (threadIdx.x - j) / 32;
        mean = (float)(group_sum(sum, scratch, first_warp, p.group_threads / 32) / f.win_length);
    }
    for (int r = 0; r < 4; ++r) {
        float pair[2];
        for (int side = 0; side < 2; ++side) {
            int i = 2 * (j + r * p.group_threads) + side;
            bool inside = i < f.win_length;
            float x = inside ? condition(samples[i], samples[i > 0 ? i - 1 : 0], mean, f) : 0.0f;
            pair[side] = inside ? x * p.window[i] : 0.0f;
        }
        v[r] = {pair[0], pair[1]};
    }
}

// Bands of one frame into its column of the tile.
DEVICE void mel_column(const float *power, float *column, const FusedMel &p, int j, bool there, Seen &seen) {
    for (int band = j; band < p.n_mels; band += p.group_threads) {
        MelBand b = p.bands[band];
        float sum = mel_sum(power + b.first_bin, p.weights + b.first_weight, b.n_bins);
        column[band * p.tile_frames] = sum;
        if (there) {
            see(seen, sum);
        }
    }
}

DEVICE void fused_tile(const FusedMel &p, const FusedShared &s, int row_at, int first) {
    Row row = p.rows[row_at];
    const Framing &f = p.framing;
    int m = f.n_fft / 2, j = threadIdx.x % p.group_threads, group = threadIdx.x / p.group_threads;
    int groups = blockDim.x / p.group_threads, span = (p.tile_frames - 1) * f.hop_length + f.win_length;
    long long start = (long long)first * f.hop_length + f.start;
    for (int i = threadIdx.x; i < span; i += blockDim.x) {
        s.samples[i] = sample_at(p.pcm, row, start + i, f.pad_mode);
    }
    __syncthreads();
    Complex<float> *work = s.work + group * m;
    float *power = s.power + group * (m + 1);
    Seen all = {0, 0}, kept = {0, 0};
    for (int column = group; column - group < p.tile_frames; column += groups) {
        Complex<float> v[4];
        load_pairs(v, s.samples + column * f.hop_length, (double *)s.work, p, j);
        transform(v, work, p.twiddles, m, j);
        separate(work, power, p, m, j);
        __syncthreads();
        int frame = first + column;
        mel_column(power, s.tile + column, p, j, frame < row.n_frames, all);
        kept = frame < row.n_kept ? all : kept;
    }
    __syncthreads();
    float *out = p.out + p.n_mels * row.frame + first;
    for (int i = threadIdx.x; i < p.n_mels * p.tile_frames; i += blockDim.x) {
        int column = i % p.tile_frames;
        if (first + column < row.n_frames) {
            out[(long long)(i / p.tile_frames) * row.n_frames + column] = s.tile[i];
        }
    }
    widen_range(p.ranges + row_at, all);
    widen_range(p.kept + row_at, kept);
    __syncthreads();
}

// Blocks along x: tiles of a row; along y: rows.
KERNEL(fused_mel, FusedMel) {
    SHARED(float, shared);
    FusedShared s = fused_shared(shared, p, blockDim.x / p.group_threads);
    for (int row = blockIdx.y; row < p.n_rows; row += gridDim.y) {
        for (int first = blockIdx.x * p.tile_frames; first < p.rows[row].n_frames; first += gridDim.x * p.tile_frames) {
            fused_tile(p, s, row, first);
        }
    }
}
