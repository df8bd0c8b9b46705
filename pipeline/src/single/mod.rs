//! The rows that extract would write of single clips: without a store, a catalog, or classes.
//!
//! Where clips come from and where rows go is the callers' business: `wavemill features` and `wavemill serve`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wavemill_schemas::canonical;
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::recipe::{Recipe, SplitRule};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use crate::catalog::ClipRow;
use crate::decode::{Decode, Pcm};
use crate::features::{Extractor, FeatureError, FeaturePlan, NoRows};
use crate::plan::segments::end_of;
use crate::settings::Settings;
use crate::shards::{AudioFacts, FeatureRow, Format, ShardError};

/// How the feature of that number in a recipe is computed of single clips.
///
/// # Errors
/// [`FeatureError`] naming the feature and the key.
pub(crate) fn plan(recipe: &Recipe, number: usize) -> Result<FeaturePlan, FeatureError> {
    let mut recipe = recipe.clone();
    // Segments of all sides, at the tempo as recorded: stretched copies are for training.
    recipe.split.rule = SplitRule::Artist;
    recipe.audio.stretch.clear();
    // Of the whole recipe, because the feature may start from another one.
    Ok(FeaturePlan::new(&recipe, &Settings::default())?.only(&[number]))
}

/// Columns of an Arrow stream: those of a shard. Classes are a store's; the targets' columns are all null.
///
/// # Errors
/// [`ShardError`].
pub(crate) fn stream_format(plan: &FeaturePlan, recipe: &Recipe) -> Result<Format, ShardError> {
    let mut targets = Vec::new();
    for target in &recipe.targets {
        targets.push(TargetEntry {
            name: target.name.clone(),
            classes: target.classes.clone().unwrap_or_default(),
            counts: BTreeMap::new(),
        });
    }
    let mut formats = plan.formats(&targets, &recipe.shards)?;
    // A plan of one feature.
    Ok(formats.swap_remove(0))
}

/// What the catalog would say of a clip if it knew nothing but its key.
pub(crate) fn clip_row(clip_key: String, n_targets: usize) -> ClipRow {
    ClipRow {
        track_id: canonical::track_id(&clip_key),
        clip_key,
        targets: vec![None; n_targets],
        genres_all: Vec::new(),
        artist_id: None,
        album_id: None,
        split: String::new(),
    }
}

/// Decodes clips and computes their rows, one after the other. One a thread.
pub(crate) struct RowExtractor {
    plan: Arc<FeaturePlan>,
    /// Seconds of a clip, beside what the recipe allows.
    most_s: f64,
    decoder: Box<dyn Decode>,
    extractor: Extractor,
    pcm: Pcm,
}

impl RowExtractor {
    /// With buffers and kernels of its own. Clips longer than `most_s` are rejects, unless the recipe cuts them before.
    ///
    /// # Errors
    /// As planning.
    pub(crate) fn new(plan: &Arc<FeaturePlan>, most_s: f64) -> Result<Self, FeatureError> {
        Ok(Self {
            plan: Arc::clone(plan),
            most_s,
            decoder: plan.decoder_up_to(most_s)?,
            extractor: plan.extractor(0)?,
            pcm: Pcm::default(),
        })
    }

    /// Decodes a file, for [`RowExtractor::rows`]. As in a run, what a decoder cannot bear is the clip's fault.
    ///
    /// # Errors
    /// The outer one: no new decoder could be made.
    pub(crate) fn decode(
        &mut self,
        extension: &str,
        bytes: &[u8],
    ) -> Result<Result<(), Reject>, FeatureError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            self.decoder.expect(self.plan.longest_s(bytes));
            self.decoder.decode(extension, bytes, &mut self.pcm)
        }));
        if let Ok(decoded) = decoded {
            return Ok(decoded);
        }

        // A panic leaves the decoder in doubt, so the next clip gets a new one.
        self.decoder = self.plan.decoder_up_to(self.most_s)?;
        Ok(Err(Reject::new(
            Stage::Decode,
            Reason::WorkerPanic,
            "the decoder panicked on this clip",
        )))
    }

    /// What was decoded last.
    pub(crate) const fn pcm(&self) -> &Pcm {
        &self.pcm
    }

    /// The rows of what was decoded last; `clip` is its place in the list that rows name their clips by.
    ///
    /// # Errors
    /// The outer one: the recipe's fault, or the device's.
    pub(crate) fn rows(
        &mut self,
        clip: usize,
        clip_key: &str,
    ) -> Result<Result<Vec<FeatureRow>, Reject>, FeatureError> {
        let audio = Arc::new(AudioFacts {
            duration_s: self.pcm.duration_s,
            lost_s: self.pcm.lost_s,
            audio_blake3: self.pcm.audio_blake3.clone(),
            // One clip is held at a time, so there is no budget to give it back to.
            permit: None,
        });

        match self.computed(clip, clip_key, &audio) {
            Ok(rows) => Ok(Ok(rows)),
            Err(NoRows::Reject(reject)) => Ok(Err(*reject)),
            Err(NoRows::Error(error)) => Err(error),
        }
    }

    fn computed(
        &mut self,
        clip: usize,
        clip_key: &str,
        audio: &Arc<AudioFacts>,
    ) -> Result<Vec<FeatureRow>, NoRows> {
        let segments = self.plan.segments(self.pcm.n_samples, clip_key, "")?;
        // As in a run: with zeros up to the end of the last row, the kernels need no copy.
        self.pcm.samples.pad_to(end_of(&segments), 0.0);
        let computed = self
            .extractor
            .run(&[(&self.pcm, &segments)])
            .map_err(|error| NoRows::Error(error.into()))?;
        let computed = computed.into_iter().flatten().collect();
        self.plan.rows(clip, clip_key, &segments, computed, audio)
    }
}

/// A reject in the words that `wavemill features` has for it.
pub(crate) fn words(reject: &Reject) -> String {
    format!("{}: {}", reject.reason.name(), reject.detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::OUTPUT_S_MAX;

    /// Panics at the first clip, and from then on.
    struct PanickingDecoder;

    impl Decode for PanickingDecoder {
        fn decode(&mut self, _: &str, _: &[u8], _: &mut Pcm) -> Result<(), Reject> {
            panic!("as a decoder with a fault")
        }

        fn measure(&mut self, _: &str, _: &[u8], _: &mut Pcm) -> Result<f64, Reject> {
            panic!("as a decoder with a fault")
        }

        fn expect(&mut self, _: f64) {}
    }

    #[test]
    fn a_decoder_that_panicked_decodes_no_further_clip() {
        let recipe = Recipe::load("demo", &[]).expect("a shipped recipe");
        let plan = Arc::new(plan(&recipe, 0).expect("a plan"));
        let mut clips = RowExtractor::new(&plan, OUTPUT_S_MAX).expect("an extractor");
        clips.decoder = Box::new(PanickingDecoder);

        let mut reason_of_clip = || {
            let decoded = clips.decode("mp3", b"no audio").expect("a decoder");
            decoded.expect_err("a reject").reason
        };
        assert_eq!(reason_of_clip(), Reason::WorkerPanic);
        assert_ne!(reason_of_clip(), Reason::WorkerPanic);
    }
}
