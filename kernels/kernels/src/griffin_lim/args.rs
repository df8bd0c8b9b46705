//! Parameters of the bands, and the inverse of their logarithm.

use wavemill_options::{DbArgs, DbRef, Framing, LogArgs, MelArgs, StftArgs};

/// Largest value of a band. It is far above every sound, and its square root keeps all sums finite.
const BAND_MAX: f64 = 1e30;

/// Parameters with which the mel bands were computed, named as in `FeatureArgs`.
#[derive(Clone, Debug, PartialEq)]
pub struct GriffinLimArgs {
    /// Sample rate in Hz.
    pub sample_rate_hz: u32,
    /// Framing and Fourier transform.
    pub stft: StftArgs,
    /// Exponent of the magnitude, above 0 and up to 2, before the mel bands.
    pub power: f64,
    /// The mel bands.
    pub mel: MelArgs,
    /// The logarithm of the bands.
    pub log: LogArgs,
}

impl GriffinLimArgs {
    /// Returns the number of samples reconstructed from `n_frames` frames: one hop per frame.
    pub const fn n_samples(&self, n_frames: usize) -> usize {
        self.stft.hop_length.saturating_mul(n_frames)
    }

    /// Returns the number of samples covered by `n_frames` frames; may exceed [`GriffinLimArgs::n_samples`].
    pub(super) const fn n_covered(&self, n_frames: usize) -> usize {
        if n_frames == 0 {
            return 0;
        }
        match self.stft.framing {
            // The first frame is centred at the first sample.
            Framing::Center(_) => self.n_samples(n_frames),
            Framing::Inside => self.n_samples(n_frames - 1) + self.stft.n_fft,
            Framing::SnipEdges => self.n_samples(n_frames - 1) + self.stft.win_length,
        }
    }

    /// Returns the value of a band before its logarithm. NaN is treated as silence.
    pub(super) fn band_of(&self, value: f32) -> f64 {
        let value = f64::from(value);
        let band = match self.log {
            LogArgs::Linear => value,
            LogArgs::Ln { .. } => libm::exp(value),
            LogArgs::Db(db) => self.band_of_decibels(value, db),
            // Inverts Whisper's logarithm, which is (log10 S + 4) / 4.
            LogArgs::Whisper => libm::pow(10.0, 4.0 * value - 4.0),
        };

        // Comparisons with NaN are false, so NaN becomes 0.
        if band > 0.0 { band.min(BAND_MAX) } else { 0.0 }
    }

    fn band_of_decibels(&self, decibels: f64, db: DbArgs) -> f64 {
        let reference = match db.reference {
            // The largest value of the original is unknown. Assume 1, so that the level of the sound is arbitrary.
            DbRef::Max => 1.0,
            DbRef::Power(power) => power.max(db.amin),
        };
        let power = reference * libm::pow(10.0, decibels / 10.0);
        // Decibels of a magnitude are defined as those of the squared magnitude.
        if self.power == 1.0 {
            power.sqrt()
        } else {
            power
        }
    }

    /// Returns the factor that scale and pre-emphasis apply to the magnitude of bin `bin` before the transform.
    pub(super) fn conditioning(&self, bin: usize) -> f64 {
        let turn = std::f64::consts::TAU * bin as f64 / self.stft.n_fft as f64;
        let factor = self.stft.preemphasis;
        // Squared magnitude: |1 - factor · exp(-i turn)|².
        let square = 1.0 - 2.0 * factor * libm::cos(turn) + factor * factor;
        f64::from(self.stft.scale) * square.max(0.0).sqrt()
    }
}
