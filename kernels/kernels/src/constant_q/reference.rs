//! Reference for tests: filters and Fourier sums by their definition, in f64, after a halving with a longer filter.

use std::f64::consts::PI;

use wavemill_options::{FeatureArgs, Framing, Octave, PadMode, StftArgs, Window};

use super::{HALF, SPARSITY};
use crate::chroma;
use crate::resample::Filter;
use crate::stft;

type Complex = (f64, f64);

/// Returns the powers of the transform, `[n_bins][n_frames]`, of PCM followed by zeros until there are `frames_min` frames.
pub(crate) fn powers(feature: &FeatureArgs, pcm: &[f32], frames_min: usize) -> Vec<Vec<f64>> {
    let args = feature.constant_q().expect("a constant-Q transform");
    let rate_hz = feature.sample_rate_hz;
    let hop_length = feature.stft.hop_length;
    let n = feature.stft.n_signal(pcm.len(), Some(frames_min.max(1)));
    let n_frames = feature.stft.n_frames(n);
    let mut samples: Vec<f64> = pcm.iter().map(|x| f64::from(*x)).collect();
    samples.resize(n, 0.0);

    let tuning = args.tuning.unwrap_or_else(|| {
        let stft = StftArgs {
            n_fft: 2048,
            hop_length: 512,
            win_length: 2048,
            window: Window::Hann,
            framing: Framing::Center(PadMode::Constant),
            ..feature.stft.clone()
        };
        let mut rows = stft::reference::power(&stft, pcm, 0);
        rows.iter_mut().flatten().for_each(|x| *x = x.sqrt());
        chroma::reference::tuning(args.bins_per_octave, rate_hz, 2048, &rows)
    });

    let mut rows = vec![Vec::new(); args.n_bins];
    let mut n_halvings = 0;
    for octave in args.octaves(rate_hz, hop_length, tuning) {
        while n_halvings < octave.n_halvings {
            samples = halved(&samples);
            n_halvings += 1;
        }
        let halved_hz = f64::from(rate_hz) / f64::from(1 << n_halvings);
        let filters = filters(&octave, halved_hz);
        for frame in 0..n_frames {
            let spectrum = spectrum(&samples, &octave, frame);
            for (filter, row) in filters.iter().zip(&mut rows[octave.first_bin..]) {
                let products = filter.iter().zip(&spectrum);
                let (re, im) = products.fold((0.0, 0.0), |sum, (a, b)| add(sum, times(*a, *b)));
                row.push(re * re + im * im);
            }
        }
    }
    rows
}

/// Halves the sample rate, with the factor of the root of two that keeps the energy.
fn halved(samples: &[f64]) -> Vec<f64> {
    let filter = Filter::new(HALF);
    let half = filter.half_len() as isize;
    let at = |i: isize| {
        usize::try_from(i)
            .ok()
            .and_then(|i| samples.get(i))
            .copied()
    };
    let filtered = |i: usize| -> f64 {
        let terms =
            (-half..=half).map(|j| filter.at(j as f64) * at(2 * i as isize + j).unwrap_or(0.0));
        terms.sum::<f64>() * 2f64.sqrt()
    };
    (0..samples.len().div_ceil(2)).map(filtered).collect()
}

/// Returns the bins of each filter, `[filters][n_fft / 2 + 1]`, without the smallest.
fn filters(octave: &Octave, rate_hz: f64) -> Vec<Vec<Complex>> {
    let n_fft = octave.n_fft;
    let of = |(hz, length): (&f64, &f64)| {
        let start = (-length / 2.0).floor() as isize;
        let n = ((length / 2.0).floor() as isize - start) as usize;
        let hann = |i: usize| match n {
            1 => 1.0,
            _ => 0.5 - 0.5 * (2.0 * PI * i as f64 / n as f64).cos(),
        };
        let sum: f64 = (0..n).map(hann).sum();
        let wavelet = |i: usize| {
            let angle = 2.0 * PI * (start + i as isize) as f64 * hz / rate_hz;
            let weight = hann(i) / sum * length.sqrt() / n_fft as f64;
            (weight * angle.cos(), weight * angle.sin())
        };
        let mut padded = vec![(0.0, 0.0); n_fft];
        for (i, z) in padded[(n_fft - n) / 2..][..n].iter_mut().enumerate() {
            *z = wavelet(i);
        }

        let mut bins = fourier(&padded);
        let mut sizes: Vec<f64> = bins.iter().map(|z| z.0.hypot(z.1)).collect();
        sizes.sort_by(f64::total_cmp);
        let wanted = SPARSITY * sizes.iter().sum::<f64>();
        let mut sum = 0.0;
        let least = sizes.iter().find(|size| {
            sum += **size;
            sum >= wanted
        });
        let least = least.copied().unwrap_or(0.0) * (1.0 - 1e-9);
        for z in bins.iter_mut().filter(|z| z.0.hypot(z.1) < least) {
            *z = (0.0, 0.0);
        }
        bins
    };
    octave.hz.iter().zip(&octave.lengths).map(of).collect()
}

/// Returns the bins of a frame, `[n_fft / 2 + 1]`.
fn spectrum(samples: &[f64], octave: &Octave, frame: usize) -> Vec<Complex> {
    let n_fft = octave.n_fft;
    let start = (frame * octave.hop_length) as isize - (n_fft / 2) as isize;
    let sample = |i: usize| {
        let at = usize::try_from(start + i as isize).ok();
        at.and_then(|at| samples.get(at)).copied().unwrap_or(0.0)
    };
    let frame: Vec<Complex> = (0..n_fft).map(|i| (sample(i), 0.0)).collect();
    fourier(&frame)
}

/// Returns the first n / 2 + 1 bins of the Fourier transform of n values.
fn fourier(values: &[Complex]) -> Vec<Complex> {
    let n = values.len();
    let turn = |i: usize| 2.0 * PI * i as f64 / n as f64;
    let turns: Vec<Complex> = (0..n).map(|i| (turn(i).cos(), -turn(i).sin())).collect();
    let nonzero: Vec<usize> = (0..n).filter(|i| values[*i] != (0.0, 0.0)).collect();
    let mut bins = vec![(0.0, 0.0); n / 2 + 1];
    for (k, bin) in bins.iter_mut().enumerate() {
        for i in &nonzero {
            *bin = add(*bin, times(values[*i], turns[k * i % n]));
        }
    }
    bins
}

fn add(a: Complex, b: Complex) -> Complex {
    (a.0 + b.0, a.1 + b.1)
}

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}
