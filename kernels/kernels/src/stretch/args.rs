//! Sizes of the short-time Fourier transform, and the range of the stretch factor.

use wavemill_options::{STRETCH_MAX, STRETCH_MIN, StretchArgs};

use crate::error::KernelError;

/// Samples per frame: librosa's default.
pub const N_FFT: usize = 2_048;
/// Samples from the start of one frame to the next: librosa's default.
pub const HOP_LENGTH: usize = N_FFT / 4;
/// Bins per column.
pub const N_BINS: usize = N_FFT / 2 + 1;

/// Checks the tempo factor. Errors: a factor out of range.
pub(super) fn validate(args: StretchArgs) -> Result<(), KernelError> {
    if (STRETCH_MIN..=STRETCH_MAX).contains(&args.rate) {
        return Ok(());
    }
    let allowed = format!("from {STRETCH_MIN} to {STRETCH_MAX}");
    Err(KernelError::argument("rate", args.rate, allowed))
}

/// Returns the number of columns in the spectrum of `n` samples: one frame is centred at each multiple of the hop.
pub(super) const fn n_columns(n: usize) -> usize {
    1 + n / HOP_LENGTH
}
