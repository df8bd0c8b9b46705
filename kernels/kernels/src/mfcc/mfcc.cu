// Cepstral coefficients: a small matrix times the bands of each frame.

constexpr int MFCC_FRAMES = 64;       // frames per block
constexpr int MFCC_BANDS = 32;        // bands in shared memory at a time
constexpr int MFCC_COEFFICIENTS = 8;  // coefficients per thread
constexpr int MFCC_GROUPS = 4;        // threads per frame
constexpr int MFCC_AT_ONCE = MFCC_COEFFICIENTS * MFCC_GROUPS;

struct Mfcc {
    const float *bands;  // [row][n_mels][frame]
    float *coefficients; // [row][n_mfcc][frame]
    const float *matrix; // [n_mels][n_mfcc]
    const Row *rows;
    int n_mels;
    int n_mfcc;
};

// Loads bands and weights from `first_band` on into shared memory, with zeros around them.
DEVICE void load_mfcc_tile(const Mfcc &p, const Row &row, int first_frame, int first_band, int first_coefficient,
                           float *bands, float *weights) {
    const float *from = p.bands + p.n_mels * row.frame;
    for (int i = threadIdx.x; i < MFCC_BANDS * MFCC_FRAMES; i += blockDim.x) {
        int band = first_band + i / MFCC_FRAMES;
        int frame = first_frame + i % MFCC_FRAMES;
        bool inside = band < p.n_mels && frame < row.n_frames;
        bands[i] = inside ? from[(long long)band * row.n_frames + frame] : 0.0f;
    }
    for (int i = threadIdx.x; i < MFCC_BANDS * MFCC_AT_ONCE; i += blockDim.x) {
        int band = first_band + i / MFCC_AT_ONCE;
        int coefficient = first_coefficient + i % MFCC_AT_ONCE;
        bool inside = band < p.n_mels && coefficient < p.n_mfcc;
        weights[i] = inside ? p.matrix[(long long)band * p.n_mfcc + coefficient] : 0.0f;
    }
}

// Adds the products of a tile to the sums. They are first summed by themselves, in the order of the bands.
DEVICE void add_mfcc_tile(const float *bands, const float *weights, float *sums) {
    float parts[MFCC_COEFFICIENTS] = {};
    for (int band = 0; band < MFCC_BANDS; ++band) {
        float x = bands[band * MFCC_FRAMES];
        for (int i = 0; i < MFCC_COEFFICIENTS; ++i) {
            parts[i] = fmaf(weights[band * MFCC_AT_ONCE + i], x, parts[i]);
        }
    }
    for (int i = 0; i < MFCC_COEFFICIENTS; ++i) {
        sums[i] += parts[i];
    }
}

KERNEL(mfcc, Mfcc) {
    SHARED(float, bands);
    float *weights = bands + MFCC_BANDS * MFCC_FRAMES;
    const Row row = p.rows[blockIdx.x];
    const int lane = threadIdx.x % MFCC_FRAMES;
    const int group = threadIdx.x / MFCC_FRAMES * MFCC_COEFFICIENTS;
    float *out = p.coefficients + p.n_mfcc * row.frame;
    for (int first = blockIdx.y * MFCC_FRAMES; first < row.n_frames; first += gridDim.y * MFCC_FRAMES) {
        for (int coefficient = 0; coefficient < p.n_mfcc; coefficient += MFCC_AT_ONCE) {
            float sums[MFCC_COEFFICIENTS] = {};
            for (int band = 0; band < p.n_mels; band += MFCC_BANDS) {
                load_mfcc_tile(p, row, first, band, coefficient, bands, weights);
                __syncthreads();
                add_mfcc_tile(bands + lane, weights + group, sums);
                __syncthreads();
            }
            for (int i = 0; i < MFCC_COEFFICIENTS; ++i) {
                int k = coefficient + group + i;
                if (k < p.n_mfcc && first + lane < row.n_frames) {
                    out[(long long)k * row.n_frames + first + lane] = sums[i];
                }
            }
        }
    }
}
