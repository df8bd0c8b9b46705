// Savitzky-Golay derivatives, computed as in delta/cpu.rs: nine products in f64, from the oldest frame on.

constexpr int DELTA_WIDTH = 9;

struct Delta {
    const float *base; // [row][n_bands][frame]
    float *out;        // [row][n_bands * (1 + orders)][frame]: the bands, then their first and second derivatives
    const Row *rows;
    double first[DELTA_WIDTH], second[DELTA_WIDTH]; // taps of the two orders
    int n_bands;
    int orders;
};

DEVICE float derivative(const float *window, const double *taps) {
    double sum = 0.0;
    for (int i = 0; i < DELTA_WIDTH; ++i) {
        sum += (double)window[i] * taps[i];
    }
    return (float)sum;
}

// Each block processes one band of a row at a time. At both ends the outermost window is used.
KERNEL(delta, Delta) {
    const Row row = p.rows[blockIdx.x];
    const long long part = (long long)p.n_bands * row.n_frames;
    const float *from = p.base + p.n_bands * row.frame;
    float *to = p.out + (1 + p.orders) * p.n_bands * row.frame;
    for (int band = blockIdx.y; band < p.n_bands; band += gridDim.y) {
        const float *base = from + (long long)band * row.n_frames;
        float *out = to + (long long)band * row.n_frames;
        for (int t = threadIdx.x; t < row.n_frames; t += blockDim.x) {
            out[t] = base[t];
            int last = row.n_frames - DELTA_WIDTH;
            int start = t - DELTA_WIDTH / 2;
            start = start < last ? start : last;
            start = start > 0 ? start : 0;
            if (last >= 0 && p.orders > 0) {
                out[part + t] = derivative(base + start, p.first);
            }
            if (last >= 0 && p.orders > 1) {
                out[2 * part + t] = derivative(base + start, p.second);
            }
        }
    }
}
