//! `[[features]]`: the part of a recipe that the kernels execute.

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// Which feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Magnitude to the given `power` of the short-time Fourier transform.
    Stft,
    /// Mel bands, in dB when `db` is given.
    Mel,
    /// Mel-frequency cepstral coefficients.
    Mfcc,
}

impl Op {
    /// As in a recipe: `stft`, `mel`, `mfcc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stft => "stft",
            Self::Mel => "mel",
            Self::Mfcc => "mfcc",
        }
    }

    /// Name of the axis beside `frame`: `bin`, `mel`, `coefficient`.
    #[must_use]
    pub const fn axis(self) -> &'static str {
        match self {
            Self::Stft => "bin",
            Self::Mel => "mel",
            Self::Mfcc => "coefficient",
        }
    }
}

/// Whose defaults a feature starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// librosa 0.11.
    #[default]
    Librosa,
    /// torchaudio's MelSpectrogram and MFCC.
    Torchaudio,
    /// Kaldi's fbank and mfcc with dither 0.
    Kaldi,
    /// OpenAI Whisper's log-mel.
    Whisper,
}

impl Preset {
    /// As in a recipe: `librosa`, `torchaudio`, `kaldi`, `whisper`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Librosa => "librosa",
            Self::Torchaudio => "torchaudio",
            Self::Kaldi => "kaldi",
            Self::Whisper => "whisper",
        }
    }
}

/// `[[features]]`. Absent keys take the preset's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // librosa's names; kernels' FeatureArgs documents each
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
    const fn default_reference() -> DbRef {
        DbRef::Value(1.0)
    }
    const fn default_amin() -> f64 {
        1e-10
    }
}

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
        f.write_str("\"max\" or a number above 0")
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

/// Scaling of a row (a segment) after everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Values as they are.
    #[default]
    None,
    /// To [0, 1] by the row's minimum and maximum.
    Minmax,
    /// To mean 0 and variance 1.
    Meanvar,
}

/// Stored type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Dtype {
    F16,
    F32,
    U8,
}

impl Dtype {
    /// Bytes a value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }

    /// `f16`, `f32`, `u8`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::U8 => "u8",
        }
    }
}
