// Computes mel bands from samples in one kernel, for n_fft from 2^8 to 2^12: a block reads its samples once, and all
// intermediate values stay in shared memory.
//
// There is a kernel for each length, so that all indices of the transform are constants, and a second one with pow,
// because few features need it.

struct FusedMel {
    const float *pcm;
    const Row *rows;
    const float *window;            // [win_length], followed by a zero if the length is odd
    const Complex<float> *twiddles; // rows in the order described at first_twiddle
    const MelBand *bands;
    const float *weights;
    float *out;     // [row][band][frame]
    Range *ranges;  // range of each row over all frames
    Range *kept;    // range of each row over the stored frames
    int n_rows, n_mels;
    int weight_step; // distance between consecutive weights of a band
    int tile_shift;  // a block computes 2^tile_shift frames
    float exponent;
    int reserved;
    Framing framing;
};

// Constants that depend only on the length. The host code uses the same sizes (stft/fused.rs).
template <int N> struct FusedLength {
    static constexpr int M = N / 2;              // points of the complex transform
    static constexpr int QUARTER = M / 4;        // threads per frame, each with four points
    static constexpr int GROUPS = QUARTER < 256 ? 256 / QUARTER : 1; // frames computed at once
    static constexpr int THREADS = GROUPS * QUARTER;
};

// Twiddle factors are stored in the order in which they are read: for every stage of radix 4 but the first (`done` is
// 4, 16 ...), three rows of exp(-2 pi i r k / (4 done)) over k < done, r = 1, 2, 3; for a stage of radix 2, one row of
// exp(-2 pi i k / M) over k < M / 2; then exp(-2 pi i k / N) over k <= M / 2. Rows fill whole cache lines.
DEVICE constexpr int twiddle_row(int done) { return done < 16 ? 16 : done; }

DEVICE constexpr int first_twiddle(int done) {
    int at = 0;
    for (int earlier = 4; earlier < done; earlier *= 4) {
        at += 3 * twiddle_row(earlier);
    }
    return at;
}

DEVICE constexpr int first_last_twiddle(int m) {
    int done = 4;
    while (done * 4 <= m) {
        done *= 4;
    }
    return first_twiddle(done) + (done < m ? done : 0);
}

struct FusedShared {
    Complex<float> *work; // [GROUPS][M]
    float *samples;       // [span of the tile], and up to two more, because samples are read in pairs
    float *power;         // [GROUPS][M + 1]
    float *tile;          // [n_mels][column_step]
    int column_step;      // odd, so that neighbouring bands are in different banks
};

template <int N> DEVICE FusedShared fused_shared(float *shared, const FusedMel &p) {
    using Length = FusedLength<N>;
    int span = (((1 << p.tile_shift) - 1) * p.framing.hop_length + p.framing.win_length + 2) & ~1;
    FusedShared s;
    s.work = (Complex<float> *)shared;
    s.samples = shared + Length::GROUPS * N;
    s.power = s.samples + span;
    s.tile = s.power + Length::GROUPS * (Length::M + 1);
    s.column_step = (1 << p.tile_shift) | 1;
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
    v[3] = {v[3].im, -v[3].re}; // times -i
    butterfly2(v[0], v[1]);
    butterfly2(v[2], v[3]);
    Complex<float> swap = v[1];
    v[1] = v[2];
    v[2] = swap;
}

// Returns the index of point `i` between two stages. Shared memory serves half a warp at once, which writes points that
// differ in bits 2 to 5 of `i` (first stage), in bits 0, 1, 4 and 5 (second), or in bits 0 to 3 (all other stages and
// all reads). Combining bits 4 and 5 with the lower four bits by xor maps each of these to sixteen different pairs of
// banks.
DEVICE int exchanged(int i) { return i ^ (((i >> 4) & 3) * 5); }

// A stage of radix 4 that combines transforms of DONE points. The last stage writes in natural order.
template <int N, int DONE> DEVICE void stage4(Complex<float> *v, Complex<float> *work, const Complex<float> *all, int j) {
    using Length = FusedLength<N>;
    constexpr bool IS_LAST = DONE * 4 == Length::M;
    const int k = j % DONE;
    if constexpr (DONE > 1) {
        constexpr int FIRST = first_twiddle(DONE), ROW = twiddle_row(DONE);
#pragma unroll
        for (int r = 1; r < 4; ++r) {
            const Complex<float> twiddle = all[FIRST + (r - 1) * ROW + k];
            v[r] = times(v[r], twiddle);
        }
    }
    butterfly4(v);
    const int place = (j / DONE) * DONE * 4 + k;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        const int i = place + r * DONE;
        work[IS_LAST ? i : exchanged(i)] = v[r];
    }
}

