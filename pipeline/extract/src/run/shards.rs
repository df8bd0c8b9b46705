//! Writes the shards of a plan, or of a part of it, that do not exist yet.

use std::sync::atomic::Ordering;

use wavemill_runtime::budget::ByteBudget;
use wavemill_runtime::progress::Phase;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_source::Source;
use wavemill_store::shards::{FinishedShards, TakenRows};
use wavemill_store::{Parent, Store};

use super::{RunMonitor, space};
use crate::error::ExtractError;
use crate::incremental::known::KnownInputs;
use crate::incremental::plan::Plan;
use crate::incremental::renames::Renames;
use crate::incremental::reuse::{self, Pass};
use crate::incremental::take::{self, ParentRows};
use crate::settings::Settings;
use crate::threads as extract;
use crate::threads::{Limits, Work};

/// All that determines the files of shards, and how they are written.
pub(super) struct ShardRun<'a> {
    pub settings: &'a Settings,
    pub monitor: &'a RunMonitor,
    pub store: &'a Store,
    pub plan_id: &'a str,
    pub plan: &'a Plan<'a>,
    /// The rows to which the plan's shards refer.
    pub clips: &'a [ClipRow],
    /// The latest version; `None` in a new store.
    pub parent: Option<&'a Parent>,
    pub renames: &'a Renames,
    pub source: &'a dyn Source,
    pub limits: &'a Limits,
}

impl ShardRun<'_> {
    /// # Errors
    /// An error of the kind `NoSpace` if the files that remain to be written cannot fit on the disk.
    pub(super) fn check_space(&self, finished: &FinishedShards) -> Result<(), ExtractError> {
        // Copies of files that are sent to an object store are removed.
        if self.store.remote().is_some() {
            return Ok(());
        }
        let passes = self.passes(finished);
        let passes = passes.iter();
        let needed_bytes = passes
            .map(|pass| space::least_bytes(pass, self.clips, self.source.index(), self.plan))
            .sum();
        Ok(space::require_space(self.store.root(), needed_bytes)?)
    }

    /// Writes the files that `finished` lacks and adds their receipts. Returns warnings about damaged files of the
    /// parent.
    ///
    /// # Errors
    /// [`ExtractError`] if the store or a clip cannot be read, or the store cannot be written. Receipts of finished
    /// files are kept.
    pub(super) fn write_missing(
        &self,
        known: KnownInputs,
        finished: &mut FinishedShards,
    ) -> Result<Vec<String>, ExtractError> {
        let passes = self.passes(finished);
        let (taken, warnings) = self.taken_rows(&passes, &known)?;
        drop(known);

        self.monitor.progress.enter(Phase::Clips, 0);
        self.expect_clips(&passes);
        for (pass, taken) in passes.iter().zip(&taken) {
            self.write_pass(pass, taken, finished)?;
        }

        // A clip has rows in all features or in none. If a new feature rejects a clip that has rows in other features,
        // the shard is written again with all of its features at once.
        for place in finished.in_dispute() {
            finished.forget(place);
            let label = self.plan.shard_plan.shards[place].label();
            for feature in self.plan.features.entries() {
                self.store
                    .remove_receipt(self.plan_id, &feature.name, &label)?;
            }
        }
        let together = vec![false; self.plan.features.entries().len()];
        let passes = reuse::passes(&self.plan.shard_plan, finished, &together);
        self.expect_clips(&passes);
        for pass in &passes {
            self.write_pass(pass, &TakenRows::default(), finished)?;
        }
        Ok(warnings)
    }

    fn passes(&self, finished: &FinishedShards) -> Vec<Pass<'_>> {
        let kept = self.kept_features();
        let is_kept: Vec<bool> = kept.iter().map(Option::is_some).collect();
        reuse::passes(&self.plan.shard_plan, finished, &is_kept)
    }

    /// Returns, for each feature of the plan, the parent's entry from whose rows it can be made.
    fn kept_features(&self) -> Vec<Option<&FeatureEntry>> {
        take::kept_features(self.parent, self.plan, self.settings)
    }

    /// Collects the rows that each pass copies from the parent, and warnings about damaged files of the parent.
    fn taken_rows(
        &self,
        passes: &[Pass<'_>],
        known: &KnownInputs,
    ) -> Result<(Vec<TakenRows>, Vec<String>), ExtractError> {
        let kept = self.kept_features();
        let mut taken = Vec::with_capacity(passes.len());
        let mut warnings = Vec::new();
        let mut parent_rows = None;
        for pass in passes {
            // Rows of either all features of a pass or of none are copied: see `passes`.
            let columns: Option<Vec<&FeatureEntry>> =
                pass.features.iter().map(|&n| kept[n]).collect();
            let (Some(columns), Some(parent)) = (columns, self.parent) else {
                taken.push(TakenRows::default());
                continue;
            };

            let rows = match &mut parent_rows {
                Some(rows) => rows,
                none => {
                    let (store, renames) = (self.store, self.renames);
                    none.insert(ParentRows::new(store, parent, renames, passes, self.clips)?)
                }
            };
            let threads = self.limits.threads;
            let features = &self.plan.features;
            let (of_pass, damaged) =
                rows.taken(pass, features, &columns, self.clips, known, threads)?;
            taken.push(of_pass);
            warnings.extend(damaged);
        }
        Ok((taken, warnings))
    }

    /// Adds the clips of `passes` to the number of clips that this run has to process.
    fn expect_clips(&self, passes: &[Pass<'_>]) {
        let shards = passes.iter().flat_map(|pass| &pass.todo);
        let clips = shards.map(|task| task.shard.members.len() as u64).sum();
        self.monitor.clips_total.fetch_add(clips, Ordering::Relaxed);
    }

    fn write_pass(
        &self,
        pass: &Pass<'_>,
        taken: &TakenRows,
        finished: &mut FinishedShards,
    ) -> Result<(), ExtractError> {
        let features = self.plan.features.only(&pass.features);
        let targets = &self.plan.targets;

        let work = Work {
            clips: self.clips,
            keys: &self.plan.key_inputs(self.clips, &features),
            feature_numbers: &pass.features,
            features_id: &self.plan.features_id()?,
            todo: &pass.todo,
            taken,
            source: self.source,
            features: &features,
            formats: &features.formats(targets, &self.plan.recipe.shards)?,
            stop: &self.monitor.progress.stop,
            counters: &self.monitor.counters,
            limits: self.limits,
            budget: ByteBudget::new(self.limits.in_flight_bytes),
            encoding: ByteBudget::new(self.limits.encode_bytes),
        };
        extract::write_shards(self.store, self.plan_id, &work, finished)?;
        Ok(())
    }
}
