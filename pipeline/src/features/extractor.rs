//! One worker's kernels: pads, cuts into segments, computes and packs.

use std::sync::Arc;

use wavemill_kernels::{Backend, Cpu, FeatureArgs, KernelError, Plan, pack_into};
use wavemill_schemas::recipe::{AudioSpec, SplitRule};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use super::{FeatureError, FeaturePlan};
use crate::decode::Pcm;
use crate::plan::segment_side;
use crate::shards::{AudioFacts, FeatureRow, Tensor};

/// Part of a clip that becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From 0 within the clip, also where earlier ones lie on another side.
    pub number: usize,
    /// First sample.
    pub start: usize,
    /// Samples; the clip is padded where it ends earlier.
    pub len: usize,
}

/// Kernels and buffers of one worker.
pub struct Extractor {
    plan: FeaturePlan,
    kernels: Box<dyn Plan>,
    values: Vec<Vec<Vec<f32>>>,
}

/// Why a clip has no rows.
#[derive(Debug)]
pub enum NoRows {
    /// Its own fault.
    Reject(Box<Reject>),
    /// The recipe's.
    Error(FeatureError),
}

impl Extractor {
    pub(super) fn new(plan: FeaturePlan) -> Result<Self, FeatureError> {
        let args: Vec<FeatureArgs> = plan.features.iter().map(|f| f.args.clone()).collect();
        let kernels = Cpu { level: plan.level }.plan(&args)?;
        Ok(Self { plan, kernels, values: vec![vec![Vec::new(); args.len()]] })
    }

    /// Where a clip's segments lie; `split` matters under the rule `segment` alone.
    ///
    /// # Errors
    /// [`NoRows::Reject`] for a clip too short for one segment.
    pub fn segments(&self, n_samples: usize, clip_key: &str, split: &str) -> Result<Vec<Segment>, NoRows> {
        let mut segments = segments(&self.plan.audio, n_samples);
        if segments.is_empty() {
            return Err(too_short(format!("{n_samples} samples are too few for one segment")));
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
        let rate = f64::from(self.plan.audio.sample_rate_hz);
        let mut rows = Vec::with_capacity(segments.len());
        for segment in segments {
            let samples = &pcm.samples[segment.start..segment.start + segment.len];
            rows.push(FeatureRow {
                clip,
                segment: segment.number as i32,
                offset_s: (segment.start as f64 / rate) as f32,
                silent: samples.iter().all(|&x| x == 0.0),
                audio: Arc::clone(audio),
                tensors: self.tensors(samples, clip_key)?,
            });
        }
        Ok(rows)
    }

    fn tensors(&mut self, samples: &[f32], clip_key: &str) -> Result<Vec<Tensor>, NoRows> {
        match self.kernels.run(&[samples], &mut self.values) {
            Err(error @ KernelError::TooFewFrames { .. }) => return Err(too_short(error.to_string())),
            other => other.map_err(|error| NoRows::Error(error.into()))?,
        }
        let mut tensors = Vec::with_capacity(self.plan.features.len());
        for ((feature, entry), values) in self.plan.features.iter().zip(&self.plan.entries).zip(&self.values[0]) {
            if values.is_empty() {
                return Err(too_short(format!(
                    "{} samples are too few for one frame of {}",
                    samples.len(),
                    entry.name
                )));
            }
            let mut bytes = Vec::new();
            pack_into(values, feature.packing, &mut bytes).map_err(|source| {
                let (clip_key, feature) = (clip_key.to_owned(), entry.name.clone());
                NoRows::Error(FeatureError::Pack { clip_key, feature, source })
            })?;
            tensors.push(Tensor { bytes, shape: feature.args.shape(samples.len()) });
        }
        Ok(tensors)
    }
}

fn too_short(detail: String) -> NoRows {
    NoRows::Reject(Box::new(Reject::new(Stage::Features, Reason::TooShort, detail)))
}

/// Segments of `n_samples` decoded samples: as many as fit whole, at most `segments_max`; a last part counts only if it
/// is at least `segment_min_s`. Without `segment_s` the clip is one, of `duration_s` where that is given.
fn segments(audio: &AudioSpec, n_samples: usize) -> Vec<Segment> {
    let samples = |seconds: f64| (seconds * f64::from(audio.sample_rate_hz)).round() as usize;
    let Some(segment_s) = audio.segment_s else {
        return vec![Segment { number: 0, start: 0, len: audio.duration_s.map_or(n_samples, samples) }];
    };
    let len = samples(segment_s).max(1);
    let hop = audio.segment_hop_s.map_or(len, samples).max(1);
    let whole = if n_samples < len { 0 } else { (n_samples - len) / hop + 1 };
    let rest = n_samples.saturating_sub(whole * hop);
    let padded = audio.segment_min_s.is_some_and(|least| rest >= samples(least).max(1) && rest < len);
    let count = (whole + usize::from(padded)).min(audio.segments_max.map_or(usize::MAX, |n| n as usize));
    (0..count).map(|number| Segment { number, start: number * hop, len }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(segment_s: Option<f64>, segments_max: Option<u32>, segment_min_s: Option<f64>) -> AudioSpec {
        AudioSpec { sample_rate_hz: 1000, segment_s, segments_max, segment_min_s, ..AudioSpec::default() }
    }

    #[test]
    fn segments_are_whole_ones_and_a_long_enough_rest() {
        for (segment, most, least, n_samples, want) in [
            (3.0, None, None, 29_900, 9),
            (3.0, None, Some(1.0), 29_900, 10),
            (3.0, None, Some(2.95), 29_900, 9),
            (3.0, Some(4), Some(1.0), 29_900, 4),
            (3.0, None, None, 2_999, 0),
            (3.0, None, None, 3_000, 1),
            (3.0, None, Some(1.0), 3_000, 1),
            (15.0, None, Some(14.0), 29_980, 2),
        ] {
            let got = segments(&spec(Some(segment), most, least), n_samples);
            assert_eq!(got.len(), want, "{segment} s of {n_samples} ms, at most {most:?}, rest {least:?}");
            assert!(got.iter().enumerate().all(|(i, s)| s.start == i * s.len));
        }
    }

    #[test]
    fn a_clip_without_segments_is_one_of_the_wanted_length() {
        let mut audio = spec(None, None, None);
        assert_eq!(segments(&audio, 1234), [Segment { number: 0, start: 0, len: 1234 }]);
        audio.duration_s = Some(30.0);
        assert_eq!(segments(&audio, 1234), [Segment { number: 0, start: 0, len: 30_000 }]);
    }

    #[test]
    fn overlapping_segments_advance_by_the_hop() {
        let audio = AudioSpec { segment_hop_s: Some(1.5), ..spec(Some(3.0), None, None) };
        let starts: Vec<usize> = segments(&audio, 7_000).iter().map(|s| s.start).collect();
        assert_eq!(starts, [0, 1500, 3000]);
    }
}
