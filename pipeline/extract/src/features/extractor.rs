//! Runs the kernels of one thread (a worker or a lane of a GPU), and converts their output to rows or a reject.

use std::ops::Range;
use std::sync::Arc;

use wavemill_decode::Pcm;
use wavemill_kernels::stretch::{StretchArgs, StretchPlan};
use wavemill_kernels::{Backend, KernelError, Row};
use wavemill_schemas::columns::RowFacts;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::recipe::{SoundArgs, TensorArgs};
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_store::plan::segment_split;
use wavemill_store::plan::segments::{
    PLAIN, Segment, end_of, plain, segments, stretched_segments, variant_len,
};
use wavemill_store::shards::FeatureRow;
use wavemill_store::tensors::Tensor;

use super::audio::{AudioPlan, Decoded, RowError};
use super::{FeaturePlan, does_not_fit};
use crate::error::ExtractError;
use crate::onnx::TensorError;

/// Kernels and buffers of one thread: a worker, or a lane of a GPU.
pub struct Extractor {
    audio: AudioPlan,
    /// Plan of time stretching; `None` if the recipe has no stretched copies.
    stretch: Option<StretchPlan>,
    /// Samples of a stretched copy of the clip. Reused for each factor, until [`Self::forget_scratch`].
    stretched: Vec<f32>,
}

/// Results of the kernels for a clip's segments, in order.
pub(crate) type SegmentResults = Vec<Result<Row, RowError>>;

/// The reason why a clip has no rows.
#[derive(Debug)]
pub enum NoRows {
    /// The clip is rejected.
    Reject(Box<Reject>),
    /// An error of the recipe or of the machine, which ends the run.
    Error(ExtractError),
}

impl From<KernelError> for NoRows {
    fn from(error: KernelError) -> Self {
        Self::Error(error.into())
    }
}

impl From<Reject> for NoRows {
    fn from(reject: Reject) -> Self {
        Self::Reject(Box::new(reject))
    }
}

impl From<ExtractError> for NoRows {
    fn from(error: ExtractError) -> Self {
        Self::Error(error)
    }
}

impl NoRows {
    /// Adds facts of the decoded audio to a reject. A clip that is too short because of damage becomes `damaged`.
    #[must_use]
    pub fn with_clip(mut self, pcm: &Pcm) -> Self {
        if let Self::Reject(reject) = &mut self {
            reject.decoded_s = Some(pcm.duration_s);
            if pcm.lost_s > 0.0 && reject.reason == Reason::TooShort {
                reject.reason = Reason::Damaged;
                reject.detail =
                    format!("{}; {:.3} s are lost to damage", reject.detail, pcm.lost_s);
            }
        }
        self
    }
}

impl Extractor {
    pub(super) fn new(
        plan: &FeaturePlan,
        backend: &dyn Backend,
        lane: usize,
    ) -> Result<Self, KernelError> {
        let is_stretching = !plan.audio.stretch.is_empty();
        Ok(Self {
            audio: AudioPlan::new(plan, backend, lane)?,
            stretch: is_stretching
                .then(|| StretchPlan::new(plan.level))
                .transpose()?,
            stretched: Vec::new(),
        })
    }

    /// Frees buffers that grew with the size of the last clip.
    pub(crate) fn forget_scratch(&mut self) {
        self.audio.forget_scratch();
        self.stretched = Vec::new();
    }

    /// Computes the features of every segment of every clip, padded with zeros if the clip ends earlier. Segments of
    /// stretched copies come after the plain ones, and are computed on the CPU only.
    ///
    /// # Errors
    /// Errors of the device. In this case no results are returned for any clip.
    pub(crate) fn run(
        &mut self,
        clips: &[(&Pcm, &[Segment])],
    ) -> Result<Vec<SegmentResults>, KernelError> {
        // The ranges are collected first, because the kernels' input borrows them.
        let places: Vec<Vec<Range<usize>>> = clips
            .iter()
            .map(|(_, segments)| plain(segments).iter().map(sample_range).collect())
            .collect();
        let mut wanted = Vec::with_capacity(clips.len());
        for (&(pcm, _), rows) in clips.iter().zip(&places) {
            wanted.push(Decoded {
                samples: &pcm.samples,
                sample_rate_hz: pcm.rate_hz,
                n_samples: pcm.n_samples,
                rows,
            });
        }

        // The kernels return a flat list of the rows of all clips.
        let mut made = self.audio.run(&wanted)?.into_iter();
        let mut by_clip = Vec::with_capacity(clips.len());
        for (&(pcm, segments), rows) in clips.iter().zip(&places) {
            let mut of_clip: SegmentResults = made.by_ref().take(rows.len()).collect();
            let stretched = &segments[rows.len()..];
            for of_copy in stretched.chunk_by(|a, b| a.variant == b.variant) {
                of_clip.extend(self.stretched_rows(pcm, of_copy)?);
            }
            by_clip.push(of_clip);
        }
        Ok(by_clip)
    }

