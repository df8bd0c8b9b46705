//! Reference for tests: the autocorrelation by its definition, in f64.

use std::f64::consts::PI;

/// Returns the autocorrelation around each value of an envelope, `[win_length][n_frames]`.
pub(crate) fn tempogram(win_length: usize, envelope: &[f64]) -> Vec<Vec<f64>> {
    let n = envelope.len() as i64;
    let n_side = (win_length / 2) as i64;
    let padded = |at: i64| {
        if at < 0 {
            envelope[0] * (n_side + at) as f64 / n_side as f64
        } else if at < n {
            envelope[at as usize]
        } else {
            envelope[n as usize - 1] * (n_side - 1 - (at - n)) as f64 / n_side as f64
        }
    };
    let window = |i: usize| 0.5 - 0.5 * (2.0 * PI * i as f64 / win_length as f64).cos();

    let mut rows = vec![vec![0.0; envelope.len()]; win_length];
    for frame in 0..envelope.len() {
        let start = frame as i64 - n_side;
        let values: Vec<f64> = (0..win_length)
            .map(|i| window(i) * padded(start + i as i64))
            .collect();
        let correlation = |lag: usize| -> f64 {
            let pairs = values.iter().zip(&values[lag..]);
            pairs.map(|(a, b)| a * b).sum()
        };
        let whole = correlation(0);
        if whole >= f64::from(f32::MIN_POSITIVE) {
            for (lag, row) in rows.iter_mut().enumerate() {
                row[frame] = correlation(lag) / whole;
            }
        }
    }
    rows
}
