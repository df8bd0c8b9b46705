//! Reference for tests: the short-time Fourier transform by its definition, in f64.

use std::f64::consts::PI;

use wavemill_options::{Framing, PadMode, StftArgs, Window};

/// Returns `|X|²`, `[n_bins][n_frames]`, of PCM followed by zeros until there are `frames_min` frames.
pub(crate) fn power(args: &StftArgs, pcm: &[f32], frames_min: usize) -> Vec<Vec<f64>> {
    let frames = frames(args, pcm, frames_min);
    let spectra: Vec<Vec<f64>> = frames.iter().map(|frame| spectrum(frame)).collect();
    (0..=args.n_fft / 2)
        .map(|bin| spectra.iter().map(|spectrum| spectrum[bin]).collect())
        .collect()
}

/// Returns the windowed frames, `n_fft` samples each, of PCM followed by zeros until there are `frames_min` frames.
pub(crate) fn frames(args: &StftArgs, pcm: &[f32], frames_min: usize) -> Vec<Vec<f64>> {
    let mut signal: Vec<f64> = pcm.iter().map(|x| f64::from(*x)).collect();
    if let (Some(n_samples), false) = (args.n_samples, pcm.is_empty()) {
        signal.resize(n_samples, 0.0);
    }

    // Zeros are appended one by one here. The fast path computes how many are needed.
    let mut frames = frames_of(args, &signal);
    while frames.len() < frames_min && !signal.is_empty() {
        signal.push(0.0);
        frames = frames_of(args, &signal);
    }
    frames
}

/// Returns the windowed frames of a signal, `n_fft` samples each.
fn frames_of(args: &StftArgs, signal: &[f64]) -> Vec<Vec<f64>> {
    if signal.is_empty() {
        return Vec::new();
    }
    let padded = match args.framing {
        Framing::Center(mode) => pad(signal, args.n_fft / 2, mode),
        Framing::Inside | Framing::SnipEdges => signal.to_vec(),
    };
    let (length, before) = match args.framing {
        Framing::SnipEdges => (args.win_length, 0),
        Framing::Center(_) | Framing::Inside => (args.n_fft, (args.n_fft - args.win_length) / 2),
    };

    let window = window(args.window, args.win_length);
    let mut frames = Vec::new();
    let mut start = 0;
    while start + length <= padded.len() {
        let conditioned = condition(&padded[start + before..][..args.win_length], args);
        let mut frame = vec![0.0; args.n_fft];
        for i in 0..args.win_length {
            frame[before + i] = conditioned[i] * window[i];
        }
        frames.push(frame);
        start += args.hop_length;
    }

    if args.drop_last_frame {
        frames.pop();
    }
    frames
}

/// Pads the signal by `n` samples on each side; reflection repeats back and forth.
fn pad(signal: &[f64], n: usize, mode: PadMode) -> Vec<f64> {
    let left = (1..=n)
        .rev()
        .map(|steps| beyond(signal, mode, steps, false));
    let right = (1..=n).map(|steps| beyond(signal, mode, steps, true));
    left.chain(signal.iter().copied()).chain(right).collect()
}

/// Returns the padding `steps` samples before the first sample of the signal, or after the last one.
fn beyond(signal: &[f64], mode: PadMode, steps: usize, from_end: bool) -> f64 {
    let last = signal.len() - 1;
    let (mut at, mut forward) = if from_end { (last, true) } else { (0, false) };
    for _ in 0..steps {
        if last > 0 && at == last && forward || at == 0 && !forward {
            forward = !forward;
        }
        at = if last == 0 {
            0
        } else if forward {
            at + 1
        } else {
            at - 1
        };
    }

    match mode {
        PadMode::Constant => 0.0,
        PadMode::Edge => signal[if from_end { last } else { 0 }],
        PadMode::Reflect => signal[at],
    }
}

fn condition(samples: &[f64], args: &StftArgs) -> Vec<f64> {
    let scaled: Vec<f64> = samples.iter().map(|x| x * f64::from(args.scale)).collect();
    let mean = if args.remove_dc {
        scaled.iter().sum::<f64>() / scaled.len() as f64
    } else {
        0.0
    };
    let centred: Vec<f64> = scaled.iter().map(|x| x - mean).collect();
    (0..centred.len())
        // For pre-emphasis, the sample before the first one is assumed to be equal to the first one.
        .map(|i| centred[i] - args.preemphasis * centred[i.saturating_sub(1)])
        .collect()
}

/// Computes the window by scipy's formulas.
fn window(name: Window, n: usize) -> Vec<f64> {
    (0..n).map(|i| window_at(name, n, i)).collect()
}

fn window_at(name: Window, n: usize, i: usize) -> f64 {
    let turn = 2.0 * PI * i as f64 / n as f64;
    match name {
        _ if n == 1 => 1.0,
        Window::Hann => 0.5 - 0.5 * turn.cos(),
        Window::Hamming => 0.54 - 0.46 * turn.cos(),
        Window::Blackman => 0.42 - 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos(),
        Window::BlackmanHarris => {
            0.35875 - 0.48829 * turn.cos() + 0.14128 * (2.0 * turn).cos()
                - 0.01168 * (3.0 * turn).cos()
        }
        Window::Nuttall => {
            0.3635819 - 0.4891775 * turn.cos() + 0.1365995 * (2.0 * turn).cos()
                - 0.0106411 * (3.0 * turn).cos()
        }
        Window::Bartlett if 2 * i <= n => 2.0 * i as f64 / n as f64,
        Window::Bartlett => 2.0 - 2.0 * i as f64 / n as f64,
        Window::Boxcar => 1.0,
        Window::Povey => (0.5 - 0.5 * (2.0 * PI * i as f64 / (n - 1) as f64).cos()).powf(0.85),
    }
}

fn spectrum(frame: &[f64]) -> Vec<f64> {
    let n = frame.len();
    let circle: Vec<(f64, f64)> = (0..n)
        .map(|i| (2.0 * PI * i as f64 / n as f64).sin_cos())
        .collect();

    let mut powers = Vec::with_capacity(n / 2 + 1);
    for k in 0..=n / 2 {
        let mut re = 0.0;
        let mut im = 0.0;
        for (i, x) in frame.iter().enumerate() {
            let (sin, cos) = circle[k * i % n];
            re += x * cos;
            im -= x * sin;
        }
        powers.push(re * re + im * im);
    }
    powers
}
