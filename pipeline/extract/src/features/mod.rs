//! Computes packed feature rows from PCM, with kernels planned from the recipe. There is one [`FeaturePlan`] per run,
//! and one [`Extractor`] per worker or per lane of a device.

mod audio;
mod derive;
mod extractor;
mod images;
mod loudness;
mod memory;
mod model;

use std::sync::Arc;

use serde::Serialize;
use wavemill_decode as decode;
use wavemill_decode::{Decode, DecodeArgs, FileDecoder};
use wavemill_kernels::{Backend, Cpu, FeatureArgs, KernelError, Level, SpareTensors};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::manifest::{FeatureEntry, Scale, TargetEntry};
use wavemill_schemas::recipe::{
    AudioSpec, DecodePath, Fault, FeatureSpec, ImageSpec, OnnxArgs, Recipe, ShardSpec, SoundArgs,
    SplitSpec, TensorArgs,
};
use wavemill_schemas::samples::samples_in;
use wavemill_schemas::{NUMERICS_REVISION, canonical};
use wavemill_store::StoreError;
use wavemill_store::plan::segments::{
    PLAIN, reaches_behind, segments, segments_at_most, stretched_segments, variants_on,
};
use wavemill_store::shards::Format;

use crate::error::ExtractError;
use crate::onnx::{Model, ModelPlan, TensorError};
use crate::settings::Settings;

pub(crate) use derive::StoredSources;
pub(crate) use extractor::SegmentResults;
pub use extractor::{Extractor, NoRows};
pub(crate) use memory::encode_bytes;

/// Message for a recipe with stretched copies on a device, which has no kernel for time stretching.
pub const STRETCH_ON_DEVICE: &str =
    "audio.stretch is computed only on the CPU: use --backend cpu, or --set audio.stretch=none";

/// Creates the error for a value computed from a clip that does not fit the type in which the feature is stored.
fn does_not_fit(clip_key: &str, feature: &str, source: KernelError) -> ExtractError {
    let plain = PlainError::failed(format!(
        "{clip_key}: features.{feature} does not fit its type: set features.{feature}.dtype = \"f32\""
    ));
    plain.caused_by(source).into()
}

/// Creates the error for an option of a feature that is invalid.
fn invalid_option(feature: &str, source: Fault) -> ExtractError {
    let plain = PlainError::usage(format!("features.{feature}"));
    plain.caused_by(source).into()
}

/// Creates the error for a model that cannot be loaded.
fn not_loaded(feature: &str, error: TensorError) -> ExtractError {
    match error {
        TensorError::Options(fault) => invalid_option(feature, fault),
        error => {
            let plain = PlainError::usage(format!("features.{feature}.model"));
            plain.caused_by(error).into()
        }
    }
}

/// The plan that converts PCM or pictures to stored bytes. It does not change during a run.
pub struct FeaturePlan {
    /// Arguments of each feature, in the recipe's order.
    args: Vec<TensorArgs>,
    /// Manifest entry of each feature, in the same order.
    entries: Vec<FeatureEntry>,
    /// For each statistics feature, the `feature_id` under which exactly the values of its source are stored.
    source_ids: Vec<Option<String>>,
    /// For each feature of a model, the loaded model.
    models: Vec<Option<Arc<Model>>>,
    audio: AudioSpec,
    /// Settings for picture files.
    image: ImageSpec,
    split: SplitSpec,
    level: Level,
    backend: Arc<dyn Backend>,
    /// Memory in bytes that is reserved for encoding rows.
    encode_limit_bytes: u64,
    /// Buffers of tensors that are on disk, for the next ones.
    spare_tensors: Arc<SpareTensors>,
}