// The last stage if log2 M is odd. Two butterflies: j with j + M/2, and j + M/4 with j + 3M/4.
template <int N> DEVICE void stage2(Complex<float> *v, Complex<float> *work, const Complex<float> *all, int j) {
    using Length = FusedLength<N>;
    constexpr int FIRST = first_twiddle(Length::M / 2);
    const Complex<float> twiddle = all[FIRST + j], other = all[FIRST + j + Length::QUARTER];
    v[2] = times(v[2], twiddle);
    v[3] = times(v[3], other);
    butterfly2(v[0], v[2]);
    butterfly2(v[1], v[3]);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        work[j + r * Length::QUARTER] = v[r];
    }
}

// Complex transform of M points in place, radix 4, with a final stage of radix 2 if log2 M is odd. `v` holds the inputs
// j, j + M/4, j + M/2, j + 3M/4 of thread j. Stockham's order: in each stage all threads read, synchronize, and write
// sorted.
// Source: Govindaraju et al., High Performance Discrete Fourier Transforms on Graphics Processors (2008).
template <int N, int DONE> DEVICE void transform(Complex<float> *v, Complex<float> *work, const Complex<float> *all, int j) {
    using Length = FusedLength<N>;
    if constexpr (DONE < Length::M) {
        // Before the first stage, no thread reads `work` any more.
        if constexpr (DONE > 1) {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                v[r] = work[exchanged(j + r * Length::QUARTER)];
            }
            __syncthreads();
        }
        if constexpr (DONE * 4 <= Length::M) {
            stage4<N, DONE>(v, work, all, j);
        } else {
            stage2<N>(v, work, all, j);
        }
        __syncthreads();
        transform<N, DONE * 4>(v, work, all, j);
    }
}

template <bool ANY> DEVICE float raised(float power, float exponent) {
    if (ANY) {
        return raise(power, exponent);
    }
    return exponent == 2.0f ? power : sqrtf(power);
}

// Computes the powers of the real transform of N points from the complex one of M over (even, odd) pairs, as in
// stft/fft.rs.
template <int N, bool ANY> DEVICE void separate(const Complex<float> *z, float *power, const FusedMel &p, int j) {
    using Length = FusedLength<N>;
    constexpr int M = Length::M, FIRST = first_last_twiddle(M);
    for (int k = j; k <= M / 2; k += Length::QUARTER) {
        const Complex<float> a = z[k], b = z[(M - k) & (M - 1)], w = p.twiddles[FIRST + k];
        float e_re = a.re + b.re, e_im = a.im - b.im;
        float o_re = a.im + b.im, o_im = b.re - a.re;
        float t_re = w.re * o_re - w.im * o_im, t_im = w.re * o_im + w.im * o_re;
        float x_re = e_re + t_re, x_im = e_im + t_im, y_re = e_re - t_re, y_im = e_im - t_im;
        power[k] = raised<ANY>(0.25f * (x_re * x_re + x_im * x_im), p.exponent);
        power[M - k] = raised<ANY>(0.25f * (y_re * y_re + y_im * y_im), p.exponent);
    }
}

// Returns samples `i` and `i + 1` of a frame, conditioned and windowed; zeros after the end of the window. `i` is even.
DEVICE Complex<float> windowed_pair(const float *samples, int i, bool is_aligned, float mean, const FusedMel &p) {
    const Framing &f = p.framing;
    if (i >= f.win_length) {
        return {0.0f, 0.0f};
    }
    Complex<float> x;
    if (is_aligned) {
        x = *(const Complex<float> *)(samples + i);
    } else {
        x.re = samples[i];
        x.im = samples[i + 1];
    }
    float before = 0.0f;
    if (f.preemphasis != 0.0f) {
        before = samples[i > 0 ? i - 1 : 0];
    }
    const Complex<float> window = ((const Complex<float> *)p.window)[i / 2];
    Complex<float> pair = {condition(x.re, before, mean, f) * window.re, 0.0f};
    if (i + 1 < f.win_length) {
        pair.im = condition(x.im, x.re, mean, f) * window.im;
    }
    return pair;
}

// Loads the thread's eight samples of a frame as four pairs.
template <int N> DEVICE void load_pairs(Complex<float> *v, const float *samples, double *scratch, const FusedMel &p, int j) {
    constexpr int QUARTER = FusedLength<N>::QUARTER;
    const Framing &f = p.framing;
    float mean = 0.0f;
    if (f.remove_dc) {
        double sum = 0.0;
        for (int i = j; i < f.win_length; i += QUARTER) {
            sum += (double)product(samples[i], f.scale);
        }
        int first_warp = (threadIdx.x - j) / 32;
        mean = (float)(group_sum(sum, scratch, first_warp, QUARTER / 32) / f.win_length);
    }
    const bool is_aligned = f.hop_length % 2 == 0;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        v[r] = windowed_pair(samples, 2 * (j + r * QUARTER), is_aligned, mean, p);
    }
}

