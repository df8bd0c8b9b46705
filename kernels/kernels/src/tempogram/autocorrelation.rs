//! Autocorrelation of the frames of an envelope: the transform of their powers.
//!
//! The powers of two frames are transformed at a time, as the real and the imaginary parts of one sequence: each is
//! symmetric, so its transform is real. They are divided by their sums first, so that a loud frame leaves no noise in a
//! quiet one.

use std::sync::Arc;

use wavemill_fft::num_complex::Complex;
use wavemill_fft::{Fft, FftDirection};
use wavemill_options::{StftArgs, Window};
use wavemill_signal::Lanes;

use crate::stft::{RealFft, Transform, fft_plan};

/// Number of frames whose powers are transformed at a time.
const PAIR: usize = 2;

/// Tables and buffers for one length of frames.
pub(crate) struct AutocorrelationPlan {
    win_length: usize,
    powers_plan: RealFft<f64>,
    fft: Arc<dyn Fft<f64>>,
    /// The envelope, with ramps before and after it.
    padded: Vec<f32>,
    powers: Vec<f32>,
    pair: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    /// Autocorrelation of one frame.
    row: Vec<f32>,
}

impl AutocorrelationPlan {
    pub(crate) fn new(win_length: usize, stft: &StftArgs, lanes: Lanes) -> Self {
        // Frames are followed by zeros, so that their ends do not meet their starts.
        let n_fft = (2 * win_length).next_power_of_two();
        let args = StftArgs {
            n_fft,
            win_length,
            window: Window::Hann,
            ..stft.clone()
        };

        let fft = fft_plan(n_fft, lanes.level(), FftDirection::Forward)
            .expect("a plan of this level was made where AVX and FMA are");

        let zero = Complex::new(0.0, 0.0);
        Self {
            win_length,
            powers_plan: RealFft::new(&args, lanes),
            padded: Vec::new(),
            powers: vec![0.0; n_fft / 2 + 1],
            pair: vec![zero; n_fft],
            scratch: vec![zero; fft.get_inplace_scratch_len()],
            row: vec![0.0; win_length],
            fft,
        }
    }

    /// Returns the approximate bytes of tables and buffers that do not depend on a clip.
    pub(crate) const fn plan_bytes(win_length: usize) -> usize {
        // Window, twiddle factors, two transforms with their tables and scratch, powers and one row.
        128 * (2 * win_length).next_power_of_two()
    }

    /// Returns the bytes of the buffer for an envelope of `n_frames`.
    pub(crate) const fn scratch_bytes(win_length: usize, n_frames: usize) -> usize {
        (n_frames + win_length + PAIR) * size_of::<f32>()
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.padded = Vec::new();
    }

    /// Computes the autocorrelation of the frame around each of the `n_frames` values that were loaded, and calls `take`
    /// with the position of the value and `[win_length]`: 1 without a lag, or all 0 in silence.
    pub(crate) fn run(&mut self, n_frames: usize, mut take: impl FnMut(usize, &[f32])) {
        for first in (0..n_frames).step_by(PAIR) {
            self.load_pair(first);
            self.fft
                .process_with_scratch(&mut self.pair, &mut self.scratch);

            let whole = self.pair[0];
            for (slot, whole) in [whole.re, whole.im].into_iter().enumerate() {
                if first + slot == n_frames {
                    break;
                }
                for (value, z) in self.row.iter_mut().zip(&self.pair) {
                    let part = if slot == 0 { z.re } else { z.im };
                    *value = if whole > 0.0 {
                        (part / whole) as f32
                    } else {
                        0.0
                    };
                }
                take(first + slot, &self.row);
            }
        }
    }

    /// Copies the envelope between ramps to 0, as numpy's `pad` with `mode = "linear_ramp"`.
    pub(crate) fn load(&mut self, envelope: &[f32]) {
        let n_side = self.win_length / 2;
        let ramp = |edge: Option<&f32>, step: usize| {
            let edge = edge.map_or(0.0, |x| f64::from(*x));
            (edge * step as f64 / n_side as f64) as f32
        };
        self.padded.clear();
        self.padded
            .reserve_exact(envelope.len() + 2 * n_side + PAIR);
        self.padded
            .extend((0..n_side).map(|step| ramp(envelope.first(), step)));
        self.padded.extend_from_slice(envelope);
        self.padded
            .extend((0..n_side).rev().map(|step| ramp(envelope.last(), step)));
        // Windows are loaded in pairs of samples, and frames in pairs.
        self.padded.extend([0.0; PAIR]);
    }

    /// Loads the powers of the frames `first` and `first + 1`, each divided by their sum.
    fn load_pair(&mut self, first: usize) {
        let n_fft = self.pair.len();
        for slot in 0..PAIR {
            let samples = &self.padded[first + slot..][..self.powers_plan.n_loaded()];
            self.powers_plan.powers(samples, &mut self.powers);

            // All bins but the first and the middle one occur twice.
            let ends = self.powers[0] + self.powers[n_fft / 2];
            let sum: f64 = self.powers.iter().map(|x| 2.0 * f64::from(*x)).sum();
            let sum = sum - f64::from(ends);
            // As in librosa, frames below the smallest normal number are not scaled, which leaves nothing of them here.
            let is_loud = sum >= n_fft as f64 * f64::from(f32::MIN_POSITIVE);
            let scale = if is_loud { 1.0 / sum } else { 0.0 };
            for (bin, power) in self.powers.iter().enumerate() {
                let scaled = f64::from(*power) * scale;
                for at in [bin, (n_fft - bin) % n_fft] {
                    let z = &mut self.pair[at];
                    if slot == 0 {
                        z.re = scaled;
                    } else {
                        z.im = scaled;
                    }
                }
            }
        }
    }
}
