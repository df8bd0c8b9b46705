//! One worker's kernels: pads, cuts into segments, computes and packs.

use std::sync::Arc;

use wavemill_kernels::{Backend, Clip, Cpu, FeatureArgs, KernelError, Plan, Row, Samples};
use wavemill_schemas::recipe::SplitRule;
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::{FeatureError, FeaturePlan};
use crate::decode::Pcm;
use crate::plan::segment_side;
use crate::segments::{Segment, segments};
use crate::shards::{AudioFacts, FeatureRow, Tensor};

/// Kernels and buffers of one worker.
pub struct Extractor {
    plan: FeaturePlan,
    kernels: Box<dyn Plan>,
}

/// Why a clip has no rows.
#[derive(Debug)]
pub enum NoRows {
    /// Its own fault.
    Reject(Box<Reject>),
    /// The recipe's.
    Error(FeatureError),
}

impl NoRows {
    /// With what decoding told: a clip that is too short because of damage is `damaged`.
    #[must_use]
    pub fn of_clip(mut self, pcm: &Pcm) -> Self {
        if let Self::Reject(reject) = &mut self {
            reject.decoded_s = Some(pcm.duration_s);
            if pcm.lost_s > 0.0 && reject.reason == Reason::TooShort {
                reject.reason = Reason::Damaged;
                reject.detail = format!("{}; {:.3} s are lost to damage", reject.detail, pcm.lost_s);
            }
        }
        self
    }
}

impl Extractor {
    pub(super) fn new(plan: FeaturePlan) -> Result<Self, FeatureError> {
        let args: Vec<FeatureArgs> = plan.features.iter().map(|f| f.args.clone()).collect();
        let kernels = Cpu { level: plan.level }.plan(0, &args)?;
        Ok(Self { plan, kernels })
    }

    /// Where a clip's segments lie; `split` matters under the rule `segment` alone.
    ///
    /// # Errors
    /// [`NoRows::Reject`] for a clip too short for one segment.
    pub fn segments(&self, n_samples: usize, clip_key: &str, split: &str) -> Result<Vec<Segment>, NoRows> {
        let mut segments = segments(&self.plan.audio, n_samples);
        if segments.is_empty() {
            let seconds = n_samples as f64 / f64::from(self.plan.audio.sample_rate_hz);
            return Err(too_short(format!("{seconds:.3} s are too few for one segment")));
        }
        if self.plan.split.rule == SplitRule::Segment {
            segments.retain(|s| segment_side(&self.plan.split, clip_key, s.number) == split);
        }
        Ok(segments)
    }

    /// Computes and packs the rows of a clip. `pcm` is padded in place.
    ///
    /// # Errors
    /// [`NoRows::Reject`] for a clip without a single frame, [`NoRows::Error`] for a value that its type cannot hold.
    pub fn rows(
        &mut self,
        (clip, clip_key): (usize, &str),
        pcm: &mut Pcm,
        segments: &[Segment],
        audio: &Arc<AudioFacts>,
    ) -> Result<Vec<FeatureRow>, NoRows> {
        let end = segments.iter().map(|s| s.start + s.len).max().unwrap_or(0);
        if pcm.samples.len() < end {
            pcm.samples.resize(end, 0.0);
        }
        let places: Vec<_> = segments.iter().map(|s| s.start..s.start + s.len).collect();
        let sample_rate_hz = self.plan.audio.sample_rate_hz;
        let clip_pcm = Clip { samples: Samples::F32(&pcm.samples), channels: 1, sample_rate_hz, rows: &places };
        let made = self.kernels.run(&[clip_pcm]).map_err(|error| NoRows::Error(error.into()))?;
        let row = |(segment, made): (&Segment, Result<Row, KernelError>)| {
            let Row { silent, tensors } = made.map_err(|error| self.failed(error, clip_key))?;
            Ok(FeatureRow {
                clip,
                segment: segment.number as i32,
                offset_s: (segment.start as f64 / f64::from(sample_rate_hz)) as f32,
                silent,
                audio: Arc::clone(audio),
                tensors: self.tensors(tensors, segment.len)?,
            })
        };
        segments.iter().zip(made).map(row).collect()
    }

    /// A row's packed bytes with their shapes.
    fn tensors(&self, packed: Vec<Vec<u8>>, n_samples: usize) -> Result<Vec<Tensor>, NoRows> {
        let each = self.plan.features.iter().zip(&self.plan.entries).zip(packed);
        each.map(|((feature, entry), bytes)| {
            if bytes.is_empty() {
                return Err(too_short(format!("{n_samples} samples are too few for one frame of {}", entry.name)));
            }
            Ok(Tensor { bytes, shape: feature.args.shape(n_samples) })
        })
        .collect()
    }

    fn failed(&self, error: KernelError, clip_key: &str) -> NoRows {
        match error {
            KernelError::TooFewFrames { .. } => too_short(error.to_string()),
            KernelError::Feature { place, source } => {
                let (clip_key, feature) = (clip_key.to_owned(), self.plan.entries[place].name.clone());
                NoRows::Error(FeatureError::Pack { clip_key, feature, source: *source })
            }
            other => NoRows::Error(other.into()),
        }
    }
}

fn too_short(detail: String) -> NoRows {
    NoRows::Reject(Box::new(Reject::new(Stage::Features, Reason::TooShort, detail)))
}