    /// Computes the features of the segments of one stretched copy.
    fn stretched_rows(
        &mut self,
        pcm: &Pcm,
        segments: &[Segment],
    ) -> Result<SegmentResults, KernelError> {
        let (Some(plan), Some(first)) = (&mut self.stretch, segments.first()) else {
            return Ok(Vec::new());
        };
        // The buffer includes room for the appended zeros, so that the kernels need no copy and it is allocated once.
        let rate = first.variant;
        let end = end_of(segments);
        let len = variant_len(pcm.n_samples, rate).max(end);
        self.stretched.clear();
        self.stretched.reserve_exact(len);
        // The clip's buffer may already contain zeros after its samples.
        let decoded = &pcm.samples[..pcm.n_samples];
        plan.run(StretchArgs { rate }, decoded, &mut self.stretched)?;
        let n_samples = self.stretched.len();
        self.stretched.resize(len, 0.0);

        let rows: Vec<Range<usize>> = segments.iter().map(sample_range).collect();
        self.audio.run(&[Decoded {
            samples: &self.stretched,
            sample_rate_hz: pcm.rate_hz,
            n_samples,
            rows: &rows,
        }])
    }
}

fn sample_range(segment: &Segment) -> Range<usize> {
    segment.start..segment.start + segment.len
}

impl FeaturePlan {
    /// Returns a clip's segments, in samples at the recipe's rate: first the segments of the clip as recorded, then, if
    /// clips of `split` have stretched copies, the segments of these.
    ///
    /// # Errors
    /// [`NoRows::Reject`] for a clip too short for one segment.
    pub fn segments(
        &self,
        n_samples: usize,
        clip_key: &str,
        split: &str,
    ) -> Result<Vec<Segment>, NoRows> {
        let mut segments = segments(&self.audio, n_samples);
        if segments.is_empty() {
            let seconds = n_samples as f64 / f64::from(self.audio.sample_rate_hz);
            return Err(too_short(format!(
                "{seconds:.3} s are too few for one segment"
            )));
        }
        // Stretched copies do not affect whether a clip is rejected: a clip that is too short for a segment gets no
        // copies.
        if self.is_stretched(split) {
            segments.extend(stretched_segments(&self.audio, n_samples));
        }

        // Segments of other splits become rows of other shards. A clip without remaining segments is not rejected. But
        // a model may fail for any segment, and then the clip has rows in no split: all segments are computed.
        if self.of_models().next().is_none() {
            segments.retain(|s| self.is_row_of(clip_key, s.variant, s.number, split));
        }
        Ok(segments)
    }

    /// Reports whether a segment of a variant becomes a row of the split `split`. Only under the rules by segment can a
    /// clip have segments in several splits.
    pub(crate) fn is_row_of(
        &self,
        clip_key: &str,
        variant: f64,
        segment: usize,
        split: &str,
    ) -> bool {
        !self.split.rule.is_by_segment()
            || segment_split(&self.split, clip_key, variant, segment).name() == split
    }

    /// Returns the recipe's factor that is stored as `variant` in a row.
    pub(crate) fn factor_of(&self, variant: f32) -> Option<f64> {
        let mut factors = std::iter::once(&PLAIN).chain(&self.audio.stretch);
        factors.find(|&&factor| factor as f32 == variant).copied()
    }

    /// Creates the rows of a clip from its decoded audio and the results of the kernels. `originals` contains the
    /// clip's file for each feature that consists of it; such a clip has one row.
    ///
    /// # Errors
    /// [`NoRows::Reject`] for a clip without a single frame, [`NoRows::Error`] for a value that its type cannot hold.
    pub(crate) fn rows(
        &self,
        clip: usize,
        clip_key: &str,
        segments: &[Segment],
        computed: SegmentResults,
        originals: Vec<Vec<u8>>,
        pcm: &Pcm,
    ) -> Result<Vec<FeatureRow>, NoRows> {
        let mut originals = originals.into_iter();
        let mut rows = Vec::with_capacity(segments.len());

        let audio_blake3: Arc<str> = pcm.audio_blake3.as_str().into();
        for (segment, made) in segments.iter().zip(computed) {
            let Row { silent, tensors } = made.map_err(|error| self.failed(error, clip_key))?;
            rows.push(FeatureRow {
                clip,
                facts: RowFacts {
                    segment: segment.number as i32,
                    offset_s: (segment.start as f64 / f64::from(self.audio.sample_rate_hz)) as f32,
                    variant: segment.variant as f32,
                    duration_s: pcm.duration_s,
                    lost_s: pcm.lost_s,
                    silent,
                    audio_blake3: Arc::clone(&audio_blake3),
                },
                n_samples: segment.len,
                permit: None,
                tensors: self.tensors(tensors, segment.len, &mut originals)?,
            });
        }
        Ok(rows)
    }

