// The last step: converts stored frames of f32 values to bytes, scaled and with their axes in the requested order.

enum { SCALE_NONE = 0, SCALE_MIN_MAX = 1, SCALE_MEAN_VAR = 2 };

enum { PACK_F16 = 0, PACK_F32 = 1, PACK_U8 = 2 };

constexpr int PACK_TILE = 32; // bands and frames of a tile

struct Pack {
    const float *values;       // [row][n_bands][frame]
    const Row *rows;
    const long long *kept;     // number of stored frames before each row
    const Range *log_ranges;   // over all frames, before the logarithm
    const Range *scale_ranges; // over the stored frames, before the logarithm
    const Spread *spreads;
    unsigned char *bytes;      // row r starts after n_bands * kept[r] values
    unsigned *faults;          // largest ~index of a value that the type cannot represent; 0: none
    Logarithm log;
    int n_bands;
    int is_frame_first; // frame,band; else band,frame
    int scale;
    int dtype;
    float below, above; // exclusive bounds of the values that the type can represent
    float low, per_unit; // u8: steps per unit, counted from low
};

// Values that the scaling of all values of a row shares.
struct RowScale {
    RowLogarithm log;
    float min, max; // after the logarithm
    double mean, deviation;
};

DEVICE RowScale row_scale(const Pack &p, int row) {
    RowScale scale = {};
    scale.log = row_logarithm(p.log, p.log_ranges, row);
    if (p.scale != SCALE_NONE) {
        scale.min = logarithm(range_min(p.scale_ranges[row]), p.log, scale.log);
        scale.max = logarithm(range_max(p.scale_ranges[row]), p.log, scale.log);
    }
    if (p.scale == SCALE_MEAN_VAR) {
        scale.mean = p.spreads[row].mean;
        scale.deviation = p.spreads[row].deviation;
    }
    return scale;
}

// The same as in normalize/cpu.rs; constant input results in 0.
DEVICE float packed_value(const Pack &p, const RowScale &scale, float x) {
    x = logarithm(x, p.log, scale.log);
    if (p.scale == SCALE_NONE) {
        return x;
    }
    if (scale.max <= scale.min) {
        return 0.0f;
    }
    if (p.scale == SCALE_MEAN_VAR) {
        return (float)(((double)x - scale.mean) / scale.deviation);
    }
    // Because of rounding, the logarithm's last bit may decrease although its argument increases.
    x = x < scale.min ? scale.min : x;
    x = x > scale.max ? scale.max : x;
    return (x - scale.min) / (scale.max - scale.min);
}

// Rounds to the nearest half, ties to even. Uses bits instead of conversions, because the same source runs on the CPU.
DEVICE unsigned short half_bits(float x) {
    unsigned bits = __float_as_uint(x);
    unsigned sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    unsigned half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u; // NaN
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u; // 65520 and above: infinite
    } else if (magnitude >= 0x38800000u) {
        unsigned rebiased = magnitude - 0x38000000u;
        half = (rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13;
    } else {
        // Below 2^-14: a multiple of 2^-24. Values below half of that are 0.
        unsigned shift = 126u - (magnitude >> 23);
        unsigned mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        half = 0;
        if (shift <= 24u) {
            unsigned rest = mantissa & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
            half = mantissa >> shift;
            half += rest > middle || (rest == middle && (half & 1u)) ? 1u : 0u;
        }
    }
    return (unsigned short)(sign | half);
}

// Index of a stored value in its row.
DEVICE long long packed_place(const Pack &p, int n_kept, int band, int frame) {
    return p.is_frame_first ? (long long)frame * p.n_bands + band : (long long)band * n_kept + frame;
}

