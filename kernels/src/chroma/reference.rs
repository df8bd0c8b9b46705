//! Reference for tests: chroma by its definition, in f64, with weights that are computed as matrices like in librosa.

use wavemill_options::ChromaArgs;

use super::{CENTER_OCTAVE, OCTAVE_HZ, OCTAVE_WIDTH, PEAK_MIN, PEAKS_HZ, tuning_steps};

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

    for frame in 0..powers[0].len() {
        let largest = rows.iter().map(|row| row[frame]).fold(0.0, f64::max);
        if largest >= f64::from(f32::MIN_POSITIVE) {
            rows.iter_mut().for_each(|row| row[frame] /= largest);
        }
    }
    rows
}

fn tuning(n_chroma: usize, sample_rate_hz: u32, n_fft: usize, powers: &[Vec<f64>]) -> f64 {
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
