//! A row of bands, from its values to samples.

use super::args::GriffinLimArgs;
use super::bands::Inverse;
use super::phases::Phases;
use crate::error::KernelError;
use crate::level::Level;

/// librosa's default.
const N_ITER: usize = 32;
/// librosa's default.
const MOMENTUM: f64 = 0.99;

/// Tables and buffers of one thread. Allocates nothing after planning but for a row that is longer than all before it.
///
/// A row of n frames takes 4 bytes for each of its n · (`n_fft` / 2 + 1) magnitudes, and 16 for each sample.
pub struct GriffinLimPlan {
    args: GriffinLimArgs,
    bands: Inverse,
    phases: Phases,
    /// `[n_frames, n_bins]`.
    magnitudes: Vec<f32>,
    /// Three signals in a row: the one at hand, the one before it, and the next one.
    current: Vec<f32>,
    previous: Vec<f32>,
    next: Vec<f32>,
}

impl GriffinLimPlan {
    /// Times that the phases are looked for.
    pub const N_ITER: usize = N_ITER;
    /// How far a step goes on in the direction of the one before it.
    pub const MOMENTUM: f64 = MOMENTUM;

    /// Makes them.
    ///
    /// # Errors
    /// [`KernelError::Level`] where this machine lacks `level`.
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

    /// Samples of `values` (`[n_frames, n_mels]`, frames first), which replace those of `out`: a hop for each frame.
    ///
    /// `turns` gives the phase of each bin to begin with, from 0 to 1 of a turn, frame by frame. What is no number is
    /// taken for silence, and what does not fill a frame is left out.
    pub fn run(&mut self, values: &[f32], mut turns: impl FnMut() -> f64, out: &mut Vec<f32>) {
        let n_frames = values.len() / self.args.mel.n_mels;
        self.find_magnitudes(values);
        self.find_phases(n_frames, N_ITER, &mut turns);

        out.clear();
        let n_samples = self.args.n_samples(n_frames);
        let kept = n_samples.min(self.current.len());
        out.extend_from_slice(&self.current[..kept]);
        // Frames that lie further apart than they are long leave the last hop open.
        out.resize(n_samples, 0.0);
    }

    /// Whole frames of values alone.
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

    /// Leaves the signal in `current`.
    ///
    /// librosa takes the spectrum of each signal, and subtracts a part of the spectrum of the signal before it. A transform
    /// of a difference is the difference of the transforms. So signals are subtracted here, and no spectrum is kept.
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
