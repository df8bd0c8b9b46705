//! Computes the onset strength, then its autocorrelation around each frame.

use wavemill_options::{StftArgs, TempogramArgs};
use wavemill_signal::Lanes;

use super::AutocorrelationPlan;
use crate::onset::OnsetPlan;

/// Plan of the onset strength and of its autocorrelation.
pub(crate) struct TempogramPlan {
    onset: OnsetPlan,
    autocorrelation: AutocorrelationPlan,
}

impl TempogramPlan {
    pub(crate) fn new(args: &TempogramArgs, stft: &StftArgs, lanes: Lanes) -> Self {
        Self {
            onset: OnsetPlan::new(&args.onset, stft),
            autocorrelation: AutocorrelationPlan::new(args.win_length, stft, lanes),
        }
    }

    /// Computes `[win_length, n_frames]` from all log mel bands of all frames.
    pub(crate) fn run(&mut self, bands: &[f32], n_frames: usize, out: &mut [f32]) {
        // The envelope is copied before the first row is written.
        self.onset.run(bands, n_frames, &mut out[..n_frames]);
        self.autocorrelation.load(&out[..n_frames]);
        self.autocorrelation.run(n_frames, |frame, row| {
            for (lag, value) in out.chunks_exact_mut(n_frames).zip(row) {
                lag[frame] = *value;
            }
        });
    }

    /// Frees the memory whose size depends on the clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.autocorrelation.forget_scratch();
    }
}