impl FeaturePlan {
    /// Resolves every feature of a recipe.
    ///
    /// # Errors
    /// [`ExtractError`] with the names of the feature and the key.
    pub fn new(recipe: &Recipe, settings: &Settings) -> Result<Self, ExtractError> {
        let audio = recipe.audio.clone();
        let rule = recipe.split.rule;
        // Under the rules by segment, shards are planned from the maximum number of segments of a clip, before any clip
        // is decoded.
        if rule.is_by_segment()
            && (audio.segment_s.is_none() || segments_at_most(&audio, PLAIN) == usize::MAX)
        {
            return Err(ExtractError::usage(format!(
                "split.rule = \"{}\" needs audio.segment_s, and audio.segments_max or audio.duration_s",
                rule.name()
            )));
        }
        // A device computes clips as decoded, without stretched copies. The command line has already considered this
        // when it chose the backend.
        if !audio.stretch.is_empty() && settings.backend.batch_clips() > 1 {
            return Err(ExtractError::usage(STRETCH_ON_DEVICE));
        }

        let mut all_args = Vec::new();
        let mut entries = Vec::new();
        let mut source_ids = Vec::new();
        let mut models = Vec::new();
        for spec in recipe.stored_features() {
            let mut args = spec
                .tensor_args(&recipe.features, audio.sample_rate_hz)
                .map_err(|fault| invalid_option(&spec.name, fault))?;
            models.push(match &mut args {
                TensorArgs::Onnx(args) => {
                    let loaded = model::load(args, &audio, settings.threads);
                    Some(loaded.map_err(|error| not_loaded(&spec.name, error))?)
                }
                TensorArgs::Spectral(_) | TensorArgs::Sound(_) | TensorArgs::Image(_) => None,
            });

            let entry = entry(spec, recipe, &args)?;
            // Arrow stores the number of bytes of a value in an i32.
            let row_bytes = entry.shape.iter().flatten().product::<usize>() as u64
                * args.dtype().bytes() as u64;
            if row_bytes > i32::MAX as u64 {
                return Err(ExtractError::usage(format!(
                    "features.{}: one row has {row_bytes} bytes, more than the maximum of {}: shorten audio.duration_s or \
                     segments",
                    spec.name,
                    i32::MAX
                )));
            }
            entries.push(entry);
            source_ids.push(derive::source_id(recipe, &args)?);
            all_args.push(args);
        }

        Ok(Self {
            args: all_args,
            entries,
            source_ids,
            models,
            audio,
            image: recipe.image,
            split: recipe.split.clone(),
            level: settings.level,
            backend: Arc::clone(&settings.backend),
            encode_limit_bytes: settings.encode_bytes(),
            spare_tensors: Arc::new(SpareTensors::new(settings.spare_tensor_bytes())),
        })
    }

    /// Returns the backend that computes the features.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Returns the buffers of tensors that are on disk.
    pub(crate) fn spare_tensors(&self) -> &Arc<SpareTensors> {
        &self.spare_tensors
    }

    /// Reports whether clips are collected in batches for a device, instead of being computed by the worker that
    /// decoded them. A device computes features of spectra only.
    pub(crate) fn is_batched(&self) -> bool {
        self.backend.batch_clips() > 1 && self.args.iter().any(|args| args.spectral().is_some())
    }

    /// Returns the arguments and the models of the features that models compute.
    fn of_models(&self) -> impl Iterator<Item = (&OnnxArgs, &Arc<Model>)> {
        let each = self.args.iter().zip(&self.models);
        each.filter_map(|(args, model)| match (args, model) {
            (TensorArgs::Onnx(args), Some(model)) => Some((&**args, model)),
            _ => None,
        })
    }

    /// Returns a hash of the hashes of all models' files; `None` without models.
    pub(crate) fn models_id(&self) -> Result<Option<String>, serde_json::Error> {
        let hashes: Vec<&str> = self
            .of_models()
            .map(|(args, _)| args.model_blake3.as_str())
            .collect();
        let id = (!hashes.is_empty()).then(|| canonical::id(&hashes));
        id.transpose()
    }

    /// Returns the features from which models are computed.
    fn model_sources(&self) -> impl Iterator<Item = &FeatureArgs> {
        self.of_models()
            .filter_map(|(args, _)| args.source.as_deref())
    }

    /// Creates the buffers of one worker for the models.
    fn model_plans(&self) -> Vec<ModelPlan> {
        let models = self.of_models();
        models
            .map(|(args, model)| ModelPlan::new(model, args))
            .collect()
    }

    /// Returns the number of features that contain the clips' files.
    pub(crate) fn n_originals(&self) -> usize {
        let original = TensorArgs::Sound(SoundArgs::Original);
        self.args.iter().filter(|args| **args == original).count()
    }

    /// Reports whether a device converts the sample rate. This is not possible if a row extends past `duration_s`: the
    /// row is padded with zeros there, but the resampling filter needs the samples of the file.
    fn keeps_rate(&self) -> bool {
        self.is_batched() && !reaches_behind(&self.audio)
    }

