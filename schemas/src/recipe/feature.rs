//! `[[features]]` as it is written. What the words mean, what presets say and what is allowed is in `wavemill-options`.

use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use wavemill_options::{
    ColourMap, CropBox, DbArgs, Derived, DimOrder, Dtype, Fault, Faults, FeatureArgs, ImageArgs,
    ImageFilter, Norm, Normalize, Op, Overrides, PadMode, PictureArgs, Preset, Window,
    did_you_mean,
};

use crate::exact;

/// `op`: what is computed of audio, or made of another feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureOp {
    /// [`Op::Stft`].
    Stft,
    /// [`Op::Mel`].
    Mel,
    /// [`Op::Mfcc`].
    Mfcc,
    /// [`Derived::Statistics`] of another feature.
    Statistics,
    /// [`Derived::Picture`] of another feature.
    Picture,
    /// A picture file as it is: [`ImageArgs`].
    Image,
}

impl FeatureOp {
    /// What it computes of audio; `None` where it starts from another feature, or from a picture.
    pub const fn of_audio(self) -> Option<Op> {
        match self {
            Self::Stft => Some(Op::Stft),
            Self::Mel => Some(Op::Mel),
            Self::Mfcc => Some(Op::Mfcc),
            Self::Statistics | Self::Picture | Self::Image => None,
        }
    }

    /// As in a recipe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stft => "stft",
            Self::Mel => "mel",
            Self::Mfcc => "mfcc",
            Self::Statistics => "statistics",
            Self::Picture => "picture",
            Self::Image => "image",
        }
    }
}

