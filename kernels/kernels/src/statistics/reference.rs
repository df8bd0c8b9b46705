//! Reference for tests: statistics computed from their definitions in f64.

/// Returns 7 rows with one value per band of `[bands][frames]`: kurtosis, max, mean, median, min, skew, std.
pub(crate) fn statistics(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut flat = Vec::new();
    for statistic in [kurtosis, max, mean, median, min, skew, std] {
        flat.extend(rows.iter().map(|row| statistic(row)));
    }
    flat
}

fn mean(row: &[f64]) -> f64 {
    row.iter().sum::<f64>() / row.len() as f64
}

/// Returns the mean of the values' distances from their mean, raised to a power.
fn moment(row: &[f64], power: i32) -> f64 {
    let mean = mean(row);
    row.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / row.len() as f64
}

fn std(row: &[f64]) -> f64 {
    moment(row, 2).sqrt()
}

fn skew(row: &[f64]) -> f64 {
    if max(row) == min(row) {
        return 0.0;
    }
    moment(row, 3) / moment(row, 2).powf(1.5)
}

fn kurtosis(row: &[f64]) -> f64 {
    if max(row) == min(row) {
        return 0.0;
    }
    moment(row, 4) / moment(row, 2).powi(2) - 3.0
}

fn max(row: &[f64]) -> f64 {
    row.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn min(row: &[f64]) -> f64 {
    row.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(row: &[f64]) -> f64 {
    let mut ordered = row.to_vec();
    ordered.sort_by(f64::total_cmp);
    let middle = ordered.len() / 2;
    if ordered.len() % 2 == 1 {
        ordered[middle]
    } else {
        (ordered[middle - 1] + ordered[middle]) / 2.0
    }
}
