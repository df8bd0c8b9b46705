//! Computes packed feature rows from PCM, with kernels planned from the recipe. There is one [`FeaturePlan`] per run,
//! and one [`Extractor`] per worker or per lane of a device.

mod charge;
mod extractor;
mod images;

use std::sync::Arc;

use serde::Serialize;
use wavemill_decode as decode;
use wavemill_decode::{Decode, DecodeArgs, FileDecoder};
use wavemill_kernels::resample::ResampleError;
use wavemill_kernels::{Backend, FeatureArgs, KernelError, Level};
use wavemill_runtime::settings::Settings;
use wavemill_schemas::exit;
use wavemill_schemas::manifest::{FeatureEntry, Scale, TargetEntry};
use wavemill_schemas::recipe::{
    AudioSpec, DecodePath, Dtype, Fault, FeatureSpec, ImageArgs, ImageSpec, Op, Recipe, ShardSpec,
    SplitSpec,
};
use wavemill_schemas::samples::samples_in;
use wavemill_schemas::{NUMERICS_REVISION, canonical};
use wavemill_store::StoreError;
use wavemill_store::plan::segments::{
    PLAIN, reaches_behind, segments, segments_at_most, stretched_segments, variants_on,
};
use wavemill_store::shards::Format;

pub(crate) use extractor::SegmentResults;
pub use extractor::{Extractor, NoRows};

/// The error type for features that cannot be planned or computed.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// An option of a feature is invalid.
    #[error("features.{feature}")]
    Args {
        /// Name of the feature in the recipe.
        feature: String,
        /// The key of the invalid option, and its allowed values.
        source: Fault,
    },
    /// A value computed from a clip does not fit the type in which the feature is stored.
    #[error(
        "{clip_key}: features.{feature} does not fit its type: set features.{feature}.dtype = \"f32\""
    )]
    Pack {
        /// Key of the clip.
        clip_key: String,
        /// Name of the feature in the recipe.
        feature: String,
        /// Error of the kernel, which contains the value.
        source: KernelError,
    },
    /// The kernels cannot be planned.
    #[error("features: cannot plan")]
    Plan(#[from] KernelError),
    /// The sample rate is not supported by the resampler.
    #[error("audio.sample_rate_hz")]
    Rate(#[from] ResampleError),
    /// A row is too large for a single value in Arrow.
    #[error("features.{feature}: one row has {row_bytes} bytes, more than the maximum of {max}: shorten audio.duration_s or segments", max = i32::MAX)]
    RowBytes {
        /// Name of the feature in the recipe.
        feature: String,
        /// Size of the row in bytes.
        row_bytes: u64,
    },
    /// The split rule is a rule by segment, and the recipe does not limit the number of segments per clip.
    #[error(
        "split.rule = \"{rule}\" needs audio.segment_s, and audio.segments_max or audio.duration_s"
    )]
    UnboundedSegments {
        /// Name of the split rule.
        rule: &'static str,
    },
    /// The recipe has stretched copies, but devices have no kernel for time stretching.
    #[error(
        "audio.stretch is computed only on the CPU: use --backend cpu, or --set audio.stretch=none"
    )]
    StretchOnDevice,
    /// JSON for internal use cannot be serialized; this cannot happen.
    #[error("feature metadata")]
    Json(#[from] serde_json::Error),
}

impl FeatureError {
    /// Returns the exit code of the command.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Args { .. }
            | Self::RowBytes { .. }
            | Self::UnboundedSegments { .. }
            | Self::StretchOnDevice => exit::USAGE,
            _ => exit::FAILED,
        }
    }
}

