//! Combines given magnitudes with the phases of a signal and computes the signal with this spectrum.
//!
//! Two frames are transformed at once as the real and imaginary part of one complex transform, so that every length is
//! treated equally. A frame starts at the beginning of the transform instead of being centred in it, which rotates the
//! phases of a bin by the same angle in both directions.

use std::sync::Arc;

use wavemill_fft::num_complex::Complex64;
use wavemill_fft::{Fft, FftDirection};
use wavemill_options::StftArgs;
use wavemill_signal::Level;

use crate::error::KernelError;
use crate::stft::{FramePlace, Signal, fft_plan, window_values};

/// At the ends of a signal without padding, and between frames that are far apart, the sum of the squared windows is
/// almost 0. Dividing by it would turn a small error into a loud click. Therefore sums are at least this fraction of
/// the largest sum, and the ends fade instead.
const SUM_LEAST: f32 = 0.01;

/// Tables and buffers for transforming between signals and spectra.
pub(super) struct Phases {
    stft: StftArgs,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    window: Vec<f64>,
    /// A frame that is partly outside of the signal.
    frame: Vec<f32>,
    pair: Vec<Complex64>,
    scratch: Vec<Complex64>,
    /// For each sample, the gain: the factor for the sum of windowed frames.
    gains: Vec<f32>,
}

impl Phases {
    /// Plans the transforms. Errors: [`KernelError::Level`].
    pub(super) fn new(stft: &StftArgs, level: Level) -> Result<Self, KernelError> {
        let forward = fft_plan(stft.n_fft, level, FftDirection::Forward)?;
        let inverse = fft_plan(stft.n_fft, level, FftDirection::Inverse)?;
        let scratch_len = forward
            .get_inplace_scratch_len()
            .max(inverse.get_inplace_scratch_len());
        Ok(Self {
            stft: stft.clone(),
            forward,
            inverse,
            window: window_values(stft.window, stft.win_length),
            frame: vec![0.0; stft.win_length],
            pair: vec![Complex64::default(); stft.n_fft],
            scratch: vec![Complex64::default(); scratch_len],
            gains: Vec::new(),
        })
    }

    /// Computes the factor of each sample that undoes the overlap of the windows, for signals of `n_samples` samples and
    /// `n_frames` frames.
    pub(super) fn prepare(&mut self, n_samples: usize, n_frames: usize) {
        self.gains.clear();
        self.gains.resize(n_samples, 0.0);
        for frame in 0..n_frames {
            let place = self.place(frame, n_samples);
            let under = &mut self.gains[place.in_signal..][..place.len];
            for (sum, w) in under.iter_mut().zip(&self.window[place.in_frame..]) {
                *sum += (w * w) as f32;
            }
        }

        let largest = self.gains.iter().copied().fold(0.0, f32::max);
        for gain in &mut self.gains {
            *gain = match gain.max(SUM_LEAST * largest) {
                0.0 => 0.0,
                sum => 1.0 / sum,
            };
        }
    }

    /// Computes the signal of `magnitudes` (`[n_frames, n_bins]`) with phases from `turns`, which returns values from 0
    /// to 1.
    pub(super) fn invent(
        &mut self,
        magnitudes: &[f32],
        turns: &mut impl FnMut() -> f64,
        out: &mut [f32],
    ) {
        let n_bins = self.stft.n_bins();
        out.fill(0.0);

        for (number, two) in magnitudes.chunks(2 * n_bins).enumerate() {
            // Two frames share a transform, as its real and its imaginary part.
            let (first, second) = two.split_at(n_bins);
            for (k, magnitude) in first.iter().enumerate() {
                let a = at_turn(*magnitude, turns());
                self.put(k, a, Complex64::default());
            }

            // If the number of frames is odd, the last frame has no partner.
            for (k, magnitude) in second.iter().enumerate() {
                let b = at_turn(*magnitude, turns());
                self.add_second(k, b);
            }

            self.add_frames(2 * number, !second.is_empty(), out);
        }

        self.normalise(out);
    }

    /// Computes the signal from `magnitudes` and the phases of `signal`.
    pub(super) fn project(&mut self, signal: &[f32], magnitudes: &[f32], out: &mut [f32]) {
        let n_bins = self.stft.n_bins();
        out.fill(0.0);
        for (number, two) in magnitudes.chunks(2 * n_bins).enumerate() {
            let (first, second) = two.split_at(n_bins);
            let has_second = !second.is_empty();
            self.load(signal, 2 * number, has_second);
            self.forward
                .process_with_scratch(&mut self.pair, &mut self.scratch);

            for (k, magnitude) in first.iter().enumerate() {
                let (a, b) = self.taken_apart(k);
                let a = with_magnitude(a, *magnitude);
                let b = second.get(k).map_or(Complex64::default(), |magnitude| {
                    with_magnitude(b, *magnitude)
                });
                self.put(k, a, b);
            }
            self.add_frames(2 * number, has_second, out);
        }
        self.normalise(out);
    }