DEVICE void store_packed(const Pack &p, long long first, long long place, float x, unsigned *fault) {
    if (!(p.below < x && x < p.above)) {
        unsigned inverted = ~(unsigned)(place < 0xfffffffeLL ? place : 0xfffffffeLL);
        *fault = inverted > *fault ? inverted : *fault;
        return;
    }
    if (p.dtype == PACK_F16) {
        ((unsigned short *)p.bytes)[first + place] = half_bits(x);
    } else if (p.dtype == PACK_F32) {
        ((float *)p.bytes)[first + place] = x;
    } else {
        int step = (int)(product(x - p.low, p.per_unit) + 0.5f);
        p.bytes[first + place] = (unsigned char)(step < 255 ? step : 255);
    }
}

// Transposes frames and bands in shared memory, so that both reads and writes are in order.
DEVICE void pack_turned(const Pack &p, const Row &row, const RowScale &scale, int frame, const float *values,
                        long long first, float *tile, unsigned *fault) {
    const int lane = threadIdx.x % PACK_TILE;
    for (int band = 0; band < p.n_bands; band += PACK_TILE) {
        for (int b = threadIdx.x / PACK_TILE; b < PACK_TILE; b += blockDim.x / PACK_TILE) {
            if (band + b < p.n_bands && frame + lane < row.n_kept) {
                float x = values[(long long)(band + b) * row.n_frames + frame + lane];
                tile[b * (PACK_TILE + 1) + lane] = packed_value(p, scale, x);
            }
        }
        __syncthreads();
        for (int t = threadIdx.x / PACK_TILE; t < PACK_TILE; t += blockDim.x / PACK_TILE) {
            if (band + lane < p.n_bands && frame + t < row.n_kept) {
                long long place = packed_place(p, row.n_kept, band + lane, frame + t);
                store_packed(p, first, place, tile[lane * (PACK_TILE + 1) + t], fault);
            }
        }
        __syncthreads();
    }
}

DEVICE void pack_straight(const Pack &p, const Row &row, const RowScale &scale, int frame, const float *values,
                          long long first, unsigned *fault) {
    if (frame < row.n_kept) {
        for (int band = threadIdx.x / PACK_TILE; band < p.n_bands; band += blockDim.x / PACK_TILE) {
            float x = packed_value(p, scale, values[(long long)band * row.n_frames + frame]);
            store_packed(p, first, packed_place(p, row.n_kept, band, frame), x, fault);
        }
    }
}

// Each block processes all bands of some frames of a row.
KERNEL(pack, Pack) {
    SHARED(float, tile);
    const Row row = p.rows[blockIdx.x];
    const float *values = p.values + p.n_bands * row.frame;
    const long long first = p.n_bands * p.kept[blockIdx.x];
    unsigned fault = 0;
    if (row.n_kept > 0) {
        const RowScale scale = row_scale(p, blockIdx.x);
        for (int frame = blockIdx.y * PACK_TILE; frame < row.n_kept; frame += gridDim.y * PACK_TILE) {
            if (p.is_frame_first) {
                pack_turned(p, row, scale, frame, values, first, tile, &fault);
            } else {
                pack_straight(p, row, scale, frame + threadIdx.x % PACK_TILE, values, first, &fault);
            }
        }
    }
    fault = warp_max(fault);
    if (threadIdx.x % 32 == 0 && fault != 0) {
        atomicMax(p.faults + blockIdx.x, fault);
    }
}

struct PackedValue {
    float *value;
    Pack pack;
    int row;
    unsigned place;
};

// Computes one value as it would have been stored, for error messages.
KERNEL(packed_value_at, PackedValue) {
    if (threadIdx.x == 0) {
        const Row row = p.pack.rows[p.row];
        unsigned columns = p.pack.is_frame_first ? (unsigned)p.pack.n_bands : (unsigned)row.n_kept;
        unsigned frame = p.pack.is_frame_first ? p.place / columns : p.place % columns;
        unsigned band = p.pack.is_frame_first ? p.place % columns : p.place / columns;
        const float *values = p.pack.values + p.pack.n_bands * row.frame;
        *p.value = packed_value(p.pack, row_scale(p.pack, p.row), values[(long long)band * row.n_frames + frame]);
    }
}
