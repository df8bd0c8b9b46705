//! The two rates, and what follows from them alone.

use wavemill_options::{MAX_FROM_HZ, MAX_TO_HZ, MIN_HZ};

use super::ResampleError;

/// End of the pass band as a fraction of the lower Nyquist frequency; the stop band begins at 1. As soxr's HQ.
pub const PASS_BAND: f64 = 0.913;
/// Attenuation that the filter is designed for, dB; 100 are promised.
pub const STOP_BAND_DB: f64 = 120.0;

/// Rates of a conversion, mono f32 in and out.
///
/// `n` samples become `ceil(n * to_hz / from_hz)`. Pass band (ripple below 0.01 dB) up to [`PASS_BAND`] of the lower
/// Nyquist frequency, at least 100 dB down from that frequency on. Equal rates copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResampleArgs {
    /// Rate of the input, Hz.
    pub from_hz: u32,
    /// Rate of the output, Hz.
    pub to_hz: u32,
}

/// How two rates meet: `down` input samples last as long as `up` output samples, and no shorter time does for both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub(super) down: usize,
    pub(super) up: usize,
}

impl ResampleArgs {
    /// Samples that `n` input samples become: `ceil(n * to_hz / from_hz)`.
    pub fn output_len(&self, n: u64) -> u64 {
        (n * u64::from(self.to_hz)).div_ceil(u64::from(self.from_hz))
    }

    /// Both rates divided by their greatest common divisor.
    pub(super) fn ratio(&self) -> Ratio {
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

    pub(super) fn validate(&self) -> Result<(), ResampleError> {
        let Self { from_hz, to_hz } = *self;
        if (MIN_HZ..=MAX_FROM_HZ).contains(&from_hz) && (MIN_HZ..=MAX_TO_HZ).contains(&to_hz) {
            return Ok(());
        }
        Err(ResampleError::Rate { from_hz, to_hz })
    }
}
