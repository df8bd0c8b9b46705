//! Logarithm of the values, and its floor.

use std::ops::RangeInclusive;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};

/// Reference power, which is 0 dB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbRef {
    /// The reference is the largest value of the spectrogram.
    Max,
    /// The reference is a fixed power.
    Power(f64),
}

/// Conversion to decibels as in `librosa.power_to_db`, or `amplitude_to_db` for a magnitude spectrum.
///
/// Computes `10 · log10(max(amin, S)) - 10 · log10(max(amin, ref))`, limited to at least `max - top_db`. S is the
/// power. For `power = 1` it is the squared magnitude, so that `amin` and `ref` are powers in both cases. If the range
/// exceeds 80 dB, the transform uses double precision: with single precision, rounding noise would exceed the quietest
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DbArgs {
    /// Reference power for 0 dB.
    pub reference: DbRef,
    /// Minimum power; smaller values are raised to it. Default 1e-10.
    pub amin: f64,
    /// Range below the maximum in dB, to which values are limited; unlimited if absent.
    pub top_db: Option<f64>,
}

impl DbArgs {
    /// librosa's defaults: ref 1, amin 1e-10, 80 dB.
    pub(crate) const LIBROSA: Self = Self {
        reference: DbRef::Power(1.0),
        amin: 1e-10,
        top_db: Some(80.0),
    };
}

impl Default for DbArgs {
    /// Returns librosa's defaults: ref 1, amin 1e-10, 80 dB.
    fn default() -> Self {
        Self::LIBROSA
    }
}

/// Logarithm applied to the values of a spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogArgs {
    /// No logarithm.
    Linear,
    /// Decibels.
    Db(DbArgs),
    /// `ln(max(floor, S))`; Kaldi's floor is the epsilon of f32.
    Ln {
        /// Minimum value; smaller values are raised to it.
        floor: f64,
    },
    /// `log10(max(1e-10, S))`, limited to at least its maximum - 8, plus 4, divided by 4. Source: openai/whisper,
    /// `audio.py`.
    Whisper,
}

/// Range of powers in which the f32 logarithm is accurate. Smaller powers are close to subnormal numbers, for which the
/// exponent-based computation of the logarithm fails.
const POWERS: RangeInclusive<f64> = 1e-37..=1e30;

/// Maximum range in decibels. The smallest and the largest power in f32 are less than 1,000 dB apart.
const TOP_DB_MAX: f64 = 10_000.0;

impl LogArgs {
    /// Adds a fault for each invalid argument of the logarithm.
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

        // Skip values that are not finite or not above 0, which are already reported as faults.
        if let Some(top_db) = self.top_db.filter(|top_db| top_db.is_finite()) {
            let problem =
                format!("{top_db} is out of range; allowed: above 0, at most {TOP_DB_MAX}");
            faults.unless(top_db <= TOP_DB_MAX, "db.top_db", problem);
        }
    }
}

/// Options of the conversion to decibels in a recipe: `db = { ref = "max", amin = 1e-10, top_db = 80.0 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbSpec {
    /// Reference for 0 dB: `"max"` or a positive number (power).
    #[serde(rename = "ref", default = "DbSpec::default_reference")]
    pub reference: DbRefSpec,
    /// Minimum power; smaller values are raised to it.
    #[serde(default = "DbSpec::default_amin")]
    pub amin: f64,
    /// Range below the maximum in dB, to which values are limited; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_db: Option<f64>,
}

impl DbSpec {
    // Omitted options have the defaults of librosa's power_to_db, but an omitted `top_db` means no limit.
    fn default_reference() -> DbRefSpec {
        DbRefSpec::from(DbArgs::LIBROSA.reference)
    }
    fn default_amin() -> f64 {
        DbArgs::LIBROSA.amin
    }

    /// Returns the decibel arguments. An unknown reference is a fault and is replaced by the default.
    pub(crate) fn args(&self, faults: &mut Faults) -> DbArgs {
        let reference = match &self.reference {
            DbRefSpec::Value(power) => DbRef::Power(*power),
            DbRefSpec::Name(name) if name == MAX => DbRef::Max,
            DbRefSpec::Name(_) => {
                faults.push(Fault::new("db.ref", format!("allowed: {DB_REFS}")));
                DbArgs::LIBROSA.reference
            }
        };
        DbArgs {
            reference,
            amin: self.amin,
            top_db: self.top_db,
        }
    }
}

impl From<DbArgs> for DbSpec {
    fn from(args: DbArgs) -> Self {
        Self {
            reference: DbRefSpec::from(args.reference),
            amin: args.amin,
            top_db: args.top_db,
        }
    }
}

/// The only reference power in a recipe that is not a number: the largest value of the row.
const MAX: &str = "max";
const DB_REFS: &str = "\"max\" or a number above 0";

/// Reference power in a recipe: a number or a word. Unknown words are kept until validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DbRefSpec {
    /// A fixed reference power.
    Value(f64),
    /// `"max"`: the largest value of the row.
    Name(String),
}

impl From<DbRef> for DbRefSpec {
    fn from(reference: DbRef) -> Self {
        match reference {
            DbRef::Power(power) => Self::Value(power),
            DbRef::Max => Self::Name(MAX.to_owned()),
        }
    }
}

// Implemented manually: serde's derived error for an untagged enum names the Rust type instead of the allowed values.
impl<'de> Deserialize<'de> for DbRefSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DbRefVisitor)
    }
}

struct DbRefVisitor;

impl Visitor<'_> for DbRefVisitor {
    type Value = DbRefSpec;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(DB_REFS)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<DbRefSpec, E> {
        Ok(DbRefSpec::Value(value))
    }

    // TOML distinguishes integers from floats: `ref = 1` is an integer.
    fn visit_i64<E: Error>(self, value: i64) -> Result<DbRefSpec, E> {
        Ok(DbRefSpec::Value(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<DbRefSpec, E> {
        Ok(DbRefSpec::Value(value as f64))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<DbRefSpec, E> {
        Ok(DbRefSpec::Name(name.to_owned()))
    }
}
