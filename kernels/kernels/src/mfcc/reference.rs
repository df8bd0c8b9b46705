//! Cosine transforms in f64 as defined in scipy's manual: not normalised, and then with the factor of `norm="ortho"`.

use std::f64::consts::PI;

use wavemill_options::MfccArgs;

/// Computes the coefficients, `[n_mels][n_frames]` → `[n_mfcc][n_frames]`.
pub(crate) fn mfcc(args: &MfccArgs, bands: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n_frames = bands[0].len();
    let columns: Vec<Vec<f64>> = (0..n_frames)
        .map(|t| bands.iter().map(|row| row[t]).collect())
        .collect();

    let mut rows = Vec::with_capacity(args.n_mfcc);
    for k in 0..args.n_mfcc {
        let row = columns
            .iter()
            .map(|x| lift(args, k) * coefficient(args.dct_type, x, k))
            .collect();
        rows.push(row);
    }
    rows
}

fn lift(args: &MfccArgs, k: usize) -> f64 {
    match args.lifter {
        0.0 => 1.0,
        lifter => {
            1.0 + 0.5 * lifter * (PI * (k as f64 + f64::from(args.lifter_from)) / lifter).sin()
        }
    }
}

fn coefficient(dct_type: u8, x: &[f64], k: usize) -> f64 {
    let n = x.len() as f64;
    let at = k as f64;
    let last = x.len() - 1;
    let terms = x.iter().enumerate();

    // Each case is scipy's formula without normalization, multiplied by the factor that `norm="ortho"` adds.
    match dct_type {
        1 => {
            let inner = x[1..last].iter().enumerate();
            let sum: f64 = inner
                .map(|(i, x)| 2.0 * x * (PI * at * (i as f64 + 1.0) / (n - 1.0)).cos())
                .sum();

            // For type 1, scipy multiplies both ends by √2 first.
            let sign = if k.is_multiple_of(2) { 1.0 } else { -1.0 };
            let ends = 2f64.sqrt() * (x[0] + sign * x[last]);
            let edge = k == 0 || k == last;
            (ends + sum) * 0.5 * (if edge { 1.0 } else { 2.0 } / (n - 1.0)).sqrt()
        }
        2 => {
            let sum: f64 = terms
                .map(|(i, x)| 2.0 * x * (PI * at * (2.0 * i as f64 + 1.0) / (2.0 * n)).cos())
                .sum();
            sum * (1.0 / (if k == 0 { 4.0 } else { 2.0 } * n)).sqrt()
        }
        _ => {
            let sum: f64 = terms
                .skip(1)
                .map(|(i, x)| x * (PI * (2.0 * at + 1.0) * i as f64 / (2.0 * n)).cos())
                .sum();
            x[0] / n.sqrt() + (2.0 / n).sqrt() * sum
        }
    }
}