    /// Returns a plan with only the features whose indices among the recipe's stored features are `numbers`.
    pub fn only(&self, numbers: &[usize]) -> Self {
        Self {
            args: numbers.iter().map(|&n| self.args[n].clone()).collect(),
            entries: numbers.iter().map(|&n| self.entries[n].clone()).collect(),
            source_ids: numbers
                .iter()
                .map(|&n| self.source_ids[n].clone())
                .collect(),
            models: numbers.iter().map(|&n| self.models[n].clone()).collect(),
            audio: self.audio.clone(),
            image: self.image,
            split: self.split.clone(),
            level: self.level,
            backend: Arc::clone(&self.backend),
            encode_limit_bytes: self.encode_limit_bytes,
            spare_tensors: Arc::clone(&self.spare_tensors),
        }
    }

    /// Returns the manifest entries of the features, in the recipe's order.
    pub fn entries(&self) -> &[FeatureEntry] {
        &self.entries
    }

    /// Creates the format of each feature's files.
    ///
    /// # Errors
    /// [`StoreError`] if a schema cannot be written as Parquet.
    pub fn formats(
        &self,
        targets: &[TargetEntry],
        spec: &ShardSpec,
    ) -> Result<Vec<Format>, StoreError> {
        let each = self.entries.iter().zip(&self.args);
        each.map(|(entry, args)| Format::new(entry.clone(), args.dtype(), targets, spec))
            .collect()
    }

    /// Creates a decoder of audio files for one worker.
    ///
    /// # Errors
    /// An error that names `audio.sample_rate_hz` if the resampler does not support it.
    pub fn decoder(&self) -> Result<Box<dyn Decode>, ExtractError> {
        self.decoder_up_to(self.audio.max_duration_s)
    }

    /// Creates a decoder for clips of at most `most_s` seconds, or less if the recipe has a lower limit. This limit is
    /// not part of a feature's identity, because it only affects which clips have rows, and no values.
    ///
    /// # Errors
    /// An error that names `audio.sample_rate_hz` if the resampler does not support it.
    pub(crate) fn decoder_up_to(&self, most_s: f64) -> Result<Box<dyn Decode>, ExtractError> {
        let AudioSpec {
            sample_rate_hz,
            duration_s,
            min_duration_s,
            ..
        } = self.audio;
        let args = DecodeArgs {
            sample_rate_hz,
            duration_s,
            min_duration_s,
            keep_rate: self.keeps_rate(),
        };

        let mut decoder = FileDecoder::new(args, self.level)?;
        if self.audio.decode.path == DecodePath::Band {
            decoder = decoder.by_band();
        }

        if let Some(bytes) = self.audio.max_file_bytes {
            decoder = decoder.at_most_bytes(bytes as usize);
        }

        let most_s = most_s.min(self.audio.max_duration_s);
        Ok(Box::new(decoder.at_most(most_s)))
    }

    /// Creates the kernels and buffers for one worker, or for one thread of a device.
    ///
    /// # Errors
    /// [`KernelError`], including errors of the device.
    pub fn extractor(&self, lane: usize) -> Result<Extractor, KernelError> {
        Extractor::new(self, self.backend(), lane)
    }

    /// Creates the kernels and buffers of the CPU, for a clip that is too large for the backend's devices.
    ///
    /// # Errors
    /// [`KernelError`], as for [`Self::extractor`].
    pub(crate) fn extractor_on_cpu(&self) -> Result<Extractor, KernelError> {
        Extractor::new(self, &Cpu { level: self.level }, 0)
    }

    /// Returns the size in bytes of one row with all features, for a segment of `n_samples` samples. It does not
    /// include clips' files (`originals_bytes`).
    pub fn row_bytes(&self, n_samples: usize) -> u64 {
        let tensors = self.tensor_bytes(n_samples);
        tensors.map(|bytes| bytes as u64).sum()
    }

    /// Returns the size in bytes of each tensor of a row, for a segment of `n_samples` samples; 0 for a clip's file.
    fn tensor_bytes(&self, n_samples: usize) -> impl Iterator<Item = usize> {
        let each = self.args.iter();
        each.map(move |args| args.row_bytes(n_samples))
    }

    /// Returns the size in bytes of the tensors that contain the clips' files, for files of `file_bytes` in total.
    fn originals_bytes(&self, file_bytes: u64) -> u64 {
        file_bytes * self.n_originals() as u64
    }

    /// Reports whether clips of the split `split` also have rows of stretched copies.
    pub fn is_stretched(&self, split: &str) -> bool {
        self.variants_on(split).len() > 1
    }

    /// Returns the variants for which clips of the split `split` have rows, in the order of the rows.
    pub fn variants_on(&self, split: &str) -> Vec<f64> {
        variants_on(&self.audio, self.split.rule, split)
    }

