//! Adds up the increases band by band, so that values are read in their order in memory; a median needs all increases of
//! a frame.

use wavemill_options::{Aggregate, Framing, OnsetArgs, StftArgs};

use crate::statistics::median;

/// Positions of the frames that are compared.
pub(crate) struct OnsetPlan {
    /// Number of frames between the two that are compared.
    lag: usize,
    /// Number of frames by which an increase is delayed. A centred frame begins half its length before its position, so it
    /// contains an onset too early.
    delay: usize,
    aggregate: Aggregate,
    /// Increases of all bands of one frame.
    increases: Vec<f32>,
}

impl OnsetPlan {
    pub(crate) const fn new(args: &OnsetArgs, stft: &StftArgs) -> Self {
        let delay = match stft.framing {
            Framing::Center(_) => stft.n_fft / (2 * stft.hop_length),
            Framing::Inside | Framing::SnipEdges => 0,
        };
        Self {
            lag: args.lag,
            delay,
            aggregate: args.aggregate,
            increases: Vec::new(),
        }
    }

    /// Computes the strength of every frame, from all bands of all frames. It is 0 in the first frames.
    pub(crate) fn run(&mut self, bands: &[f32], n_frames: usize, out: &mut [f32]) {
        out.fill(0.0);
        let first = self.lag + self.delay;
        let Some(n) = n_frames.checked_sub(first).filter(|n| *n > 0) else {
            return;
        };

        let strengths = &mut out[first..];
        match self.aggregate {
            Aggregate::Mean => self.means(bands, n_frames, n, strengths),
            Aggregate::Median => self.medians(bands, n_frames, strengths),
        }
    }

    fn means(&self, bands: &[f32], n_frames: usize, n: usize, strengths: &mut [f32]) {
        for band in bands.chunks_exact(n_frames) {
            let pairs = band[..n].iter().zip(&band[self.lag..][..n]);
            for (strength, (before, now)) in strengths.iter_mut().zip(pairs) {
                *strength += (now - before).max(0.0);
            }
        }

        let n_bands = (bands.len() / n_frames) as f32;
        strengths
            .iter_mut()
            .for_each(|strength| *strength /= n_bands);
    }

    fn medians(&mut self, bands: &[f32], n_frames: usize, strengths: &mut [f32]) {
        for (before, strength) in strengths.iter_mut().enumerate() {
            let bands = bands.chunks_exact(n_frames);
            let increases = bands.map(|band| (band[before + self.lag] - band[before]).max(0.0));
            self.increases.clear();
            self.increases.extend(increases);
            *strength = median(&mut self.increases) as f32;
        }
    }
}
