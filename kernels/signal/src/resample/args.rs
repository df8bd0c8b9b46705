//! The two sample rates of a conversion, and values that depend only on them.

use wavemill_options::{MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};

use super::ResampleError;

/// End of the pass band as a fraction of the lower Nyquist frequency; the stop band begins at 1. Same value as soxr's
/// HQ.
pub const PASS_BAND: f64 = 0.913;
/// Attenuation in dB for which the filter is designed; 100 dB are guaranteed.
pub const STOP_BAND_DB: f64 = 120.0;

/// Sample rates of a conversion, with mono f32 input and output.
///
/// `n` samples become `ceil(n * to_hz / from_hz)`. The pass band (ripple below 0.01 dB) extends to [`PASS_BAND`] of the
/// lower Nyquist frequency; above that frequency the attenuation is at least 100 dB. Equal rates copy the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResampleArgs {
    /// Rate of the input in Hz.
    pub from_hz: u32,
    /// Rate of the output in Hz.
    pub to_hz: u32,
}

/// Ratio of two rates in lowest terms: `down` input samples have the same duration as `up` output samples.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Number of input samples.
    pub down: usize,
    /// Number of output samples.
    pub up: usize,
}

impl ResampleArgs {
    /// Returns the number of output samples for `n` input samples: `ceil(n * to_hz / from_hz)`.
    pub fn output_len(&self, n: u64) -> u64 {
        (n * u64::from(self.to_hz)).div_ceil(u64::from(self.from_hz))
    }

    /// Divides both rates by their greatest common divisor.
    pub fn ratio(&self) -> Ratio {
        // Euclid's algorithm: in the end `a` is the greatest common divisor.
        let mut a = self.from_hz;
        let mut b = self.to_hz;
        while b != 0 {
            (a, b) = (b, a % b);
        }

        Ratio {
            down: (self.from_hz / a) as usize,
            up: (self.to_hz / a) as usize,
        }
    }

    /// Checks the ranges of both rates.
    pub fn validate(&self) -> Result<(), ResampleError> {
        let Self { from_hz, to_hz } = *self;
        if (MIN_HZ..=MAX_FROM_HZ).contains(&from_hz) && (MIN_HZ..=MAX_TO_HZ).contains(&to_hz) {
            return Ok(());
        }
        Err(ResampleError::Rate { from_hz, to_hz })
    }
}
