// Mel bands as sparse sums, from a spectrum.

// The bins of a band. Weights are stored as [i][band] in rows of whole memory lines: adjacent lanes, which compute
// adjacent bands, read adjacent weights.
struct alignas(8) MelBand {
    int first_bin, n_bins;
};

// Returns the sum of a band. Four sums are kept, because a single one would wait for its own last addition. The band's
// weights are `step` apart.
DEVICE float mel_sum(const float *power, const float *weights, int step, int n_bins) {
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int i = 0;
    for (; i + 4 <= n_bins; i += 4) {
        for (int k = 0; k < 4; ++k) {
            sums[k] = fmaf(power[i + k], weights[k * step], sums[k]);
        }
        weights += 4 * step;
    }
    for (; i < n_bins; ++i) {
        sums[0] = fmaf(power[i], *weights, sums[0]);
        weights += step;
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

struct Bands {
    const void *spectrum; // [count][spectrum_step] complex
    const Row *rows;
    const MelBand *bands; // null: the bins themselves are the bands
    const float *weights;
    float *out;           // [row][band][frame]
    Range *ranges;        // over all frames of a row
    Range *kept;          // over the stored frames of a row
    long long first;      // index of the first frame in the batch
    int count, n_rows;    // frames of the spectrum; rows of the batch
    int spectrum_step, n_bands;
    float exponent;
    int weight_step; // distance between the weights of a band
};

template <typename Real> DEVICE float bin_value(const Complex<Real> *bins, int bin, float exponent) {
    Complex<Real> z = bins[bin];
    return raise((float)(z.re * z.re + z.im * z.im), exponent);
}

// Each block processes eight frames, and an eighth of its thread count in bands at a time, so that a band's frames are
// written together.
template <typename Real> DEVICE void write_bands(const Bands &p) {
    int lane = threadIdx.x % 8, bands_a_block = blockDim.x / 8;
    int at = blockIdx.x * 8 + lane;
    if (at < p.count) {
        const Complex<Real> *bins = (const Complex<Real> *)p.spectrum + (long long)at * p.spectrum_step;
        int row_at = row_of_frame(p.rows, p.n_rows, p.first + at);
        Row row = p.rows[row_at];
        int frame = (int)(p.first + at - row.frame);
        float *out = p.out + p.n_bands * row.frame + frame;
        Seen seen = {0, 0};
        for (int band = blockIdx.y * bands_a_block + threadIdx.x / 8; band < p.n_bands;
             band += gridDim.y * bands_a_block) {
            float value;
            if (p.bands) {
                MelBand b = p.bands[band];
                const float *weight = p.weights + band;
                value = 0.0f;
                for (int i = 0; i < b.n_bins; ++i) {
                    value = fmaf(bin_value(bins, b.first_bin + i, p.exponent), *weight, value);
                    weight += p.weight_step;
                }
            } else {
                value = bin_value(bins, band, p.exponent);
            }
            out[(long long)band * row.n_frames] = value;
            see(seen, value);
        }
        widen_alone(p.ranges + row_at, seen);
        if (frame < row.n_kept) {
            widen_alone(p.kept + row_at, seen);
        }
    }
}

KERNEL(bands_f32, Bands) { write_bands<float>(p); }
KERNEL(bands_f64, Bands) { write_bands<double>(p); }
