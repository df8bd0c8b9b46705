//! The factor, and what follows from it alone.

use wavemill_options::{STRETCH_MAX, STRETCH_MIN};

use crate::error::KernelError;

/// Samples of a frame: librosa's default.
pub const N_FFT: usize = 2_048;
/// Samples from frame to frame: librosa's default.
pub const HOP_LENGTH: usize = N_FFT / 4;
/// Bins of a column.
pub const N_BINS: usize = N_FFT / 2 + 1;

/// How much faster a track becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StretchArgs {
    /// Above 1: faster and shorter; below 1: slower and longer.
    pub rate: f64,
}

impl StretchArgs {
    /// Samples that `n` samples become: `n / rate` rounded, and a half to the even number, as Python's `round` does.
    pub fn output_len(self, n: usize) -> usize {
        (n as f64 / self.rate).round_ties_even() as usize
    }

    /// Columns that `n` columns become: one for each of 0, `rate`, 2 `rate` … below `n`.
    pub fn n_steps(self, n: usize) -> usize {
        (n as f64 / self.rate).ceil() as usize
    }

    /// Errors: a rate out of range.
    pub(super) fn validate(self) -> Result<(), KernelError> {
        if (STRETCH_MIN..=STRETCH_MAX).contains(&self.rate) {
            return Ok(());
        }
        let allowed = format!("from {STRETCH_MIN} to {STRETCH_MAX}");
        Err(KernelError::argument("rate", self.rate, allowed))
    }
}

/// Columns of the spectra of `n` samples: frames are centred on multiples of the hop.
pub(super) const fn n_columns(n: usize) -> usize {
    1 + n / HOP_LENGTH
}
