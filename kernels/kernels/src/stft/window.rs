//! Window functions, periodic like `librosa.filters.get_window(name, n, fftbins=True)`.

use std::f64::consts::PI;

use wavemill_options::Window;

/// Returns the window's `n` values in f64.
pub fn values(window: Window, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![1.0];
    }
    // Kaldi's own window is symmetric, and all others are periodic.
    let period = if window == Window::Povey { n - 1 } else { n } as f64;
    (0..n)
        .map(|i| value_at(window, i as f64 / period))
        .collect()
}

/// Returns the value at `turn`, a fraction of the period from 0 to 1.
fn value_at(window: Window, turn: f64) -> f64 {
    match window {
        Window::Hann => cosines(turn, &[0.5, 0.5]),
        Window::Hamming => cosines(turn, &[0.54, 0.46]),
        Window::Blackman => cosines(turn, &[0.42, 0.5, 0.08]),
        Window::BlackmanHarris => cosines(turn, &[0.35875, 0.48829, 0.14128, 0.01168]),
        Window::Nuttall => cosines(turn, &[0.363_581_9, 0.489_177_5, 0.136_599_5, 0.010_641_1]),
        Window::Bartlett => 1.0 - (2.0 * turn - 1.0).abs(),
        Window::Boxcar => 1.0,
        // Near the ends, rounding may produce a sum below 0, whose power would be NaN.
        Window::Povey => libm::pow(cosines(turn, &[0.5, 0.5]).max(0.0), 0.85),
    }
}

/// Returns `a₀ - a₁ cos(2π turn) + a₂ cos(4π turn) - …` for the terms `a`.
fn cosines(turn: f64, terms: &[f64]) -> f64 {
    let signed = terms.iter().enumerate().map(|(k, a)| {
        let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
        sign * a * libm::cos(2.0 * PI * k as f64 * turn)
    });
    signed.sum()
}
