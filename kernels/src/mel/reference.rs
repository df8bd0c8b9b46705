//! Bands by their definition, f64: every bin under every triangle.

use super::{MelArgs, Norm, Ramp};

/// `[n_bins][n_frames]` → `[n_mels][n_frames]`.
pub(crate) fn bands(args: &MelArgs, sample_rate_hz: u32, n_fft: usize, spectrum: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let edge = |i: usize| {
        let (low, high) = (to_mel(args.fmin, args.htk), to_mel(args.fmax, args.htk));
        low + (high - low) * i as f64 / (args.n_mels as f64 + 1.0)
    };
    let weight = |band: usize, bin: usize| {
        let hz = f64::from(sample_rate_hz) * bin as f64 / n_fft as f64;
        let [left, middle, right] = [edge(band), edge(band + 1), edge(band + 2)].map(|mel| match args.ramp {
            Ramp::Hz => to_hz(mel, args.htk),
            Ramp::Mel => mel,
        });
        let at = if args.ramp == Ramp::Hz { hz } else { to_mel(hz, args.htk) };
        let height = if at <= left || at >= right {
            0.0
        } else if at <= middle {
            (at - left) / (middle - left)
        } else {
            (right - at) / (right - middle)
        };
        match args.norm {
            Norm::None => height,
            Norm::Slaney => height * 2.0 / (to_hz(edge(band + 2), args.htk) - to_hz(edge(band), args.htk)),
        }
    };
    let sum = |band: usize, frame: usize| -> f64 {
        spectrum.iter().enumerate().map(|(bin, row)| weight(band, bin) * row[frame]).sum()
    };
    (0..args.n_mels).map(|band| (0..spectrum[0].len()).map(|frame| sum(band, frame)).collect()).collect()
}

fn to_mel(hz: f64, htk: bool) -> f64 {
    match htk {
        true => 2595.0 * (1.0 + hz / 700.0).log10(),
        false if hz < 1000.0 => hz * 3.0 / 200.0,
        false => 15.0 + (hz / 1000.0).ln() / (6.4f64.ln() / 27.0),
    }
}

fn to_hz(mel: f64, htk: bool) -> f64 {
    match htk {
        true => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
        false if mel < 15.0 => mel * 200.0 / 3.0,
        false => 1000.0 * ((6.4f64.ln() / 27.0) * (mel - 15.0)).exp(),
    }
}