    /// Loads two windowed frames of the signal as real and imaginary parts of the transform's input.
    fn load(&mut self, signal: &[f32], frame: usize, has_second: bool) {
        self.pair.fill(Complex64::default());
        self.load_frame(signal, frame, |z, x| z.re = x);
        if has_second {
            self.load_frame(signal, frame + 1, |z, x| z.im = x);
        }
    }

    fn load_frame(&mut self, pcm: &[f32], frame: usize, put: impl Fn(&mut Complex64, f64)) {
        let signal = Signal {
            pcm,
            len: pcm.len(),
        };
        let start = self.stft.window_start(frame);
        let samples = signal.read(start, self.stft.framing, &mut self.frame);
        for ((z, w), x) in self.pair.iter_mut().zip(&self.window).zip(samples) {
            put(z, f64::from(*x) * w);
        }
    }

    /// Returns bin `k` of both frames from the transform Z of `a + i b`: (Z[k] + conj Z[n-k]) / 2 and (Z[k] - conj
    /// Z[n-k]) / 2i.
    fn taken_apart(&self, k: usize) -> (Complex64, Complex64) {
        let z = self.pair[k];
        let mirrored = self.pair[self.mirror(k)].conj();
        let a = (z + mirrored) * 0.5;
        let difference = (z - mirrored) * 0.5;
        (a, Complex64::new(difference.im, -difference.re))
    }

    /// Sets bin `k` of both frames, and its mirror image: `Z[k] = a + i b`, `Z[n-k] = conj a + i conj b`.
    fn put(&mut self, k: usize, a: Complex64, b: Complex64) {
        let mirror = self.mirror(k);
        if mirror == k {
            // Bins of a real frame that are their own mirror image have no imaginary part.
            self.pair[k] = Complex64::new(a.re, b.re);
            return;
        }
        self.pair[k] = Complex64::new(a.re - b.im, a.im + b.re);
        self.pair[mirror] = Complex64::new(a.re + b.im, b.re - a.im);
    }

    /// Adds bin `k` of the second frame to that of the first frame.
    fn add_second(&mut self, k: usize, b: Complex64) {
        let (a, _) = self.taken_apart(k);
        self.put(k, a, b);
    }

    /// Returns the bin that is conjugate to bin `k`; `k` itself for 0 and for half of an even length.
    fn mirror(&self, k: usize) -> usize {
        (self.stft.n_fft - k) % self.stft.n_fft
    }

    /// Applies the inverse transform, and adds both windowed frames to their samples of the output.
    fn add_frames(&mut self, frame: usize, has_second: bool, out: &mut [f32]) {
        self.inverse
            .process_with_scratch(&mut self.pair, &mut self.scratch);
        self.add_frame(frame, |z| z.re, out);
        if has_second {
            self.add_frame(frame + 1, |z| z.im, out);
        }
    }

    fn add_frame(&self, frame: usize, part: impl Fn(&Complex64) -> f64, out: &mut [f32]) {
        let place = self.place(frame, out.len());
        let under = &mut out[place.in_signal..][..place.len];
        let samples = self.pair[place.in_frame..].iter();
        let windowed = samples.zip(&self.window[place.in_frame..]);
        let n = self.stft.n_fft as f64;
        for (sum, (z, w)) in under.iter_mut().zip(windowed) {
            *sum += (part(z) * w / n) as f32;
        }
    }

    /// Returns the part of a frame's window that is inside of a signal of `n_samples` samples.
    fn place(&self, frame: usize, n_samples: usize) -> FramePlace {
        FramePlace::new(
            self.stft.window_start(frame),
            self.stft.win_length,
            n_samples,
        )
    }

    /// Multiplies each sample by its gain, which divides by the sum of the squared windows.
    fn normalise(&self, out: &mut [f32]) {
        for (sample, gain) in out.iter_mut().zip(&self.gains) {
            *sample *= gain;
        }
    }
}

/// Returns a complex number with this magnitude and an angle given in turns.
fn at_turn(magnitude: f32, turn: f64) -> Complex64 {
    let angle = std::f64::consts::TAU * turn;
    Complex64::new(libm::cos(angle), libm::sin(angle)) * f64::from(magnitude)
}

/// Returns the complex number with the angle of `z` and this magnitude; 0 if the angle is undefined.
fn with_magnitude(z: Complex64, magnitude: f32) -> Complex64 {
    let norm = (z.re * z.re + z.im * z.im).sqrt();
    if norm > 0.0 {
        z * (f64::from(magnitude) / norm)
    } else {
        Complex64::default()
    }
}
