//! Which logarithm, and its floor.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;

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

impl Default for DbArgs {
    /// librosa's: ref 1, amin 1e-10, 80 dB.
    fn default() -> Self {
        Self {
            reference: DbRef::Power(1.0),
            amin: 1e-10,
            top_db: Some(80.0),
        }
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

/// Floors below this would meet f32's subnormal numbers, where the logarithm's exponent trick ends.
const FLOOR_MIN: f64 = 1e-37;

impl LogArgs {
    /// Errors: [`KernelError::Argument`] that names the key and what is allowed.
    pub fn validate(&self, power: f64) -> Result<(), KernelError> {
        match *self {
            Self::Linear => Ok(()),
            Self::Ln { floor } => check_floor("floor", floor),

            Self::Whisper if power == 2.0 => Ok(()),
            Self::Whisper => Err(KernelError::argument(
                "power",
                power,
                "2 for Whisper's logarithm",
            )),

            Self::Db(_) if power != 1.0 && power != 2.0 => Err(KernelError::argument(
                "power",
                power,
                "1 or 2 where db is given",
            )),
            Self::Db(db) => {
                check_floor("db.amin", db.amin)?;
                if let DbRef::Power(reference) = db.reference {
                    check_floor("db.ref", reference)?;
                }

                match db.top_db {
                    Some(top) if !(0.0..=10_000.0).contains(&top) => Err(KernelError::argument(
                        "db.top_db",
                        top,
                        "from 0 to 10000 dB",
                    )),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn check_floor(key: &'static str, value: f64) -> Result<(), KernelError> {
    if (FLOOR_MIN..=1e30).contains(&value) {
        return Ok(());
    }
    Err(KernelError::argument(
        key,
        value,
        format!("from {FLOOR_MIN} to 1e30"),
    ))
}
