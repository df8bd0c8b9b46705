// The range, mean and deviation of the stored values of each row, which normalization needs.

struct Spread {
    double mean, deviation;
};

struct RowSpread {
    const float *values; // [row][n_bands][frame]
    const Row *rows;
    Range *ranges;
    Spread *spreads; // null: only the ranges are needed
    int n_bands;
    int unused;
};

// A thread's position in the stored values of a row. It visits every blockDim-th value, band after band.
struct Cells {
    int band, frame, band_step, frame_step;
};

DEVICE Cells first_cell(int n_kept) {
    return {(int)threadIdx.x / n_kept, (int)threadIdx.x % n_kept, (int)blockDim.x / n_kept, (int)blockDim.x % n_kept};
}

DEVICE void next_cell(Cells &cell, int n_kept) {
    cell.band += cell.band_step;
    cell.frame += cell.frame_step;
    if (cell.frame >= n_kept) {
        cell.frame -= n_kept;
        ++cell.band;
    }
}

// Sum over the stored values of (x - mean)^2, or of x if `is_first` is set.
DEVICE double moment(const float *values, const Row &row, int n_bands, double mean, bool is_first) {
    double sum = 0.0;
    for (Cells cell = first_cell(row.n_kept); cell.band < n_bands; next_cell(cell, row.n_kept)) {
        double x = (double)values[(long long)cell.band * row.n_frames + cell.frame] - mean;
        sum += is_first ? x : x * x;
    }
    return sum;
}

DEVICE void row_range(const float *values, const Row &row, int n_bands, Range *range) {
    Seen seen = {0, 0};
    for (Cells cell = first_cell(row.n_kept); cell.band < n_bands; next_cell(cell, row.n_kept)) {
        see(seen, values[(long long)cell.band * row.n_frames + cell.frame]);
    }
    widen_range(range, seen);
}

// Each row is processed by one block, so that the order of its sums does not depend on the batch.
KERNEL(row_spread, RowSpread) {
    SHARED(double, scratch);
    const Row row = p.rows[blockIdx.x];
    const float *values = p.values + p.n_bands * row.frame;
    if (row.n_kept > 0) {
        row_range(values, row, p.n_bands, p.ranges + blockIdx.x);
    }
    if (row.n_kept > 0 && p.spreads) {
        int n_warps = blockDim.x / 32;
        double n = (double)p.n_bands * (double)row.n_kept;
        double mean = group_sum(moment(values, row, p.n_bands, 0.0, true), scratch, 0, n_warps) / n;
        double squares = group_sum(moment(values, row, p.n_bands, mean, false), scratch, 0, n_warps);
        if (threadIdx.x == 0) {
            p.spreads[blockIdx.x] = {mean, sqrt(squares / n)};
        }
    }
}
