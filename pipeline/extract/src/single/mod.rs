//! Computes the rows that extract would write for single clips, without a store, a catalog, or classes.
//!
//! The callers, `wavemill features` and `wavemill serve`, supply the clips and receive the rows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wavemill_decode::{Decode, Pcm};
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::recipe::{Recipe, SplitRule};
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_store::StoreError;
use wavemill_store::plan::segments::end_of;
use wavemill_store::shards::{FeatureRow, Format};

use crate::error::ExtractError;
use crate::features::{Extractor, FeaturePlan, NoRows};
use crate::settings::Settings;

/// Plans feature `number` of a recipe for single clips.
///
/// # Errors
/// An error that names the feature and the key.
pub fn plan(recipe: &Recipe, number: usize) -> Result<FeaturePlan, ExtractError> {
    let mut recipe = recipe.clone();
    // Use the segments of all splits at the recorded tempo: stretched copies are for training.
    recipe.split.rule = SplitRule::Artist;
    recipe.audio.stretch.clear();
    // Plan all features of the recipe, because the feature may be computed from another feature.
    Ok(FeaturePlan::new(&recipe, &Settings::default())?.only(&[number]))
}

/// Returns the columns of an Arrow stream, which are those of a shard. Classes belong to a store, so the targets'
/// columns are all null.
///
/// # Errors
/// [`StoreError`] if the schema cannot be written as Parquet.
pub fn stream_format(plan: &FeaturePlan, recipe: &Recipe) -> Result<Format, StoreError> {
    let mut targets = Vec::new();
    for target in &recipe.targets {
        targets.push(TargetEntry {
            name: target.name.clone(),
            classes: target.classes.clone().unwrap_or_default(),
            counts: BTreeMap::new(),
        });
    }
    let mut formats = plan.formats(&targets, &recipe.shards)?;
    // The plan has only one feature, so there is only one format.
    Ok(formats.swap_remove(0))
}

/// Returns the catalog row of a clip of which only the key is known.
pub fn clip_row(clip_key: String, n_targets: usize) -> ClipRow {
    ClipRow {
        track_id: canonical::track_id(&clip_key),
        clip_key,
        targets: vec![None; n_targets],
        ..ClipRow::default()
    }
}

/// Decodes clips and computes their rows, one clip after the other. Each thread has its own extractor.
pub struct RowExtractor {
    plan: Arc<FeaturePlan>,
    /// Maximum duration of a clip in seconds, in addition to the recipe's limits.
    most_s: f64,
    decoder: Box<dyn Decode>,
    extractor: Extractor,
    pcm: Pcm,
    /// The file that was decoded last, once for each feature that consists of it.
    originals: Vec<Vec<u8>>,
}

impl RowExtractor {
    /// Creates an extractor with its own buffers and kernels. Clips longer than `most_s` are rejected, unless the
    /// recipe cuts them earlier.
    ///
    /// # Errors
    /// The same errors as for planning.
    pub fn new(plan: &Arc<FeaturePlan>, most_s: f64) -> Result<Self, ExtractError> {
        Ok(Self {
            plan: Arc::clone(plan),
            most_s,
            decoder: plan.decoder_up_to(most_s)?,
            extractor: plan.extractor(0)?,
            pcm: Pcm::default(),
            originals: Vec::new(),
        })
    }

    /// Decodes a file for [`RowExtractor::rows`]. As in a run, a panic of the decoder counts as a fault of the clip.
    ///
    /// # Errors
    /// [`NoRows::Reject`] if the file cannot be decoded, [`NoRows::Error`] if no new decoder could be created.
    pub fn decode(&mut self, extension: &str, bytes: &[u8]) -> Result<(), NoRows> {
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            self.decoder.expect(self.plan.longest_s(bytes));
            self.decoder.decode(extension, bytes, &mut self.pcm)
        }));
        if let Ok(decoded) = decoded {
            decoded?;
            let copies = (0..self.plan.n_originals()).map(|_| bytes.to_vec());
            self.originals = copies.collect();
            return Ok(());
        }

        // A panic leaves the decoder in an unknown state, so the next clip gets a new one.
        self.decoder = self.plan.decoder_up_to(self.most_s)?;
        Err(NoRows::from(Reject::new(
            Stage::Decode,
            Reason::WorkerPanic,
            "the decoder panicked on this clip",
        )))
    }

    /// Returns the audio that was decoded last.
    pub const fn pcm(&self) -> &Pcm {
        &self.pcm
    }

    /// Computes the rows of the audio that was decoded last. `clip` is the index that the rows use for their clip. Only
    /// one clip is in memory at a time, so there is no memory budget.
    ///
    /// # Errors
    /// [`NoRows::Reject`] if the clip has no rows, [`NoRows::Error`] for a fault of the recipe or of the device.
    pub fn rows(&mut self, clip: usize, clip_key: &str) -> Result<Vec<FeatureRow>, NoRows> {
        let segments = self.plan.segments(self.pcm.n_samples, clip_key, "")?;
        // As in a run, zeros up to the end of the last row are appended, which saves the kernels a copy.
        self.pcm.samples.pad_to(end_of(&segments), 0.0);
        let computed = self.extractor.run(&[(&self.pcm, &segments)])?;
        let computed = computed.into_iter().flatten().collect();
        let originals = std::mem::take(&mut self.originals);
        self.plan
            .rows(clip, clip_key, &segments, computed, originals, &self.pcm)
    }
}

/// Formats a reject as `wavemill features` prints it.
pub fn describe_reject(reject: &Reject) -> String {
    format!("{}: {}", reject.reason.name(), reject.detail)
}

#[cfg(test)]
mod tests {
    use wavemill_decode::OUTPUT_S_MAX;

    use super::*;

    /// A decoder that panics on every clip.
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

    fn reject_reason(clips: &mut RowExtractor) -> Reason {
        match clips.decode("mp3", b"no audio") {
            Err(NoRows::Reject(reject)) => reject.reason,
            other => panic!("expected a reject: {other:?}"),
        }
    }

    #[test]
    fn decoder_is_replaced_after_a_panic() {
        let recipe = Recipe::load("demo", &[]).expect("a shipped recipe");
        let plan = Arc::new(plan(&recipe, 0).expect("a plan"));
        let mut clips = RowExtractor::new(&plan, OUTPUT_S_MAX).expect("an extractor");
        clips.decoder = Box::new(PanickingDecoder);

        assert_eq!(reject_reason(&mut clips), Reason::WorkerPanic);
        assert_ne!(reject_reason(&mut clips), Reason::WorkerPanic);
    }
}
