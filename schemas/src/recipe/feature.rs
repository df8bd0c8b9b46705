//! The `[[features]]` section. Option values, presets and allowed ranges are defined in `wavemill-options`.

use std::str::FromStr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use wavemill_options::{
    ColourMap, CropBox, DbArgs, Derived, DimOrder, Dtype, Fault, Faults, FeatureArgs, ImageArgs,
    ImageFilter, Norm, Normalize, Op, Overrides, PadMode, PictureArgs, Preset, Window,
    did_you_mean,
};

use crate::exact;

/// `op`: the operation that computes a feature from audio, from another feature or from a picture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureOp {
    /// The operation [`Op::Stft`].
    Stft,
    /// The operation [`Op::Mel`].
    Mel,
    /// The operation [`Op::Mfcc`].
    Mfcc,
    /// [`Derived::Statistics`] of another feature.
    Statistics,
    /// [`Derived::Picture`] of another feature.
    Picture,
    /// A decoded picture file: [`ImageArgs`].
    Image,
}

impl FeatureOp {
    /// Returns the operation on audio, or `None` if the feature is computed from another feature or from a picture
    /// file.
    pub const fn of_audio(self) -> Option<Op> {
        match self {
            Self::Stft => Some(Op::Stft),
            Self::Mel => Some(Op::Mel),
            Self::Mfcc => Some(Op::Mfcc),
            Self::Statistics | Self::Picture | Self::Image => None,
        }
    }

    /// Returns the name used in recipes.
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
#[allow(missing_docs)] // named as in librosa; FeatureArgs documents each field
pub struct FeatureSpec {
    pub name: String,
    pub op: FeatureOp,
    /// Name of the feature of the recipe from which a derived feature is computed.
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
    /// 0 (none), 1 or 2: number of delta orders that are appended after the coefficients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<DbSpec>,
    #[serde(default)]
    pub normalize: Normalize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// `"mel,frame"` (default; `"bin,frame"`, `"coefficient,frame"` for the other ops) or the reverse order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim_order: Option<String>,
    /// Number of frames to which the frame axis is cropped or padded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Colour map of a picture: `"magma"` (default), `"viridis"`, `"grey"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour_map: Option<String>,
    /// Height of a picture in pixels; one pixel per band if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Width of a picture in pixels; one pixel per frame if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// `[left, top, width, height]`: the part of an image to use; the whole image if absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "exact::optional_array"
    )]
    pub crop: Option<[u32; 4]>,
    /// Resampling filter for images: `"triangle"` (default), `"nearest"`, `"catmull_rom"`, `"gaussian"`, `"lanczos3"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl FeatureSpec {
    /// Resolves all options of the feature for PCM of `sample_rate_hz`. `features` are all features of the recipe,
    /// because a derived feature is computed from another one.
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values. Features of a parsed recipe have no faults.
    pub fn resolve(&self, features: &[Self], sample_rate_hz: u32) -> Result<FeatureArgs, Fault> {
        let mut faults = Faults::default();
        let Some(op) = self.op.of_audio() else {
            let source = self.source_in(features)?;
            // The source is not derived itself, so the recursion ends after one step.
            let source = source.resolve(features, sample_rate_hz)?;
            let derived = self.derived(&mut faults);
            faults.into_result()?;
            return source.derive(derived, self.dtype);
        };

        let overrides = self.overrides(op, &mut faults);
        faults.into_result()?;
        FeatureArgs::resolve(op, self.preset, sample_rate_hz, &overrides)
    }

    /// Finds the source of a derived feature among all `features` of its recipe.
    ///
    /// # Errors
    /// A [`Fault`] of `source`: the key is absent, or names no feature, the derived feature itself, or another derived
    /// feature.
    pub fn source_in<'a>(&self, features: &'a [Self]) -> Result<&'a Self, Fault> {
        let allowed: Vec<&str> = features
            .iter()
            .filter(|feature| feature.op.of_audio().is_some())
            .map(|feature| feature.name.as_str())
            .collect();
        let names = match allowed.as_slice() {
            [] => "a feature with op stft, mel or mfcc (the recipe has none)".to_owned(),
            names => names.join(", "),
        };

        let Some(wanted) = &self.source else {
            let op = self.op.name();
            let problem = format!(
                "is missing: op = \"{op}\" is derived from another feature; allowed: {names}"
            );
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
                    format!("`{wanted}` is itself derived from another feature; allowed: {names}");
                Err(Fault::new("source", problem))
            }
            None => {
                let hint = did_you_mean(wanted, &allowed);
                let problem =
                    format!("the recipe has no feature `{wanted}`{hint}; allowed: {names}");
                Err(Fault::new("source", problem))
            }
        }
    }

    /// Returns the operation of a derived feature. An unknown word is a fault and is replaced by a value on which no
    /// rule depends.
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

    /// Resolves all options of a feature that is computed from picture files.
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values. Features of a parsed recipe have no faults.
    pub fn image(&self) -> Result<ImageArgs, Fault> {
        let mut faults = Faults::default();
        let filter = word(self.filter.as_deref(), ImageFilter::default(), &mut faults);
        for (side, key) in [(self.width, "width"), (self.height, "height")] {
            let problem = "is missing: all images are stored in one size, in pixels";
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

    /// Returns the keys that the recipe sets although `op` does not use them.
    pub(super) fn idle_keys(&self) -> Vec<&'static str> {
        // Destructure every field, so that the compiler requires new fields here.
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
            // Every operation uses `dtype`.
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
            // `wavemill-options` checks which audio options an operation has.
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

    /// Converts the options of an audio feature to typed values. An unknown word is a fault and is replaced by a value
    /// on which no rule depends, so that the option still counts as given.
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

/// Parses a word; adds a fault and returns `instead` if the word is unknown.
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

/// Conversion to decibels: `db = { ref = "max", amin = 1e-10, top_db = 80.0 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DbSpec {
    /// Reference for 0 dB: `"max"` or a positive number (power).
    #[serde(rename = "ref", default = "DbSpec::default_reference")]
    pub reference: DbRef,
    /// Minimum power; smaller values are raised to it.
    #[serde(default = "DbSpec::default_amin")]
    pub amin: f64,
    /// Range below the maximum in dB, to which values are limited; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_db: Option<f64>,
}

impl DbSpec {
    // The defaults of librosa's power_to_db, except that values are not limited if `top_db` is absent.
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

/// The only reference that is not a number: the largest value of the row.
const MAX: &str = "max";
const DB_REFS: &str = "\"max\" or a number above 0";

/// Reference power, which is 0 dB.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DbRef {
    /// A fixed power.
    Value(f64),
    /// `"max"`: the largest value of the row.
    Name(String),
}

// Implemented manually: for an untagged enum, serde's error contains the Rust type instead of the allowed values.
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

    // TOML distinguishes integers from floats: `ref = 1` is an integer.
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
