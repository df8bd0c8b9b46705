//! Reference for tests: chroma by its definition, in f64, with weights that are computed as matrices like in librosa.

use wavemill_options::{ChromaArgs, FeatureArgs, Op};

use super::{CENTER_OCTAVE, OCTAVE_HZ, OCTAVE_WIDTH, PEAK_MIN, PEAKS_HZ, tuning_steps};
use super::{cens, classes};

/// Returns the chroma, `[n_chroma][n_frames]`, of powers, `[n_bins][n_frames]`.
pub(crate) fn chroma(
    args: &ChromaArgs,
    sample_rate_hz: u32,
    n_fft: usize,
    powers: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let tuning = args
        .tuning
        .unwrap_or_else(|| tuning(args.n_chroma, sample_rate_hz, n_fft, powers));
    let weights = weights(args.n_chroma, tuning, sample_rate_hz, n_fft);

    let mut rows: Vec<Vec<f64>> = weights
        .iter()
        .map(|weights| {
            let of_frame = |frame: usize| {
                let terms = weights.iter().zip(powers);
                terms.map(|(weight, power)| weight * power[frame]).sum()
            };
            (0..powers[0].len()).map(of_frame).collect()
        })
        .collect();

    divide(&mut rows, largest);
    rows
}

/// Returns the deviation of the peaks of `powers`, or of magnitudes, in pitch classes.
pub(crate) fn tuning(
    n_chroma: usize,
    sample_rate_hz: u32,
    n_fft: usize,
    powers: &[Vec<f64>],
) -> f64 {
    let bin_hz = f64::from(sample_rate_hz) / n_fft as f64;
    let mut peaks = Vec::new();
    for frame in 0..powers[0].len() {
        let largest = powers.iter().map(|row| row[frame]).fold(0.0, f64::max);
        for bin in 1..powers.len().saturating_sub(1) {
            let [a, b, c] = [bin - 1, bin, bin + 1].map(|bin| powers[bin][frame]);
            let is_peak = b > f64::from(PEAK_MIN) * largest && b > a && b >= c;
            if !is_peak || !PEAKS_HZ.contains(&(bin as f64 * bin_hz)) {
                continue;
            }
            let (curvature, slope) = (a + c - 2.0 * b, (c - a) / 2.0);
            let shift = match slope.abs() >= curvature.abs() {
                true => 0.0,
                false => -slope / curvature,
            };
            peaks.push((b + 0.5 * slope * shift, (bin as f64 + shift) * bin_hz));
        }
    }
    if peaks.is_empty() {
        return 0.0;
    }

    let mut heights: Vec<f64> = peaks.iter().map(|peak| peak.0).collect();
    heights.sort_by(f64::total_cmp);
    let n = heights.len();
    let median = (heights[(n - 1) / 2] + heights[n / 2]) / 2.0;
    let steps = tuning_steps();
    let last = steps.len() - 2;
    let mut counts = vec![0; last + 1];
    for (_, hz) in peaks.iter().filter(|peak| peak.0 >= median) {
        let classes = n_chroma as f64 * (hz / OCTAVE_HZ).log2();
        let deviation = (classes + 0.5).rem_euclid(1.0) - 0.5;
        let step = steps.iter().rposition(|start| *start <= deviation);
        counts[step.unwrap_or(0).min(last)] += 1;
    }
    let largest = counts.iter().max().copied();
    steps[counts
        .iter()
        .position(|count| Some(*count) == largest)
        .unwrap_or(0)]
}