    /// Combines the packed bytes of a row's features with their shapes.
    fn tensors(
        &self,
        packed: Vec<Vec<u8>>,
        n_samples: usize,
        originals: &mut impl Iterator<Item = Vec<u8>>,
    ) -> Result<Vec<Tensor>, NoRows> {
        let mut tensors = Vec::with_capacity(packed.len());
        for ((args, entry), packed) in self.args.iter().zip(&self.entries).zip(packed) {
            let bytes = match args {
                TensorArgs::Sound(SoundArgs::Original) => originals.next().unwrap_or_default(),
                TensorArgs::Spectral(_)
                | TensorArgs::Sound(SoundArgs::Pcm { .. } | SoundArgs::Loudness)
                | TensorArgs::Image(_)
                | TensorArgs::Onnx(_) => packed,
            };

            // The kernels return no bytes if not a single frame fits.
            if bytes.is_empty() {
                return Err(too_short(format!(
                    "{n_samples} samples are too few for one frame of {}",
                    entry.name
                )));
            }
            tensors.push(Tensor {
                shape: args.shape(n_samples, bytes.len()),
                bytes,
            });
        }
        Ok(tensors)
    }

    fn failed(&self, error: RowError, clip_key: &str) -> NoRows {
        match error {
            RowError::Row(error @ KernelError::TooFewFrames { .. }) => too_short(error.to_string()),
            RowError::Row(error) => error.into(),
            RowError::Feature { place, source } => {
                feature_failed(source, &self.entries[place].name, clip_key)
            }
        }
    }
}

/// Returns the reject or the error for a clip of which one feature could not be computed.
fn feature_failed(error: TensorError, feature: &str, clip_key: &str) -> NoRows {
    match error {
        TensorError::NotFinite { .. } => {
            let detail = format!("features.{feature}: {error}");
            Reject::new(Stage::Features, Reason::NotFinite, detail).into()
        }
        TensorError::Kernel(source) => does_not_fit(clip_key, feature, source).into(),
        TensorError::Options(_) | TensorError::Model(_) => {
            let plain = PlainError::failed(format!(
                "{clip_key}: features.{feature}: exclude the clip, or change the model; smaller windows \
                 (features.{feature}.window_s) take less memory"
            ));
            ExtractError::from(plain.caused_by(error)).into()
        }
    }
}

fn too_short(detail: String) -> NoRows {
    NoRows::Reject(Box::new(Reject::new(
        Stage::Features,
        Reason::TooShort,
        detail,
    )))
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::recipe::Recipe;

    use super::*;
    use crate::settings::Settings;

    /// Zeros that the caller appends, to save the kernels a copy, have the same effect as padding by the kernels.
    #[test]
    fn trailing_zeros_do_not_change_rows() {
        // The cases: a clip shorter than `duration_s`, and a clip whose last segment extends past the clip's end.
        for (name, n_samples) in [("demo", 30_000), ("gtzan-segments", 125_000)] {
            let recipe = Recipe::load(name, &[]).unwrap();
            let plan = FeaturePlan::new(&recipe, &Settings::default()).unwrap();
            let mut extractor = plan.extractor(0).unwrap();
            let segments = segments(&recipe.audio, n_samples);
            let end = end_of(&segments);
            assert!(end > n_samples, "{name}: its last row ends behind it");

            let mut pcm = Pcm {
                rate_hz: recipe.audio.sample_rate_hz,
                n_samples,
                ..Pcm::default()
            };
            pcm.samples
                .extend((0..n_samples).map(|i| (i as f32 * 0.05).sin()));
            let as_decoded = rows(&mut extractor, &pcm, &segments);
            pcm.samples.pad_to(end, 0.0);
            assert_eq!(rows(&mut extractor, &pcm, &segments), as_decoded, "{name}");
        }
    }

    fn rows(extractor: &mut Extractor, pcm: &Pcm, segments: &[Segment]) -> Vec<Row> {
        let computed = extractor.run(&[(pcm, segments)]).unwrap().remove(0);
        computed.into_iter().map(Result::unwrap).collect()
    }
}
