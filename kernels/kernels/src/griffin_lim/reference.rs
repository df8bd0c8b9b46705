//! Griffin and Lim's iteration by its formula, in f64 with plain loops: librosa's steps, storing every spectrum.

use std::f64::consts::TAU;

use wavemill_options::{Framing, PadMode, StftArgs};

use crate::stft::window_values;

const MOMENTUM: f64 = 0.99;
/// Minimum sum of squared windows relative to the largest sum; same value as in the fast path.
const SUM_LEAST: f64 = 0.01;

/// A complex number: real and imaginary part.
type Bin = [f64; 2];

/// Returns the signal of `magnitudes` (`[n_frames][n_bins]`) after `n_iter` steps; `turns` are the initial phases.
pub(super) fn griffin_lim(
    args: &StftArgs,
    n_samples: usize,
    magnitudes: &[Vec<f64>],
    turns: &[Vec<f64>],
    n_iter: usize,
) -> Vec<f64> {
    let mut columns: Vec<Vec<Bin>> = Vec::new();
    for (magnitudes, turns) in magnitudes.iter().zip(turns) {
        let bins = magnitudes.iter().zip(turns);
        let bins = bins.map(|(m, turn)| [m * (TAU * turn).cos(), m * (TAU * turn).sin()]);
        columns.push(bins.collect());
    }

    let mut before: Option<Vec<Vec<Bin>>> = None;
    for _ in 0..n_iter {
        let signal = inverse(args, &columns, n_samples);
        let rebuilt = forward(args, &signal, columns.len());
        for (t, column) in columns.iter_mut().enumerate() {
            for (k, bin) in column.iter_mut().enumerate() {
                let mut at = rebuilt[t][k];
                if let Some(before) = &before {
                    at[0] -= MOMENTUM / (1.0 + MOMENTUM) * before[t][k][0];
                    at[1] -= MOMENTUM / (1.0 + MOMENTUM) * before[t][k][1];
                }
                let norm = at[0].hypot(at[1]);
                let scale = if norm > 0.0 {
                    magnitudes[t][k] / norm
                } else {
                    0.0
                };
                *bin = at.map(|part| part * scale);
            }
        }
        before = Some(rebuilt);
    }
    inverse(args, &columns, n_samples)
}

/// Returns the spectra of all frames of a signal; each transform begins at the start of the window.
pub(super) fn forward(args: &StftArgs, signal: &[f64], n_frames: usize) -> Vec<Vec<Bin>> {
    let window = window_values(args.window, args.win_length);
    let n = args.n_fft;

    let mut columns = Vec::new();
    for t in 0..n_frames {
        let mut column = Vec::new();
        for k in 0..=n / 2 {
            let mut bin = [0.0; 2];
            for (i, w) in window.iter().enumerate() {
                let x = w * sample(args, signal, args.window_start(t) + i as isize);
                // Whole turns are removed, because the cosine of a small angle is more accurate.
                let angle = TAU * ((k * i) % n) as f64 / n as f64;
                bin[0] += x * angle.cos();
                bin[1] -= x * angle.sin();
            }
            column.push(bin);
        }
        columns.push(column);
    }
    columns
}

fn sample(args: &StftArgs, signal: &[f64], at: isize) -> f64 {
    let last = signal.len() as isize - 1;
    let mut at = at;
    match args.framing {
        Framing::Center(PadMode::Edge) => at = at.clamp(0, last),
        Framing::Center(PadMode::Reflect) if last > 0 => {
            while !(0..=last).contains(&at) {
                at = if at < 0 { -at } else { 2 * last - at };
            }
        }
        _ => {}
    }
    usize::try_from(at)
        .ok()
        .and_then(|at| signal.get(at).copied())
        .unwrap_or(0.0)
}

/// Returns the signal of the spectra: the sum of the windowed frames, divided by the sum of the squared windows.
fn inverse(args: &StftArgs, columns: &[Vec<Bin>], n_samples: usize) -> Vec<f64> {
    let window = window_values(args.window, args.win_length);
    let mut signal = vec![0.0; n_samples];
    let mut sums = vec![0.0; n_samples];
    for (t, column) in columns.iter().enumerate() {
        for (i, w) in window.iter().enumerate() {
            let at = args.window_start(t) + i as isize;
            if (0..n_samples as isize).contains(&at) {
                signal[at as usize] += w * frame_at(column, i, args.n_fft);
                sums[at as usize] += w * w;
            }
        }
    }

    let largest = sums.iter().copied().fold(0.0, f64::max);
    for (x, sum) in signal.iter_mut().zip(&sums) {
        *x /= sum.max(SUM_LEAST * largest);
    }
    signal
}

/// Returns sample `i` of the real inverse transform of a half spectrum.
fn frame_at(column: &[Bin], i: usize, n: usize) -> f64 {
    let mut sum = 0.0;
    for (k, [re, im]) in column.iter().enumerate() {
        let angle = TAU * ((k * i) % n) as f64 / n as f64;
        let is_single = k == 0 || 2 * k == n;
        let part = re * angle.cos() - if is_single { 0.0 } else { im * angle.sin() };
        sum += if is_single { part } else { 2.0 * part };
    }
    sum / n as f64
}
