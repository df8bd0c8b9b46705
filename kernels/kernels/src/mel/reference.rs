//! Reference for tests: mel bands from their definition in f64, weighting every bin by every triangle.

use wavemill_options::{MelArgs, Norm, Ramp};

/// Computes the bands, `[n_bins][n_frames]` → `[n_mels][n_frames]`.
pub(crate) fn bands(
    args: &MelArgs,
    sample_rate_hz: u32,
    n_fft: usize,
    spectrum: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let n_frames = spectrum[0].len();
    let mut rows = Vec::with_capacity(args.n_mels);
    for band in 0..args.n_mels {
        let mut row = vec![0.0; n_frames];

        for (bin, powers) in spectrum.iter().enumerate() {
            let hz = f64::from(sample_rate_hz) * bin as f64 / n_fft as f64;
            let weight = weight(args, band, hz);
            for (sum, power) in row.iter_mut().zip(powers) {
                *sum += weight * power;
            }
        }
        rows.push(row);
    }
    rows
}

/// Returns the height of a band's triangle at a frequency.
fn weight(args: &MelArgs, band: usize, hz: f64) -> f64 {
    let corners = [edge(args, band), edge(args, band + 1), edge(args, band + 2)];
    let [left, middle, right] = corners.map(|mel| match args.ramp {
        Ramp::Hz => to_hz(mel, args.htk),
        Ramp::Mel => mel,
    });
    let at = match args.ramp {
        Ramp::Hz => hz,
        Ramp::Mel => to_mel(hz, args.htk),
    };

    let height = if at <= left || at >= right {
        0.0
    } else if at <= middle {
        (at - left) / (middle - left)
    } else {
        (right - at) / (right - middle)
    };

    match args.norm {
        Norm::None => height,
        Norm::Slaney => height * 2.0 / (to_hz(corners[2], args.htk) - to_hz(corners[0], args.htk)),
    }
}

/// Returns corner `i` of the triangles in mel. Corners are evenly spaced from `fmin` to `fmax`.
fn edge(args: &MelArgs, i: usize) -> f64 {
    let low = to_mel(args.fmin, args.htk);
    let high = to_mel(args.fmax, args.htk);
    low + (high - low) * i as f64 / (args.n_mels as f64 + 1.0)
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
