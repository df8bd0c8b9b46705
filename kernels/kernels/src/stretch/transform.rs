//! The short-time Fourier transform of frames, and its inverse by overlap-add.
//!
//! librosa windows and transforms in f64, and rounds columns to complex64. Its inverse transforms in f32, adds windowed
//! frames in f32, and divides by the sum of the squared windows. Here both transforms are in f64.

use std::f64::consts::PI;
use std::sync::Arc;

use wavemill_fft::num_complex::{Complex32, Complex64};
use wavemill_fft::{Fft, FftDirection};
use wavemill_options::Window;
use wavemill_signal::Level;

use super::args::{HOP_LENGTH, N_BINS, N_FFT};
use crate::error::KernelError;
use crate::stft::{FramePlace, fft_plan, window_values};

/// Length of the complex transform, over pairs of an even and an odd sample, with which a real transform is computed.
const N_PAIRS: usize = N_FFT / 2;
/// Number of samples of a frame before its middle.
const BEFORE: usize = N_FFT / 2;

/// Tables and buffers for transforming frames to columns and back.
pub(super) struct Transform {
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    window: Vec<f64>,
    /// Squares of the window.
    squares: Vec<f64>,
    /// Twiddle factors `exp(-2πik / n)` for k = 0 ..= n / 2.
    twiddles: Vec<Complex64>,
    frame: Vec<f32>,
    pairs: Vec<Complex64>,
    scratch: Vec<Complex64>,
}

impl Transform {
    /// Plans the transforms. Errors: [`KernelError::Level`].
    pub(super) fn new(level: Level) -> Result<Self, KernelError> {
        let forward = fft_plan(N_PAIRS, level, FftDirection::Forward)?;
        let inverse = fft_plan(N_PAIRS, level, FftDirection::Inverse)?;
        let scratch_len = forward
            .get_inplace_scratch_len()
            .max(inverse.get_inplace_scratch_len());

        let window = window_values(Window::Hann, N_FFT);
        let squares = window.iter().map(|x| x * x).collect();
        let mut twiddles = Vec::with_capacity(N_BINS);
        for k in 0..N_BINS {
            let angle = 2.0 * PI * k as f64 / N_FFT as f64;
            twiddles.push(Complex64::new(libm::cos(angle), -libm::sin(angle)));
        }

        Ok(Self {
            forward,
            inverse,
            window,
            squares,
            twiddles,
            frame: vec![0.0; N_FFT],
            pairs: vec![Complex64::default(); N_PAIRS],
            scratch: vec![Complex64::default(); scratch_len],
        })
    }

    /// Computes the spectrum of the frame that is centred at sample `column` · [`HOP_LENGTH`], with zeros before and
    /// after the samples.
    pub(super) fn analyse(&mut self, pcm: &[f32], column: usize, spectrum: &mut [Complex32]) {
        let place = place(column, pcm.len());
        self.frame.fill(0.0);
        self.frame[place.in_frame..][..place.len]
            .copy_from_slice(&pcm[place.in_signal..][..place.len]);

        let windowed = self.frame.chunks_exact(2).zip(self.window.chunks_exact(2));
        for (pair, (x, w)) in self.pairs.iter_mut().zip(windowed) {
            *pair = Complex64::new(f64::from(x[0]) * w[0], f64::from(x[1]) * w[1]);
        }
        self.forward
            .process_with_scratch(&mut self.pairs, &mut self.scratch);

        // With E = (Z[k] + conj Z[m-k]) / 2, O = (Z[k] - conj Z[m-k]) / 2i, W = exp(-2πik / n), m = n / 2: X[k] = E +
        // W·O.
        for (k, bin) in spectrum.iter_mut().enumerate() {
            let a = self.pairs[k % N_PAIRS];
            let b = self.pairs[(N_PAIRS - k) % N_PAIRS].conj();
            let even = (a + b) * 0.5;
            let difference = (a - b) * 0.5;
            let odd = Complex64::new(difference.im, -difference.re);
            let x = even + self.twiddles[k] * odd;
            *bin = Complex32::new(x.re as f32, x.im as f32);
        }
        // The first and the last bin of a real signal have no imaginary part.
        spectrum[0].im = 0.0;
        spectrum[N_PAIRS].im = 0.0;
    }

    /// Adds the windowed frame of a spectrum to its samples in the output.
    pub(super) fn synthesise(&mut self, spectrum: &[Complex32], column: usize, out: &mut [f32]) {
        // The inverse: Z[k] = E + i·O, with E = (X[k] + conj X[m-k]) / 2 and O = (X[k] - conj X[m-k]) / 2W.
        for (k, pair) in self.pairs.iter_mut().enumerate() {
            let a = bin(spectrum, k);
            let b = bin(spectrum, N_PAIRS - k).conj();
            let even = (a + b) * 0.5;
            let odd = (a - b) * 0.5 * self.twiddles[k].conj();
            *pair = Complex64::new(even.re - odd.im, even.im + odd.re);
        }
        self.inverse
            .process_with_scratch(&mut self.pairs, &mut self.scratch);

        let place = place(column, out.len());
        let under = &mut out[place.in_signal..][..place.len];
        for (i, sum) in (place.in_frame..).zip(under) {
            let pair = self.pairs[i / 2];
            let x = if i.is_multiple_of(2) {
                pair.re
            } else {
                pair.im
            };
            let windowed = x / N_PAIRS as f64 * self.window[i];
            *sum = (f64::from(*sum) + windowed) as f32;
        }
    }

    /// Divides samples, to which `n_columns` frames were added, by the sum of their squared windows.
    pub(super) fn normalise(&self, out: &mut [f32], n_columns: usize) {
        for (i, sample) in out.iter_mut().enumerate() {
            let sum = self.window_sum(i, n_columns);
            if sum > f32::MIN_POSITIVE {
                *sample /= sum;
            }
        }
    }

    /// Returns the sum of the squared windows at sample `i`, in f32 and in the order of the frames.
    fn window_sum(&self, i: usize, n_columns: usize) -> f32 {
        // Index relative to the start of the first frame.
        let place = i + BEFORE;
        let first = (place + 1).saturating_sub(N_FFT).div_ceil(HOP_LENGTH);
        let end = (place / HOP_LENGTH + 1).min(n_columns);

        let mut sum = 0.0_f32;
        for column in first..end {
            let square = self.squares[place - column * HOP_LENGTH];
            sum = (f64::from(sum) + square) as f32;
        }
        sum
    }
}

/// Returns a bin in f64; the outermost bins are real.
#[inline(always)]
fn bin(spectrum: &[Complex32], k: usize) -> Complex64 {
    let Complex32 { re, im } = spectrum[k];
    let im = if k == 0 || k == N_PAIRS { 0.0 } else { im };
    Complex64::new(f64::from(re), f64::from(im))
}

/// Returns the part of the frame of `column` that is inside of `n` samples.
fn place(column: usize, n: usize) -> FramePlace {
    FramePlace::new((column * HOP_LENGTH) as isize - BEFORE as isize, N_FFT, n)
}