// Computes the bands of one frame and writes them to its column of the tile.
template <int N>
DEVICE void mel_column(const float *power, const FusedShared &s, int column, const FusedMel &p, int j, bool there, Seen &seen) {
    for (int band = j; band < p.n_mels; band += FusedLength<N>::QUARTER) {
        const MelBand b = p.bands[band];
        float sum = mel_sum(power + b.first_bin, p.weights + band, p.weight_step, b.n_bins);
        s.tile[band * s.column_step + column] = sum;
        if (there) {
            see(seen, sum);
        }
    }
}

// Loads the samples of a tile. Only tiles at the ends of a row check the row's bounds.
template <int N> DEVICE void load_tile(const FusedMel &p, const Row &row, int first, float *samples) {
    const Framing &f = p.framing;
    const int span = ((1 << p.tile_shift) - 1) * f.hop_length + f.win_length;
    const long long start = (long long)first * f.hop_length + f.start;
    if (start >= 0 && start + span <= row.n_pcm) {
        const float *pcm = p.pcm + row.pcm + start;
        for (int i = threadIdx.x; i < span; i += FusedLength<N>::THREADS) {
            samples[i] = pcm[i];
        }
    } else {
        for (int i = threadIdx.x; i < span; i += FusedLength<N>::THREADS) {
            samples[i] = sample_at(p.pcm, row, start + i, f.pad_mode);
        }
    }
}

DEVICE void store_tile(const FusedMel &p, const Row &row, int first, const FusedShared &s, int n_threads) {
    float *out = p.out + p.n_mels * row.frame + first;
    const int n_columns = 1 << p.tile_shift;
    for (int i = threadIdx.x; i < p.n_mels << p.tile_shift; i += n_threads) {
        const int column = i & (n_columns - 1), band = i >> p.tile_shift;
        if (first + column < row.n_frames) {
            out[(long long)band * row.n_frames + column] = s.tile[band * s.column_step + column];
        }
    }
}

template <int N, bool ANY> DEVICE void fused_tile(const FusedMel &p, const FusedShared &s, int row_at, int first) {
    using Length = FusedLength<N>;
    const Row row = p.rows[row_at];
    const int group = threadIdx.x / Length::QUARTER;
    load_tile<N>(p, row, first, s.samples);
    __syncthreads();

    Complex<float> *work = s.work + group * Length::M;
    float *power = s.power + group * (Length::M + 1);
    Seen all = {0, 0}, kept = {0, 0};
    for (int column = group; column < 1 << p.tile_shift; column += Length::GROUPS) {
        // Recomputing `j` keeps dozens of shared memory addresses from occupying registers across frames.
        const int j = made_anew(threadIdx.x % Length::QUARTER);
        Complex<float> v[4];
        load_pairs<N>(v, s.samples + column * p.framing.hop_length, (double *)s.work, p, j);
        transform<N, 1>(v, work, p.twiddles, j);
        separate<N, ANY>(work, power, p, j);
        __syncthreads();
        const int frame = first + column;
        mel_column<N>(power, s, column, p, j, frame < row.n_frames, all);
        kept = frame < row.n_kept ? all : kept;
    }
    __syncthreads();

    store_tile(p, row, first, s, Length::THREADS);
    widen_range(p.ranges + row_at, all);
    widen_range(p.kept + row_at, kept);
    __syncthreads();
}

// Blocks along x compute tiles of a row; blocks along y compute rows.
template <int N, bool ANY> DEVICE void fused_mel(const FusedMel &p) {
    SHARED(float, shared);
    const FusedShared s = fused_shared<N>(shared, p);
    for (int row = blockIdx.y; row < p.n_rows; row += gridDim.y) {
        const int n_frames = p.rows[row].n_frames;
        for (int first = blockIdx.x << p.tile_shift; first < n_frames; first += gridDim.x << p.tile_shift) {
            fused_tile<N, ANY>(p, s, row, first);
        }
    }
}

// 1,024 threads per multiprocessor have 64 registers each.
KERNEL_OF(fused_mel_256, FusedMel, 256, 4) { fused_mel<256, false>(p); }
KERNEL_OF(fused_mel_512, FusedMel, 256, 4) { fused_mel<512, false>(p); }
KERNEL_OF(fused_mel_1024, FusedMel, 256, 4) { fused_mel<1024, false>(p); }
KERNEL_OF(fused_mel_2048, FusedMel, 256, 4) { fused_mel<2048, false>(p); }
KERNEL_OF(fused_mel_4096, FusedMel, 512, 2) { fused_mel<4096, false>(p); }

// Instances for powers other than 1 and 2.
KERNEL_OF(fused_mel_256_pow, FusedMel, 256, 2) { fused_mel<256, true>(p); }
KERNEL_OF(fused_mel_512_pow, FusedMel, 256, 2) { fused_mel<512, true>(p); }
KERNEL_OF(fused_mel_1024_pow, FusedMel, 256, 2) { fused_mel<1024, true>(p); }
KERNEL_OF(fused_mel_2048_pow, FusedMel, 256, 2) { fused_mel<2048, true>(p); }
KERNEL_OF(fused_mel_4096_pow, FusedMel, 512, 1) { fused_mel<4096, true>(p); }
