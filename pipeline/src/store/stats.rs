//! Statistics of a feature, from the sums that receipts hold for every row group.

use wavemill_schemas::manifest::{Partial, Stats};

/// Mean and standard deviation from row groups in file order; `None` without values.
#[must_use]
pub(crate) fn finish_stats<'a>(partials: impl IntoIterator<Item = &'a Partial>) -> Option<Stats> {
    let mut total = Partial::default();
    // In file order, on which the bits of a sum depend.
    for partial in partials {
        total
            .sum
            .resize(total.sum.len().max(partial.sum.len()), 0.0);
        total.sum_squares.resize(total.sum.len(), 0.0);
        for band in 0..partial.sum.len() {
            total.sum[band] += partial.sum[band];
            total.sum_squares[band] += partial.sum_squares[band];
        }
        total.values += partial.values;
    }
    if total.values == 0 {
        return None;
    }

    let n = total.values as f64;
    let mean: Vec<f64> = total.sum.iter().map(|s| s / n).collect();
    // The mean of the squares less the square of the mean: sums are enough, and no file is read again.
    let variance = mean
        .iter()
        .zip(&total.sum_squares)
        .map(|(mean, squares)| squares / n - mean * mean);
    // Rounding can make the variance of a constant band negative.
    Some(Stats {
        std: variance.map(|v| v.max(0.0).sqrt()).collect(),
        mean,
        values: total.values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_values_give_no_statistics() {
        assert_eq!(finish_stats(&[]), None);
    }
}