/// The plan that converts PCM or pictures to stored bytes. It does not change during a run.
pub struct FeaturePlan {
    /// Features that are computed from audio.
    features: Vec<FeatureArgs>,
    /// Features of picture files. All features of a recipe are of one kind, so `features` or `images` is empty.
    images: Vec<ImageArgs>,
    entries: Vec<FeatureEntry>,
    audio: AudioSpec,
    /// Settings for picture files.
    image: ImageSpec,
    split: SplitSpec,
    level: Level,
    backend: Arc<dyn Backend>,
    /// Memory in bytes that is reserved for encoding rows.
    encode_limit_bytes: u64,
}

impl FeaturePlan {
    /// Resolves every feature of a recipe.
    ///
    /// # Errors
    /// [`FeatureError`] with the names of the feature and the key.
    pub fn new(recipe: &Recipe, settings: &Settings) -> Result<Self, FeatureError> {
        let audio = recipe.audio.clone();
        let rule = recipe.split.rule;
        // Under the rules by segment, shards are planned from the maximum number of segments of a clip, before any clip
        // is decoded.
        if rule.is_by_segment()
            && (audio.segment_s.is_none() || segments_at_most(&audio, PLAIN) == usize::MAX)
        {
            return Err(FeatureError::UnboundedSegments { rule: rule.name() });
        }
        // A device computes clips as decoded, without stretched copies. The command line has already considered this
        // when it chose the backend.
        if !audio.stretch.is_empty() && settings.backend.batch_clips() > 1 {
            return Err(FeatureError::StretchOnDevice);
        }

        let mut features = Vec::new();
        let mut images = Vec::new();
        let mut entries = Vec::new();
        for spec in &recipe.features {
            let impossible = |source| FeatureError::Args {
                feature: spec.name.clone(),
                source,
            };
            if spec.op == Op::Image {
                let args = spec.image().map_err(impossible)?;
                entries.push(images::entry(spec, &args, recipe.image)?);
                images.push(args);
                continue;
            }
            let args = spec
                .resolve(&recipe.features, audio.sample_rate_hz)
                .map_err(impossible)?;

            let entry = entry(spec, recipe, &args)?;
            // Arrow stores the number of bytes of a value in an i32.
            let row_bytes =
                entry.shape.iter().flatten().product::<usize>() as u64 * args.dtype.bytes() as u64;
            if row_bytes > i32::MAX as u64 {
                return Err(FeatureError::RowBytes {
                    feature: spec.name.clone(),
                    row_bytes,
                });
            }
            entries.push(entry);
            features.push(args);
        }

        Ok(Self {
            features,
            images,
            entries,
            audio,
            image: recipe.image,
            split: recipe.split.clone(),
            level: settings.level,
            backend: Arc::clone(&settings.backend),
            encode_limit_bytes: settings.encode_bytes(),
        })
    }

    /// Returns the backend that computes the features.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Reports whether clips are collected in batches for a device, instead of being computed by the worker that
    /// decoded them.
    pub(crate) fn is_batched(&self) -> bool {
        self.backend.batch_clips() > 1
    }

    /// Reports whether a device converts the sample rate. This is not possible if a row extends past `duration_s`: the
    /// row is padded with zeros there, but the resampling filter needs the samples of the file.
    fn keeps_rate(&self) -> bool {
        self.is_batched() && !reaches_behind(&self.audio)
    }

