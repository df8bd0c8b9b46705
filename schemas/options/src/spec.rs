//! A feature as given in a recipe: the `[[features]]` section.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::args::{DimOrder, FeatureArgs, Normalize};
use crate::constant_q::ChromaKind;
use crate::db::DbSpec;
use crate::derived::{ColourMap, Derived, PictureArgs};
use crate::exact;
use crate::fault::{Fault, Faults};
use crate::image::{CropBox, ImageArgs, ImageFilter};
use crate::mel::Norm;
use crate::onnx::{ModelSizes, OnnxArgs, Pooling};
use crate::op::{Input, KEYS, Op};
use crate::pack::Dtype;
use crate::preset::Preset;
use crate::rhythm::{Aggregate, TempoArgs};
use crate::stft::{PadMode, Window};
use crate::words::{Named, did_you_mean};

/// A feature of a recipe: `[[features]]`. Absent options take the preset's values. Names, units and meanings are those
/// of [`FeatureArgs`], [`PictureArgs`], [`OnnxArgs`] and [`ImageArgs`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // other keys are documented in `FeatureArgs`
pub struct FeatureSpec {
    /// Name of column and folder: a to z, 0 to 9 and `_`.
    pub name: String,
    /// Operation that computes the feature.
    pub op: Op,
    /// Name of the feature from which this one is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default)]
    pub preset: Preset,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_fft: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Word<Window>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub center: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_mode: Option<Word<PadMode>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_mels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmin: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fmax: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htk: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<Word<Norm>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_mfcc: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dct_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifter: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_bands: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amin: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Word<Aggregate>>,
    /// Most common tempo, in beats per minute. Default: 120.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_bpm: Option<f64>,
    /// Standard deviation of tempos, in octaves. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_bpm: Option<f64>,
    /// Fastest tempo, in beats per minute. Default: 320.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tempo: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tightness: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trim: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_chroma: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_bins: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins_per_octave: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_octaves: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_len_smooth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chroma: Option<Word<ChromaKind>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<DbSpec>,
    #[serde(default)]
    pub normalize: Normalize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Order of the tensor's axes: `"mel,frame"` (default; `op` determines the name of the band axis) or the reverse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim_order: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Path of a model's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standardize: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Word<Pooling>>,
    /// Colours: `magma`, `viridis`, `grey`. Default: `magma`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour_map: Option<Word<ColourMap>>,
    /// Pixels, 1 to 8192. Default: a pixel per band.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Pixels, 1 to 8192. Default: a pixel per frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Part of the picture that is used, in pixels: `[left, top, width, height]`. Default: all.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "exact::optional_array"
    )]
    pub crop: Option<[u32; 4]>,
    /// Filter for resizing: `nearest`, `triangle` (bilinear), `catmull_rom`, `gaussian`, `lanczos3`. Default:
    /// `triangle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Word<ImageFilter>>,
    /// False for a feature that is only the `source` of others. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<bool>,
}

impl FeatureSpec {
    /// Reports whether a store contains the feature.
    pub fn is_stored(&self) -> bool {
        self.stored.unwrap_or(true)
    }

    /// Resolves all options of a feature that is computed from spectra or derived from one, for PCM of
    /// `sample_rate_hz`. `features` are all features of the recipe, because a derived feature is computed from another
    /// one.
    ///
    /// Defaults that depend on another option use its given value: `win_length` depends on `n_fft`, and `fmax` on the
    /// sample rate.
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values, also for options that the operation does not use, and for
    /// an operation without spectra. Features of a parsed recipe have no faults of their options.
    pub fn resolve(&self, features: &[Self], sample_rate_hz: u32) -> Result<FeatureArgs, Fault> {
        match self.op.input() {
            Input::Spectra(_) => self.resolve_spectral(sample_rate_hz),
            Input::Feature => {
                let source = self.source_in(features)?;
                // The source feature is not derived itself, so the recursion ends after one step.
                let source = source.resolve(features, sample_rate_hz)?;
                let mut faults = Faults::default();
                let derived = self.derived(&mut faults);
                faults.into_result()?;
                source.derive(derived, self.dtype)
            }
            Input::Samples | Input::File | Input::Picture | Input::Model => {
                let problem = format!("`{}` is not computed from spectra", self.op.name());
                Err(Fault::new("op", problem))
            }
        }
    }

