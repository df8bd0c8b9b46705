//! The stretch factor, and values that depend only on it.

use wavemill_options::{STRETCH_MAX, STRETCH_MIN};

use crate::error::KernelError;

/// Samples per frame: librosa's default.
pub const N_FFT: usize = 2_048;
/// Samples from the start of one frame to the next: librosa's default.
pub const HOP_LENGTH: usize = N_FFT / 4;
/// Bins per column.
pub const N_BINS: usize = N_FFT / 2 + 1;

/// Change of a track's tempo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StretchArgs {
    /// Factor by which the tempo changes. Above 1: faster and shorter; below 1: slower and longer.
    pub rate: f64,
}

impl StretchArgs {
    /// Returns the number of output samples for `n` input samples: `n / rate` rounded, halves to even, like Python's
    /// `round`.
    pub fn output_len(self, n: usize) -> usize {
        (n as f64 / self.rate).round_ties_even() as usize
    }

    /// Returns the number of output columns for `n` input columns: one for each of 0, `rate`, 2 `rate` … below `n`.
    pub fn n_steps(self, n: usize) -> usize {
        (n as f64 / self.rate).ceil() as usize
    }

    /// Checks the tempo factor. Errors: a factor out of range.
    pub(super) fn validate(self) -> Result<(), KernelError> {
        if (STRETCH_MIN..=STRETCH_MAX).contains(&self.rate) {
            return Ok(());
        }
        let allowed = format!("from {STRETCH_MIN} to {STRETCH_MAX}");
        Err(KernelError::argument("rate", self.rate, allowed))
    }
}

/// Returns the number of columns in the spectrum of `n` samples: one frame is centred at each multiple of the hop.
pub(super) const fn n_columns(n: usize) -> usize {
    1 + n / HOP_LENGTH
}