/// `[[features]]`. Absent keys take the preset's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // librosa's names; FeatureArgs documents each
pub struct FeatureSpec {
    pub name: String,
    pub op: FeatureOp,
    /// What a derived feature starts from: the name of another feature of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
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
    /// Colours of a picture: `"magma"` (default), `"viridis"`, `"grey"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour_map: Option<String>,
    /// Rows of pixels of a picture; absent: one a band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Columns of pixels; absent: one a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// `[left, top, width, height]`: the part of an image that is taken; absent: all of it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "exact::optional_array"
    )]
    pub crop: Option<[u32; 4]>,
    /// How an image gets its size: `"triangle"` (default), `"nearest"`, `"catmull_rom"`, `"gaussian"`, `"lanczos3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl FeatureSpec {
    /// The feature for PCM of `sample_rate_hz`, with nothing left to decide. `features` are all of its recipe: a derived
    /// one starts from another of them.
    ///
    /// # Errors
    /// A [`Fault`] that names the option and says what is allowed. Features of a recipe that was parsed have none.
    pub fn resolve(&self, features: &[Self], sample_rate_hz: u32) -> Result<FeatureArgs, Fault> {
        let mut faults = Faults::default();
        let Some(op) = self.op.of_audio() else {
            let source = self.source_in(features)?;
            // It is not derived itself, so this goes one step deep.
            let source = source.resolve(features, sample_rate_hz)?;
            let derived = self.derived(&mut faults);
            faults.into_result()?;
            return source.derive(derived, self.dtype);
        };

        let overrides = self.overrides(op, &mut faults);
        faults.into_result()?;
        FeatureArgs::resolve(op, self.preset, sample_rate_hz, &overrides)
    }

    /// The feature that a derived one starts from, of all `features` of its recipe.
    ///
    /// # Errors
    /// A [`Fault`] of `source`: it is missing, no feature, the derived one itself, or another derived one.
    pub fn source_in<'a>(&self, features: &'a [Self]) -> Result<&'a Self, Fault> {
        let allowed: Vec<&str> = features
            .iter()
            .filter(|feature| feature.op.of_audio().is_some())
            .map(|feature| feature.name.as_str())
            .collect();
        let names = match allowed.as_slice() {
            [] => "a feature with op stft, mel or mfcc, and the recipe has none".to_owned(),
            names => names.join(", "),
        };

        let Some(wanted) = &self.source else {
            let op = self.op.name();
            let problem = format!("is missing: op = \"{op}\" starts from another feature: {names}");
            return Err(Fault::new("source", problem));
        };
        if *wanted == self.name {
            let problem = format!("`{wanted}` is the feature itself; allowed: {names}");
            return Err(Fault::new("source", problem));
        }

        match features.iter().find(|feature| feature.name == *wanted) {
            Some(source) if source.op.of_audio().is_some() => Ok(source),
            Some(_) => {
                let problem =
                    format!("`{wanted}` is made of another feature itself; allowed: {names}");
                Err(Fault::new("source", problem))
            }
            None => {
                let hint = did_you_mean(wanted, &allowed);
                let problem = format!(
                    "no feature of the recipe is called `{wanted}`{hint}; allowed: {names}"
                );
                Err(Fault::new("source", problem))
            }
        }
    }

    /// What a derived feature makes of its source. An unknown word is a fault; a value that no rule depends on takes its
    /// place.
    pub(super) fn derived(&self, faults: &mut Faults) -> Derived {
        if self.op == FeatureOp::Statistics {
            return Derived::Statistics;
        }
        let colour_map = word(self.colour_map.as_deref(), ColourMap::default(), faults);
        Derived::Picture(PictureArgs {
            colour_map: colour_map.unwrap_or_default(),
            height: self.height,
            width: self.width,
        })
    }

    /// What is made of a picture file, with nothing left to decide.
    ///
    /// # Errors
    /// A [`Fault`] that names the option and says what is allowed. Features of a recipe that was parsed have none.
    pub fn image(&self) -> Result<ImageArgs, Fault> {
        let mut faults = Faults::default();
        let filter = word(self.filter.as_deref(), ImageFilter::default(), &mut faults);
        for (side, key) in [(self.width, "width"), (self.height, "height")] {
            let problem = "is missing: an image is stored in one size, in pixels";
            faults.unless(side.is_some(), key, problem);
        }
        faults.into_result()?;

        let args = ImageArgs {
            width: self.width.unwrap_or_default(),
            height: self.height.unwrap_or_default(),
            crop: self.crop.map(CropBox::from),
            filter: filter.unwrap_or_default(),
            dtype: self.dtype.unwrap_or(Dtype::U8),
        };
        match args.faults().into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(args),
        }
    }

    /// Options that stand in the recipe although `op` has no use for them.
    pub(super) fn idle_keys(&self) -> Vec<&'static str> {
        // Every field is named here, so that a new one cannot be forgotten below.
        let Self {
            name: _,
            op,
            source,
            preset,
            n_fft,
            hop_length,
            win_length,
            window,
            center,
            pad_mode,
            power,
            n_mels,
            fmin,
            fmax,
            htk,
            norm,
            n_mfcc,
            dct_type,
            lifter,
            delta,
            db,
            normalize,
            // Every operation has a type of its values.
            dtype: _,
            dim_order,
            frames,
            colour_map,
            height,
            width,
            crop,
            filter,
        } = self;

        let of_audio = [
            ("preset", *preset != Preset::default()),
            ("n_fft", n_fft.is_some()),
            ("hop_length", hop_length.is_some()),
            ("win_length", win_length.is_some()),
            ("window", window.is_some()),
            ("center", center.is_some()),
            ("pad_mode", pad_mode.is_some()),
            ("power", power.is_some()),
            ("n_mels", n_mels.is_some()),
            ("fmin", fmin.is_some()),
            ("fmax", fmax.is_some()),
            ("htk", htk.is_some()),
            ("norm", norm.is_some()),
            ("n_mfcc", n_mfcc.is_some()),
            ("dct_type", dct_type.is_some()),
            ("lifter", lifter.is_some()),
            ("delta", delta.is_some()),
            ("db", db.is_some()),
            ("normalize", *normalize != Normalize::None),
            ("dim_order", dim_order.is_some()),
            ("frames", frames.is_some()),
        ];
        let of_source = [("source", source.is_some())];
        let of_picture = [
            ("colour_map", colour_map.is_some()),
            ("height", height.is_some()),
            ("width", width.is_some()),
        ];
        let of_image = [("crop", crop.is_some()), ("filter", filter.is_some())];
        let colours = [("colour_map", colour_map.is_some())];

        let idle: Vec<(&str, bool)> = match op {
            // Which of the options of audio an operation has, `wavemill-options` knows.
            FeatureOp::Stft | FeatureOp::Mel | FeatureOp::Mfcc => {
                [&of_source[..], &of_picture, &of_image].concat()
            }
            FeatureOp::Statistics => [&of_audio[..], &of_picture, &of_image].concat(),
            FeatureOp::Picture => [&of_audio[..], &of_image].concat(),
            FeatureOp::Image => [&of_audio[..], &of_source, &colours].concat(),
        };
        let given = idle.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(key, _)| key).collect()
    }

    /// What stands in the recipe of a feature of audio, its words as values. An unknown word is a fault; a value that no
    /// rule depends on takes its place, so that the option still counts as given.
    pub(super) fn overrides(&self, op: Op, faults: &mut Faults) -> Overrides {
        let dim_order = self.dim_order.as_deref();
        let dim_order = dim_order.map(|text| DimOrder::parse(text, op));

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