    /// Returns a plan with only the features whose indices in the recipe are `numbers`.
    pub fn only(&self, numbers: &[usize]) -> Self {
        Self {
            // One of the lists `features` and `images` is empty.
            features: chosen(&self.features, numbers),
            images: chosen(&self.images, numbers),
            entries: numbers.iter().map(|&n| self.entries[n].clone()).collect(),
            audio: self.audio.clone(),
            image: self.image,
            split: self.split.clone(),
            level: self.level,
            backend: Arc::clone(&self.backend),
            encode_limit_bytes: self.encode_limit_bytes,
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
        let of_audio = self.features.iter().map(|feature| feature.dtype);
        let dtypes = of_audio.chain(self.images.iter().map(|image| image.dtype));
        let each = self.entries.iter().zip(dtypes);
        each.map(|(entry, dtype)| Format::new(entry.clone(), dtype, targets, spec))
            .collect()
    }

    /// Creates a decoder of audio files for one worker.
    ///
    /// # Errors
    /// [`FeatureError::Rate`] if the resampler does not support the sample rate.
    pub fn decoder(&self) -> Result<Box<dyn Decode>, FeatureError> {
        self.decoder_up_to(self.audio.max_duration_s)
    }

    /// Creates a decoder for clips of at most `most_s` seconds, or less if the recipe has a lower limit. This limit is
    /// not part of a feature's identity, because it only affects which clips have rows, and no values.
    ///
    /// # Errors
    /// [`FeatureError::Rate`] if the resampler does not support the sample rate.
    pub(crate) fn decoder_up_to(&self, most_s: f64) -> Result<Box<dyn Decode>, FeatureError> {
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
        Extractor::new(self, lane)
    }

    /// Returns the size in bytes of one row with all features, for a segment of `n_samples` samples.
    pub fn row_bytes(&self, n_samples: usize) -> u64 {
        let tensors = self.tensor_bytes(n_samples);
        tensors.map(|bytes| bytes as u64).sum()
    }

    /// Returns the size in bytes of each tensor of a row, for a segment of `n_samples` samples.
    fn tensor_bytes(&self, n_samples: usize) -> impl Iterator<Item = usize> {
        let of_audio = self
            .features
            .iter()
            .map(move |feature| feature.row_bytes(n_samples));
        of_audio.chain(self.images.iter().map(ImageArgs::row_bytes))
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
        clips.all * clip_bytes + clips.stretched * copies_bytes
    }
}

/// Returns the elements of `all` whose indices are `numbers`, ignoring indices past the end.
fn chosen<T: Clone>(all: &[T], numbers: &[usize]) -> Vec<T> {
    let chosen = numbers.iter().filter_map(|&number| all.get(number));
    chosen.cloned().collect()
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

fn entry(
    spec: &FeatureSpec,
    recipe: &Recipe,
    args: &FeatureArgs,
) -> Result<FeatureEntry, FeatureError> {
    // Everything that affects a value of the feature, and therefore the feature's id.
    #[derive(Serialize)]
    struct Identity<'a> {
        audio: &'a AudioSpec,
        decoder: &'a str,
        numerics: u32,
        feature: &'a FeatureArgs,
    }
    let audio = &recipe.audio;
    // The factors of time stretching determine which rows exist, but not the values of plain rows.
    let plain = AudioSpec {
        stretch: Vec::new(),
        ..audio.clone()
    };
    let identity = Identity {
        audio: &plain,
        decoder: decode::NAME,
        numerics: NUMERICS_REVISION,
        feature: args,
    };

    // A derived feature follows the conventions of its source feature, and its columns are named after that feature.
    let source = if spec.op.is_of_audio() {
        spec
    } else {
        spec.source_in(&recipe.features)
            .map_err(KernelError::from)?
    };

    let row_s = audio.segment_s.or(audio.duration_s);
    let row_samples = row_s.map(|seconds| samples_in(seconds, audio.sample_rate_hz));
    let (factor, offset) = args.packing().map_err(KernelError::from)?.scale();
    Ok(FeatureEntry {
        name: spec.name.clone(),
        feature_id: canonical::id(&identity)?,
        dtype: args.dtype.name().to_owned(),
        scale: (args.dtype == Dtype::U8).then_some(Scale { factor, offset }),
        // The length of the frame axis varies with the clip's length, unless the recipe crops or pads clips.
        shape: args.stored_shape(row_samples),
        dim_names: args.dim_names().into_iter().map(str::to_owned).collect(),
        sample_rate_hz: Some(audio.sample_rate_hz),
        hop_length: Some(args.stft.hop_length),
        preset: source.preset.name().to_owned(),
        columns: args.columns(&source.name),
    })
}
