//! Reconstructs samples from the mel bands of a row.

use wavemill_signal::Level;

use super::args::GriffinLimArgs;
use super::bands::Inverse;
use super::phases::Phases;
use crate::error::KernelError;

/// Number of Griffin-Lim iterations: librosa's default.
const N_ITER: usize = 32;
/// Momentum of the Griffin-Lim iterations: librosa's default.
const MOMENTUM: f64 = 0.99;

/// Tables and buffers of one thread for reconstruction. After planning, memory is allocated only for a row that is
/// longer than all previous rows.
///
/// A row of n frames needs 4 bytes for each of its n · (`n_fft` / 2 + 1) magnitudes, and 16 bytes per sample.
pub struct GriffinLimPlan {
    args: GriffinLimArgs,
    bands: Inverse,
    phases: Phases,
    /// Magnitudes of all bins of a row, `[n_frames, n_bins]`.
    magnitudes: Vec<f32>,
    /// Signals of three successive iterations: the current one, the previous one, and the next one.
    current: Vec<f32>,
    previous: Vec<f32>,
    next: Vec<f32>,
}

impl GriffinLimPlan {
    /// Number of iterations for estimating the phases.
    pub const N_ITER: usize = N_ITER;
    /// Momentum: the fraction of the previous step's direction that is added to a step.
    pub const MOMENTUM: f64 = MOMENTUM;

    /// Creates tables and buffers.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support `level`.
    pub fn new(args: &GriffinLimArgs, level: Level) -> Result<Self, KernelError> {
        Ok(Self {
            bands: Inverse::new(args),
            phases: Phases::new(&args.stft, level)?,
            magnitudes: Vec::new(),
            current: Vec::new(),
            previous: Vec::new(),
            next: Vec::new(),
            args: args.clone(),
        })
    }

    /// Reconstructs samples from `values` (`[n_frames, n_mels]`, frames first) and replaces the content of `out` with
    /// them: one hop per frame.
    ///
    /// `turns` returns the initial phase of each bin, from 0 to 1 of a turn, frame by frame. NaN is treated as silence,
    /// and an incomplete last frame is ignored.
    pub fn run(&mut self, values: &[f32], mut turns: impl FnMut() -> f64, out: &mut Vec<f32>) {
        let n_frames = values.len() / self.args.mel.n_mels;
        self.find_magnitudes(values);
        self.find_phases(n_frames, N_ITER, &mut turns);

        out.clear();
        let n_samples = self.args.n_samples(n_frames);
        let kept = n_samples.min(self.current.len());
        out.extend_from_slice(&self.current[..kept]);
        // Gaps between frames that are further apart than they are long may leave the last hop incomplete.
        out.resize(n_samples, 0.0);
    }

    /// Computes the magnitudes of all complete frames from their bands.
    fn find_magnitudes(&mut self, values: &[f32]) {
        let n_bins = self.args.stft.n_bins();
        let frames = values.chunks_exact(self.args.mel.n_mels);
        self.magnitudes.clear();
        self.magnitudes.resize(frames.len() * n_bins, 0.0);

        let args = &self.args;
        let rows = self.magnitudes.chunks_exact_mut(n_bins);
        for (frame, magnitudes) in frames.zip(rows) {
            let bands = frame.iter().map(|value| args.band_of(*value));
            self.bands.run(bands, magnitudes);
        }
    }

    /// Estimates the phases and stores the signal in `current`.
    ///
    /// librosa computes the spectrum of each signal, and subtracts a fraction of the previous signal's spectrum.
    /// Because the transform is linear, the signals are subtracted here instead, and no spectrum is stored.
    pub(super) fn find_phases(
        &mut self,
        n_frames: usize,
        n_iter: usize,
        turns: &mut impl FnMut() -> f64,
    ) {
        let n_samples = self.args.n_covered(n_frames);
        for signal in [&mut self.current, &mut self.previous, &mut self.next] {
            signal.clear();
            signal.resize(n_samples, 0.0);
        }
        self.phases.prepare(n_samples, n_frames);
        self.phases
            .invent(&self.magnitudes, turns, &mut self.current);

        let part = (MOMENTUM / (1.0 + MOMENTUM)) as f32;
        for _ in 0..n_iter {
            for (before, now) in self.previous.iter_mut().zip(&self.current) {
                *before = now - part * *before;
            }
            self.phases
                .project(&self.previous, &self.magnitudes, &mut self.next);

            std::mem::swap(&mut self.previous, &mut self.current);
            std::mem::swap(&mut self.current, &mut self.next);
        }
    }
}

#[cfg(test)]
impl GriffinLimPlan {
    pub(super) fn magnitudes_mut(&mut self) -> &mut Vec<f32> {
        &mut self.magnitudes
    }

    pub(super) fn signal(&self) -> &[f32] {
        &self.current
    }
}
