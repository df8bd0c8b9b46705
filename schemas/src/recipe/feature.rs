//! `[[features]]` as it is written. What the words mean, what presets say and what is allowed is in `wavemill-options`.

use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use wavemill_options::{
    DbArgs, DimOrder, Dtype, Fault, Faults, FeatureArgs, Norm, Normalize, Op, Overrides, PadMode,
    Preset, Window,
};

/// `[[features]]`. Absent keys take the preset's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // librosa's names; FeatureArgs documents each
pub struct FeatureSpec {
    pub name: String,
    pub op: Op,
    #[serde(default)]
    pub preset: Preset,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_fft: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub win_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub center: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_mels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmin: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmax: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htk: Option<bool>,
    /// `"slaney"` or `"none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_mfcc: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dct_type: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifter: Option<f64>,
    /// 0 (none), 1 or 2: append that many orders of deltas below the coefficients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<DbSpec>,
    #[serde(default)]
    pub normalize: Normalize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// `"mel,frame"` (default; `"bin,frame"`, `"coefficient,frame"` for the other ops) or the two swapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim_order: Option<String>,
    /// Crop or pad the frame axis to this many frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
}

impl FeatureSpec {
    /// The feature for PCM of `sample_rate_hz`, with nothing left to decide.
    ///
    /// # Errors
    /// A [`Fault`] that names the option and says what is allowed. Features of a recipe that was parsed have none.
    pub fn resolve(&self, sample_rate_hz: u32) -> Result<FeatureArgs, Fault> {
        let mut faults = Faults::default();
        let overrides = self.overrides(&mut faults);
        faults.into_result()?;
        FeatureArgs::resolve(self.op, self.preset, sample_rate_hz, &overrides)
    }

    /// What stands in the recipe, its words as values. An unknown word is a fault; a value that no rule depends on
    /// takes its place, so that the option still counts as given.
    pub(super) fn overrides(&self, faults: &mut Faults) -> Overrides {
        let dim_order = self.dim_order.as_deref();
        let dim_order = dim_order.map(|text| DimOrder::parse(text, self.op));
        Overrides {
            n_fft: self.n_fft,
            hop_length: self.hop_length,
            win_length: self.win_length,
            window: word(self.window.as_deref(), Window::Hann, faults),
            center: self.center,
            pad_mode: word(self.pad_mode.as_deref(), PadMode::Constant, faults),
            power: self.power,
            n_mels: self.n_mels,
            fmin: self.fmin,
            fmax: self.fmax,
            htk: self.htk,
            norm: word(self.norm.as_deref(), Norm::None, faults),
            n_mfcc: self.n_mfcc,
            dct_type: self.dct_type,
            lifter: self.lifter,
            delta: self.delta,
            db: self.db.as_ref().map(|db| db.args(faults)),
            normalize: self.normalize,
            dtype: self.dtype,
            dim_order: known(dim_order, DimOrder::default(), faults).unwrap_or_default(),
            frames: self.frames,
        }
    }
}

/// The value that a word stands for; `instead` of an unknown one.
fn word<T: FromStr<Err = Fault>>(text: Option<&str>, instead: T, faults: &mut Faults) -> Option<T> {
    known(text.map(str::parse), instead, faults)
}

fn known<T>(value: Option<Result<T, Fault>>, instead: T, faults: &mut Faults) -> Option<T> {
    let value = value?.unwrap_or_else(|fault| {
        faults.push(fault);
        instead
    });
    Some(value)
}

/// `db = { ref = "max", amin = 1e-10, top_db = 80.0 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbSpec {
    /// `"max"` or a positive number (power).
    #[serde(rename = "ref", default = "DbSpec::default_reference")]
    pub reference: DbRef,
    /// Smallest power that is told apart.
    #[serde(default = "DbSpec::default_amin")]
    pub amin: f64,
    /// Floor below the maximum, dB; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_db: Option<f64>,
}

impl DbSpec {
    // librosa's defaults of power_to_db, except for top_db: without the key nothing is cut off.
    fn default_reference() -> DbRef {
        match DbArgs::default().reference {
            wavemill_options::DbRef::Power(power) => DbRef::Value(power),
            wavemill_options::DbRef::Max => DbRef::Name(MAX.to_owned()),
        }
    }
    fn default_amin() -> f64 {
        DbArgs::default().amin
    }

    fn args(&self, faults: &mut Faults) -> DbArgs {
        let reference = match &self.reference {
            DbRef::Value(power) => wavemill_options::DbRef::Power(*power),
            DbRef::Name(name) if name == MAX => wavemill_options::DbRef::Max,
            DbRef::Name(_) => {
                faults.push(Fault::new("db.ref", format!("allowed: {DB_REFS}")));
                DbArgs::default().reference
            }
        };
        DbArgs {
            reference,
            amin: self.amin,
            top_db: self.top_db,
        }
    }
}

/// The reference that is no number: the largest value of the row.
const MAX: &str = "max";
const DB_REFS: &str = "\"max\" or a number above 0";

/// What 0 dB is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DbRef {
    /// A fixed power.
    Value(f64),
    /// `"max"`: the largest value of the row.
    Name(String),
}

// By hand: serde's error for an untagged enum names its Rust type instead of what is allowed.
impl<'de> Deserialize<'de> for DbRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DbRefVisitor)
    }
}

struct DbRefVisitor;

impl Visitor<'_> for DbRefVisitor {
    type Value = DbRef;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(DB_REFS)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<DbRef, E> {
        Ok(DbRef::Value(value))
    }

    // TOML tells whole numbers from others: `ref = 1` is one of these.
    fn visit_i64<E: Error>(self, value: i64) -> Result<DbRef, E> {
        Ok(DbRef::Value(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<DbRef, E> {
        Ok(DbRef::Value(value as f64))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<DbRef, E> {
        Ok(DbRef::Name(name.to_owned()))
    }
}
