//! Adds up the increases band by band, so that values are read in their order in memory.

use wavemill_options::{Framing, StftArgs};

/// Position of the frames that are compared.
pub(crate) struct OnsetPlan {
    /// Number of frames between the two that are compared.
    lag: usize,
    /// Number of frames by which an increase is delayed. A centred frame begins half its length before its position, so it
    /// contains an onset too early.
    delay: usize,
}

impl OnsetPlan {
    pub(crate) const fn new(lag: usize, stft: &StftArgs) -> Self {
        let delay = match stft.framing {
            Framing::Center(_) => stft.n_fft / (2 * stft.hop_length),
            Framing::Inside | Framing::SnipEdges => 0,
        };
        Self { lag, delay }
    }

    /// Computes the strength of every frame, from all bands of all frames. It is 0 in the first frames.
    pub(crate) fn run(&self, bands: &[f32], n_frames: usize, out: &mut [f32]) {
        out.fill(0.0);
        let first = self.lag + self.delay;
        let Some(n) = n_frames.checked_sub(first).filter(|n| *n > 0) else {
            return;
        };

        let strengths = &mut out[first..];
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
}