    /// Estimates the bytes of the rows of `clips` before compression. `bytes_per_s` is the assumed size of a second of
    /// audio, from which the mean length of clips is computed.
    pub fn estimate(&self, clips: ClipTotals, bytes_per_s: f64) -> u64 {
        // All pictures are scaled to the same size.
        if self.is_of_images() {
            return clips.all * self.row_bytes(0);
        }

        // All clips are assumed to have the mean length.
        let mean_s = clips.file_bytes as f64 / clips.all.max(1) as f64 / bytes_per_s;
        let clip_s = self.audio.longest_s().min(mean_s);
        let clip_samples = samples_in(clip_s, self.audio.sample_rate_hz);

        let rows = segments(&self.audio, clip_samples);
        let clip_bytes: u64 = rows.iter().map(|row| self.row_bytes(row.len)).sum();
        let copies = stretched_segments(&self.audio, clip_samples);
        let copies_bytes: u64 = copies.iter().map(|row| self.row_bytes(row.len)).sum();
        let originals_bytes = self.originals_bytes(clips.file_bytes);
        clips.all * clip_bytes + clips.stretched * copies_bytes + originals_bytes
    }
}

/// Totals of the clips for which rows are computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClipTotals {
    /// Number of clips for which rows are computed.
    pub all: u64,
    /// Number of clips that also have stretched copies.
    pub stretched: u64,
    /// Total size of the clips' files in bytes.
    pub file_bytes: u64,
}

/// Creates the manifest entry of a feature.
fn entry(
    spec: &FeatureSpec,
    recipe: &Recipe,
    args: &TensorArgs,
) -> Result<FeatureEntry, ExtractError> {
    let audio = &recipe.audio;
    let row_s = audio.segment_s.or(audio.duration_s);
    let row_samples = row_s.map(|seconds| samples_in(seconds, audio.sample_rate_hz));
    let scale = args.scale().map_err(KernelError::from)?;
    let mut entry = FeatureEntry {
        name: spec.name.clone(),
        feature_id: feature_id(recipe, args)?,
        dtype: args.dtype().name().to_owned(),
        scale: scale.map(|(factor, offset)| Scale { factor, offset }),
        // The length of the frame axis varies with the clip's length, unless the recipe crops or pads clips.
        shape: args.stored_shape(row_samples),
        dim_names: args.dim_names().into_iter().map(str::to_owned).collect(),
        sample_rate_hz: None,
        hop_length: None,
        preset: String::new(),
        columns: None,
    };

    match args {
        TensorArgs::Spectral(args) => {
            // A derived feature follows the conventions of its source feature, and its columns are named after that
            // feature.
            let source = if spec.op.is_spectral() {
                spec
            } else {
                spec.source_in(&recipe.features)
                    .map_err(KernelError::from)?
            };
            entry.sample_rate_hz = Some(audio.sample_rate_hz);
            entry.hop_length = Some(args.stft.hop_length);
            entry.preset = source.preset.name().to_owned();
            entry.columns = args.columns(&source.name);
        }
        TensorArgs::Sound(sound @ (SoundArgs::Pcm { .. } | SoundArgs::Loudness)) => {
            entry.sample_rate_hz = Some(audio.sample_rate_hz);
            entry.columns = sound.columns(&spec.name);
        }
        TensorArgs::Sound(SoundArgs::Original) => {}
        TensorArgs::Image(_) => entry.preset = spec.preset.name().to_owned(),
        TensorArgs::Onnx(_) => entry.sample_rate_hz = Some(audio.sample_rate_hz),
    }
    Ok(entry)
}

/// Returns the hash of everything that determines the values of a feature.
fn feature_id(recipe: &Recipe, args: &TensorArgs) -> Result<String, ExtractError> {
    // A file that is stored as it is depends on `audio` too: it determines which clips have rows and which are
    // rejected, and both are copied by this id.
    #[derive(Serialize)]
    struct Identity<'a> {
        audio: &'a AudioSpec,
        decoder: &'a str,
        numerics: u32,
        feature: &'a TensorArgs,
    }
    if let TensorArgs::Image(image) = args {
        return images::feature_id(image, recipe.image);
    }

    // The factors of time stretching determine which rows exist, but not the values of plain rows.
    let plain = AudioSpec {
        stretch: Vec::new(),
        ..recipe.audio.clone()
    };
    Ok(canonical::id(&Identity {
        audio: &plain,
        decoder: decode::NAME,
        numerics: NUMERICS_REVISION,
        feature: args,
    })?)
}
