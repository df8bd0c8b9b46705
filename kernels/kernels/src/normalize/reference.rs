//! Normalization computed from its definition in f64.

use wavemill_options::Normalize;

/// Normalizes all values by their common range or moments.
pub(crate) fn normalize(how: Normalize, values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;

    let mut scaled = Vec::with_capacity(values.len());
    for x in values {
        scaled.push(match how {
            Normalize::None => *x,
            _ if max == min => 0.0,
            Normalize::MinMax => (x - min) / (max - min),
            Normalize::MeanVar => (x - mean) / variance.sqrt(),
        });
    }
    scaled
}
