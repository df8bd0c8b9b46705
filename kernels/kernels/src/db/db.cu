// Logarithms with the same steps as db/cpu.rs, so that the values are equal and the largest value is exactly 0 dB.

enum { LOG_LINEAR = 0, LOG_LN = 1, LOG_DB = 2, LOG_WHISPER = 3 };

struct Logarithm {
    int kind;
    int is_squared;       // values are magnitudes, whose decibels are those of their squares
    int is_max_reference; // 0 dB is the row's largest value
    float amin;           // lower bound of the values
    float reference;      // value of 0 dB, unless is_max_reference is set
    float top_db;         // infinite: no floor
};

// Values that all logarithms of a row share.
struct RowLogarithm {
    float reference, floor, top;
};

// Returns `unit * ln(max(floor, x)) - reference`; a NaN counts as the floor.
DEVICE float scaled_ln(float x, float floor, float unit, float reference) {
    return product(unit, ln(x > floor ? x : floor)) - reference;
}

// `ranges` are ranges over all computed frames of a row, before the logarithm. They are read only for decibels.
DEVICE RowLogarithm row_logarithm(const Logarithm &log, const Range *ranges, int at) {
    RowLogarithm row = {0.0f, 0.0f, 0.0f};
    if (log.kind >= LOG_DB) {
        float largest = range_max(ranges[at]);
        largest = log.is_squared ? largest * largest : largest;
        row.reference = scaled_ln(log.is_max_reference ? largest : log.reference, log.amin, DB_PER_NEPER, 0.0f);
        row.top = scaled_ln(largest, log.amin, DB_PER_NEPER, row.reference);
        row.floor = row.top - log.top_db;
    }
    return row;
}

DEVICE float logarithm(float x, const Logarithm &log, const RowLogarithm &row) {
    if (log.kind == LOG_LINEAR) {
        return x;
    }
    if (log.kind == LOG_LN) {
        return scaled_ln(x, log.amin, 1.0f, 0.0f);
    }
    x = scaled_ln(log.is_squared ? x * x : x, log.amin, DB_PER_NEPER, row.reference);
    x = x > row.floor ? x : row.floor;
    x = x < row.top ? x : row.top;
    return log.kind == LOG_WHISPER ? x / 40.0f + 1.0f : x;
}

struct LogarithmInPlace {
    float *values;
    const Row *rows;
    const Range *ranges;
    Logarithm log;
    int n_bands;
    int unused;
};

// Each block processes a part of a row's values.
KERNEL(logarithm_in_place, LogarithmInPlace) {
    const Row row = p.rows[blockIdx.x];
    const long long n = (long long)p.n_bands * row.n_frames;
    const long long step = (long long)gridDim.y * blockDim.x;
    float *values = p.values + p.n_bands * row.frame;
    const RowLogarithm common = row_logarithm(p.log, p.ranges, blockIdx.x);
    for (long long i = (long long)blockIdx.y * blockDim.x + threadIdx.x; i < n; i += step) {
        values[i] = logarithm(values[i], p.log, common);
    }
}
