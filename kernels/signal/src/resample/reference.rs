//! Reference for tests, in f64: every output sample is a sum of the input weighted by a Kaiser-windowed sinc centred at
//! the sample's time.

use std::f64::consts::PI;

use super::{PASS_BAND, ResampleArgs, STOP_BAND_DB};

/// Returns output sample `m`: the sum over `n` of `input[n] * h(m * from_hz / to_hz - n)`, with zeros around the input.
pub fn resample_at(args: ResampleArgs, input: &[f32], m: usize) -> f64 {
    let from_hz = f64::from(args.from_hz);
    let to_hz = f64::from(args.to_hz);
    let time = m as f64 * from_hz / to_hz;
    let nyquist = from_hz.min(to_hz) / 2.0;
    let half = (STOP_BAND_DB - 7.95) / (14.36 * (1.0 - PASS_BAND) * nyquist / from_hz) / 2.0;
    let cutoff = nyquist * (1.0 + PASS_BAND) / 2.0;
    let beta = 0.1102 * (STOP_BAND_DB - 8.7);

    let mut sum = 0.0;
    for (n, &sample) in input.iter().enumerate() {
        let t = time - n as f64;
        // Beyond this distance the filter is 0.
        if t.abs() <= half {
            let window = bessel(beta * (1.0 - (t / half).powi(2)).sqrt()) / bessel(beta);
            let angle = 2.0 * PI * cutoff / from_hz * t;
            let sinc = if t == 0.0 { 1.0 } else { angle.sin() / angle };
            sum += f64::from(sample) * window * sinc * 2.0 * cutoff / from_hz;
        }
    }
    sum
}

/// Returns the Bessel function I0(x) as the mean of exp(x cos a) over a circle.
fn bessel(x: f64) -> f64 {
    (0..64)
        .map(|i| (x * (2.0 * PI * f64::from(i) / 64.0).cos()).exp())
        .sum::<f64>()
        / 64.0
}