/// Returns the weights, `[n_chroma][n_bins]`.
fn weights(n_chroma: usize, tuning: f64, sample_rate_hz: u32, n_fft: usize) -> Vec<Vec<f64>> {
    let n = n_chroma as f64;
    let start_hz = OCTAVE_HZ * 2f64.powf(tuning / n);
    let mut classes: Vec<f64> = (1..n_fft)
        .map(|bin| n * (bin as f64 * f64::from(sample_rate_hz) / n_fft as f64 / start_hz).log2())
        .collect();
    classes.insert(0, classes[0] - 1.5 * n);
    let mut widths: Vec<f64> = classes
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).max(1.0))
        .collect();
    widths.push(1.0);

    let half = (n / 2.0).round_ties_even();
    let mut weights = vec![Vec::new(); n_chroma];
    for (class, width) in classes.iter().zip(&widths).take(n_fft / 2 + 1) {
        let bumps: Vec<f64> = (0..n_chroma)
            .map(|chroma| {
                let distance = (class - chroma as f64 + half + 10.0 * n).rem_euclid(n) - half;
                (-0.5 * (2.0 * distance / width).powi(2)).exp()
            })
            .collect();
        let norm = bumps.iter().map(|x| x * x).sum::<f64>().sqrt();
        let loudness = (-0.5 * ((class / n - CENTER_OCTAVE) / OCTAVE_WIDTH).powi(2)).exp();
        for (weights, bump) in weights.iter_mut().zip(&bumps) {
            weights.push(bump / norm * loudness);
        }
    }
    weights.rotate_left(3 * (n_chroma / 12));
    weights
}

/// Returns the values before they are smoothed, `[n_bands][n_frames]`, of the magnitudes of a constant-Q transform.
pub(crate) fn of_constant_q(feature: &FeatureArgs, magnitudes: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let args = feature.chroma_cq().expect("its options");
    let n_frames = magnitudes[0].len();
    let mut rows = vec![vec![0.0; n_frames]; args.n_chroma];
    for (class, row) in classes::classes(args).iter().zip(magnitudes) {
        let sums = rows[*class].iter_mut().zip(row);
        sums.for_each(|(sum, x)| *sum += x);
    }

    if args.win_len_smooth.is_some() {
        divide(&mut rows, |column| column.iter().sum());
        let steps = |x: f64| {
            [0.4, 0.2, 0.1, 0.05]
                .iter()
                .filter(|step| x > **step)
                .count()
        };
        for x in rows.iter_mut().flatten() {
            *x = 0.25 * steps(*x) as f64;
        }
        return rows;
    }
    divide(&mut rows, largest);
    match feature.op {
        Op::Tonnetz => centroids(rows),
        _ => rows,
    }
}

/// Returns CENS, or tonal centroids of them, of quantized energies.
pub(crate) fn smoothed(feature: &FeatureArgs, energies: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let window = cens::window(feature.smoothed_frames().expect("its option"));
    let before = (window.len() as isize - 1) / 2;
    let smooth = |row: &Vec<f64>| {
        let at = |i: isize| usize::try_from(i).ok().and_then(|i| row.get(i)).copied();
        let weighted = |frame: usize| {
            let terms = window.iter().enumerate().map(|(i, weight)| {
                weight * at(frame as isize + i as isize - before).unwrap_or(0.0)
            });
            terms.sum()
        };
        (0..row.len()).map(weighted).collect()
    };
    let mut rows: Vec<Vec<f64>> = energies.iter().map(smooth).collect();
    divide(&mut rows, |column| {
        column.iter().map(|x| x * x).sum::<f64>().sqrt()
    });
    match feature.op {
        Op::Tonnetz => centroids(rows),
        _ => rows,
    }
}

fn largest(column: &[f64]) -> f64 {
    column.iter().copied().fold(0.0, f64::max)
}

/// Divides each frame by its norm.
fn divide(rows: &mut [Vec<f64>], norm: impl Fn(&[f64]) -> f64) {
    for frame in 0..rows[0].len() {
        let column: Vec<f64> = rows.iter().map(|row| row[frame]).collect();
        let norm = norm(&column);
        if norm >= f64::from(f32::MIN_POSITIVE) {
            rows.iter_mut().for_each(|row| row[frame] /= norm);
        }
    }
}

fn centroids(mut chroma: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    divide(&mut chroma, |column| column.iter().sum());
    let n = chroma.len() as f64;
    let of = |(turns, radius): (f64, f64)| {
        let row = |shift: f64| {
            let sum = |frame: usize| {
                let terms = chroma.iter().enumerate().map(|(class, row)| {
                    let turn = turns * 12.0 * class as f64 / n - shift;
                    radius * (std::f64::consts::PI * turn).cos() * row[frame]
                });
                terms.sum()
            };
            (0..chroma[0].len()).map(sum).collect()
        };
        [row(0.5), row(0.0)]
    };
    [(7.0 / 6.0, 1.0), (1.5, 1.0), (2.0 / 3.0, 0.5)]
        .into_iter()
        .flat_map(of)
        .collect()
}
