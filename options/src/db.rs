//! Which logarithm, and its floor.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::fault::Faults;

/// What 0 dB is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbRef {
    /// The largest value of the spectrogram.
    Max,
    /// A fixed power.
    Power(f64),
}

/// `librosa.power_to_db`, or `amplitude_to_db` where the spectrum is one of magnitudes.
///
/// `10 · log10(max(amin, S)) - 10 · log10(max(amin, ref))`, then at least `max - top_db`; S is the power, which is the
/// magnitude squared for `power = 1`, so that `amin` and `ref` are powers in both cases. A range of more than 80 dB makes
/// the transform run in double precision: single would drown its quiet end in rounding noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DbArgs {
    /// 0 dB.
    pub reference: DbRef,
    /// Smallest power that is told apart; default 1e-10.
    pub amin: f64,
    /// Floor below the maximum, dB; absent: none.
    pub top_db: Option<f64>,
}

impl DbArgs {
    /// librosa's: ref 1, amin 1e-10, 80 dB.
    pub(crate) const LIBROSA: Self = Self {
        reference: DbRef::Power(1.0),
        amin: 1e-10,
        top_db: Some(80.0),
    };
}

impl Default for DbArgs {
    /// librosa's: ref 1, amin 1e-10, 80 dB.
    fn default() -> Self {
        Self::LIBROSA
    }
}

/// What is done to a spectrum's values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogArgs {
    /// Nothing.
    Linear,
    /// Decibels.
    Db(DbArgs),
    /// `ln(max(floor, S))`; Kaldi's floor is f32's epsilon.
    Ln {
        /// Smallest value.
        floor: f64,
    },
    /// `log10(max(1e-10, S))`, at least its maximum - 8, plus 4, over 4. Source: openai/whisper, `audio.py`.
    Whisper,
}

/// Powers between which f32's logarithm is sound. Below the first one lie f32's subnormal numbers, where the
/// logarithm's exponent trick ends.
const POWERS: RangeInclusive<f64> = 1e-37..=1e30;

/// Largest range of decibels. Between the smallest and the largest power of f32 there are fewer than 1,000.
const TOP_DB_MAX: f64 = 10_000.0;

impl LogArgs {
    /// Everything impossible.
    pub(crate) fn check(&self, faults: &mut Faults) {
        match *self {
            Self::Linear | Self::Whisper => {}
            Self::Ln { floor } => faults.within(Some(floor), POWERS, "floor"),
            Self::Db(db) => db.check(faults),
        }
    }
}

impl DbArgs {
    fn check(&self, faults: &mut Faults) {
        if let DbRef::Power(power) = self.reference {
            faults.within(Some(power), POWERS, "db.ref");
        }
        faults.within(Some(self.amin), POWERS, "db.amin");
        faults.positive(self.top_db, "db.top_db");

        // What is not a finite number above 0 has its own fault.
        if let Some(top_db) = self.top_db.filter(|top_db| top_db.is_finite()) {
            let problem =
                format!("{top_db} is out of range; allowed: above 0, at most {TOP_DB_MAX}");
            faults.unless(top_db <= TOP_DB_MAX, "db.top_db", problem);
        }
    }
}