    fn resolve_spectral(&self, sample_rate_hz: u32) -> Result<FeatureArgs, Fault> {
        let faults = self.audio_faults(sample_rate_hz);
        if let Some(fault) = faults.into_iter().next() {
            return Err(fault);
        }
        let args = self.unchecked(sample_rate_hz);
        args.validate().map(|()| args)
    }

    /// Finds the source of a derived feature among all `features` of its recipe.
    ///
    /// # Errors
    /// A [`Fault`] of `source`: the key is absent, or names no feature, the derived feature itself, or another derived
    /// feature.
    pub fn source_in<'a>(&self, features: &'a [Self]) -> Result<&'a Self, Fault> {
        let allowed: Vec<&str> = features
            .iter()
            .filter(|feature| feature.op.is_spectral())
            .map(|feature| feature.name.as_str())
            .collect();
        let names = if allowed.is_empty() {
            let ops = Op::spectral_names("or");
            format!("a feature with op {ops} (the recipe has none)")
        } else {
            allowed.join(", ")
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
            Some(source) => {
                let what = match source.op.input() {
                    Input::Spectra(_) => return Ok(source),
                    Input::Feature => "is itself derived from another feature".to_owned(),
                    Input::Samples | Input::File | Input::Picture | Input::Model => {
                        format!("has op = \"{}\", which has no bands", source.op.name())
                    }
                };
                let problem = format!("`{wanted}` {what}; allowed: {names}");
                Err(Fault::new("source", problem))
            }
            None => {
                let remedy = match allowed[..] {
                    [] => format!("; allowed: {names}"),
                    _ => did_you_mean(wanted, &allowed, "allowed"),
                };
                let problem = format!("the recipe has no feature `{wanted}`{remedy}");
                Err(Fault::new("source", problem))
            }
        }
    }

    /// Returns the operation that computes this derived feature from its source. An unknown word is a fault and is
    /// replaced by a default on which no rule depends.
    pub fn derived(&self, faults: &mut Faults) -> Derived {
        let tempo = TempoArgs::LIBROSA;
        match self.op {
            Op::Statistics => Derived::Statistics,
            Op::Tempo => Derived::Tempo(TempoArgs {
                start_bpm: self.start_bpm.unwrap_or(tempo.start_bpm),
                std_bpm: self.std_bpm.unwrap_or(tempo.std_bpm),
                max_tempo: self.max_tempo.unwrap_or(tempo.max_tempo),
            }),
            _ => Derived::Picture(PictureArgs {
                colour_map: value(&self.colour_map, ColourMap::default(), faults),
                height: self.height,
                width: self.width,
            }),
        }
    }

    /// Resolves all options of a feature that is computed from picture files.
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values. Features of a parsed recipe have no faults.
    pub fn image(&self) -> Result<ImageArgs, Fault> {
        let mut faults = Faults::default();
        let filter = value(&self.filter, ImageFilter::default(), &mut faults);
        for (side, key) in [(self.width, "width"), (self.height, "height")] {
            let problem = "is missing: all images are stored in one size, in pixels";
            faults.unless(side.is_some(), key, problem);
        }
        faults.into_result()?;

        let args = ImageArgs {
            width: self.width.unwrap_or_default(),
            height: self.height.unwrap_or_default(),
            crop: self.crop.map(CropBox::from),
            filter,
            dtype: self.dtype.unwrap_or(Dtype::U8),
        };
        match args.faults().into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(args),
        }
    }

    /// Resolves all options of a feature that a model computes. `features` and `sample_rate_hz` are those of
    /// [`FeatureSpec::resolve`].
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values, also of the source. Features of a parsed recipe have no faults.
    pub fn onnx(&self, features: &[Self], sample_rate_hz: u32) -> Result<OnnxArgs, Fault> {
        let mut faults = Faults::default();
        let pooling = value(&self.pooling, Pooling::default(), &mut faults);
        let problem = "is missing: the path of a file in ONNX format";
        faults.unless(self.model.is_some(), "model", problem);
        OnnxArgs::check_window_s(self.window_s, &mut faults);
        let dtype = self.dtype.unwrap_or(Dtype::F32);
        let is_float = matches!(dtype, Dtype::F32 | Dtype::F16);
        faults.unless(is_float, "dtype", "allowed for onnx: f32, f16");
        faults.into_result()?;

        let source = match &self.source {
            Some(_) => {
                let args = self
                    .source_in(features)?
                    .resolve(features, sample_rate_hz)?;
                // Models take f32, also of a feature that is stored in another type.
                Some(Box::new(FeatureArgs {
                    dtype: Dtype::F32,
                    ..args
                }))
            }
            None => None,
        };
        // A window of a feature consists of frames, and one of the sound of samples.
        let step = source.as_ref().map_or(1, |args| args.stft.hop_length);
        let per_s = f64::from(sample_rate_hz) / step as f64;
        let window = self
            .window_s
            .map(|seconds| ((seconds * per_s).round() as usize).max(1));

        // The hash and the sizes follow from the model's file, and are set when it is loaded.
        Ok(OnnxArgs {
            model: self.model.clone().unwrap_or_default(),
            model_blake3: String::new(),
            source,
            output: self.output.clone(),
            layer: self.layer,
            window,
            standardize: self.standardize.unwrap_or(false),
            pooling,
            dtype,
            sizes: ModelSizes::default(),
        })
    }

    /// Returns a fault for each option that is set although the operation does not use it.
    pub fn idle_keys(&self) -> Vec<Fault> {
        let problem = format!("op = \"{}\" does not use it", self.op.name());
        let given = self.given_keys();
        KEYS.concat()
            .into_iter()
            .filter(|key| given.contains_key(*key) && !self.op.uses(key))
            .map(|key| Fault::new(key, problem.clone()))
            .collect()
    }

    /// Returns the options of the feature that differ from the defaults.
    fn given_keys(&self) -> Map<String, Value> {
        fn keys(spec: &FeatureSpec) -> Map<String, Value> {
            match serde_json::to_value(spec) {
                Ok(Value::Object(keys)) => keys,
                _ => Map::new(),
            }
        }

        let defaults = keys(&Self::default());
        let mut given = keys(self);
        given.retain(|key, value| defaults.get(key) != Some(value));
        given
    }

    /// Returns a fault for each invalid option of a feature that is computed from spectra.
    ///
    /// Values that follow from the options may be impossible too, which [`FeatureArgs::validate`] reports. Call it
    /// only if this function returns an empty list, because one invalid option can make other values invalid.
    pub fn audio_faults(&self, sample_rate_hz: u32) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.preset.check(self.op, sample_rate_hz, &mut faults);

        // Always create mel bands and cosine transform, so that their invalid options are reported even if unused.
        let mut words = Faults::default();
        let args = self.with_all_parts(sample_rate_hz, &mut words);
        let mut of_args = Faults::default();
        args.check(&mut of_args);
        let given = self.given_keys();
        for fault in of_args.into_vec() {
            // A fault of `db.top_db` belongs to the option `db`.
            let name = fault.key.split('.').next().unwrap_or_default();
            if given.contains_key(name) {
                faults.push(fault);
            }
        }

        // For `--set`, only the first fault is reported, so unknown words must precede the fault of `dtype`.
        let mut found = self.idle_keys();
        found.extend(faults.into_vec());
        let stored = found.iter().position(|fault| fault.key == "dtype");
        let stored = stored.unwrap_or(found.len());
        found.splice(stored..stored, words.into_vec());
        found
    }

    /// Returns the order of the tensor's axes.
    pub(crate) fn dim_order(&self, faults: &mut Faults) -> DimOrder {
        let Some(text) = &self.dim_order else {
            return DimOrder::default();
        };
        DimOrder::parse(text, self.op).unwrap_or_else(|fault| {
            faults.push(fault);
            DimOrder::default()
        })
    }
}

/// The name of a `T` in a recipe. It is kept as text until `value` parses it, because a later `--set` may correct it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word<T> {
    text: String,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T> From<&str> for Word<T> {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            kind: PhantomData,
        }
    }
}

/// Returns the value named by a word, or `absent` without a word. An unknown word is a fault and also gives `absent`.
pub(crate) fn value<T: Named>(word: &Option<Word<T>>, absent: T, faults: &mut Faults) -> T {
    match word.as_ref().map(|word| T::named(&word.text)) {
        Some(Ok(value)) => value,
        Some(Err(fault)) => {
            faults.push(fault);
            absent
        }
        None => absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option must be in a group of options: otherwise it would be ignored without an error by some operations.
    #[test]
    fn every_key_belongs_to_a_group() {
        // serde's error lists the fields in backquotes, after the unknown one.
        let error = serde_json::from_str::<FeatureSpec>(r#"{ "unknown": 1 }"#).unwrap_err();
        let error = error.to_string();
        let fields = error.split('`').skip(3).step_by(2);

        let grouped = KEYS.concat();
        let rest: Vec<&str> = fields.filter(|field| !grouped.contains(field)).collect();
        assert_eq!(rest, ["name", "op", "dtype", "stored"]);
    }
}
