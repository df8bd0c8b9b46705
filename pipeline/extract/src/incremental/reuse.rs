//! Determines which files of a plan exist already and which remain to be written.

use std::collections::{BTreeMap, BTreeSet};

use wavemill_runtime::parallel::in_parts;
use wavemill_runtime::progress::Progress;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{FeatureEntry, Manifest, Receipt};
use wavemill_schemas::reject::{Reason, Stage};
use wavemill_source::Source;
use wavemill_store::plan::{Shard, ShardPlan};
use wavemill_store::shards::{FinishedShards, KeyInputs, ShardTask};
use wavemill_store::{Parent, Receipts, Store, StoreError, is_lost};

use super::known::KnownInputs;
use super::plan::Plan;
use super::take::warning_of;
use crate::error::ExtractError;
use crate::incremental::parent;
use crate::settings::Settings;

/// The results that earlier runs have left in the store.
pub(crate) struct EarlierRuns<'a> {
    store: &'a Store,
    plan_id: &'a str,
    /// Receipts of an interrupted run of this plan.
    own: Receipts,
    /// Receipts of all other plans, by the key of the file that each describes.
    others: BTreeMap<String, Vec<Receipt>>,
    /// Ids of all plans of the store: first this plan, then the parent's plan, then all others.
    plans: Vec<String>,
    parent: Option<&'a Manifest>,
    /// If true, only files whose rows were all computed by this plan count as finished.
    recompute: bool,
    /// True for a preview: no file is linked, and none is read to check for damage.
    only_looks: bool,
    /// Warnings about files that the disk does not return, one sentence each.
    warnings: Vec<String>,
}

/// The receipt of a file that need not be written.
enum Found {
    /// The receipt is of this plan.
    Own(Receipt),
    /// The receipt is of another plan, whose file has to be linked.
    Theirs(Receipt),
}

/// Files of a shard that have to be linked.
struct Links<'a> {
    place: usize,
    shard: &'a Shard,
    inputs: BTreeMap<String, InputSeen>,
    /// Index of the feature, and the receipt of the other plan.
    theirs: Vec<(usize, Receipt)>,
}

impl<'a> EarlierRuns<'a> {
    /// Reads the store's receipts. `parent` is the latest version.
    ///
    /// # Errors
    /// [`ExtractError::Store`] if the receipts cannot be read.
    pub(crate) fn new(
        store: &'a Store,
        plan_id: &'a str,
        parent: Option<&'a Parent>,
        settings: &Settings,
    ) -> Result<Self, ExtractError> {
        let manifest = parent.map(|parent| &parent.manifest);
        let parent = manifest.map(|manifest| manifest.plan_id.as_str());
        let recompute = settings.recompute;
        let mut plans: Vec<String> = store.begun()?.into_iter().map(|(id, _)| id).collect();
        plans.sort_by_key(|id| (id != plan_id, Some(id.as_str()) != parent));

        let mut others: BTreeMap<String, Vec<Receipt>> = BTreeMap::new();
        for other in plans.iter().filter(|id| *id != plan_id && !recompute) {
            store.list_sizes(other)?;
            for receipt in store.receipts(other)?.into_values() {
                // One of several equal files is enough. Files with one key differ if another feature rejected clips.
                let of_key = others.entry(receipt.key.clone()).or_default();
                if of_key
                    .iter()
                    .all(|one| one.file.blake3 != receipt.file.blake3)
                {
                    of_key.push(receipt);
                }
            }
        }
        Ok(Self {
            store,
            plan_id,
            own: store.receipts(plan_id)?,
            others,
            plans,
            parent: manifest,
            recompute,
            only_looks: false,
            warnings: Vec::new(),
        })
    }

    /// Switches to the mode for previews: no file is linked, and existing files are assumed to be intact.
    pub(crate) fn only_looking(self) -> Self {
        Self {
            only_looks: true,
            ..self
        }
    }

    /// Adds the contents of the planned inputs to `known`. Contents seen by earlier runs are reused if the stamp of the
    /// file is unchanged; otherwise the file is read.
    ///
    /// # Errors
    /// [`ExtractError`] if the store or a file cannot be read, or if the run was stopped.
    pub(crate) fn look_at_inputs(
        &self,
        known: &mut KnownInputs,
        plan: &Plan<'_>,
        clips: &[ClipRow],
        source: &dyn Source,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<(), ExtractError> {
        let mut doubtful = BTreeSet::new();
        for plan_id in &self.plans {
            let seen = self.store.seen(plan_id)?;
            doubtful.append(&mut known.recall(seen, source.index()));
        }
        // A store that was copied without its receipts still contains the hashes of its inputs in a table.
        if let Some(manifest) = self.parent {
            doubtful.extend(parent::input_keys(self.store, manifest)?);
        }

        let planned = plan.shard_plan.planned.iter();
        let planned = planned.map(|&row| clips[row].clip_key.as_str());
        let changed = planned.filter(|clip_key| doubtful.contains(*clip_key));
        known.read(changed, source, settings, progress)
    }

    /// Finds the files that need no work: files finished by an interrupted run of this plan, and files that can be
    /// linked from another plan. Receipts of this plan that no longer apply are removed, because a worker takes a file
    /// with a receipt for finished. Also returns warnings about files that the disk does not return.
    ///
    /// # Errors
    /// [`ExtractError::Store`] if files cannot be checked or linked; an error of the kind `Interrupted` if the run was
    /// stopped.
    pub(crate) fn finished(
        mut self,
        plan: &Plan<'_>,
        clips: &[ClipRow],
        known: &KnownInputs,
        progress: &Progress,
    ) -> Result<(FinishedShards, Vec<String>), ExtractError> {
        let shard_plan = &plan.shard_plan;
        let keys = plan.key_inputs(clips, &plan.features);
        let features_id = plan.features_id()?;
        let mut finished = FinishedShards::new(shard_plan.shards.len(), keys.features.len());
        let mut to_link = Vec::new();
        for (place, shard) in shard_plan.shards.iter().enumerate() {
            // The stop flag is checked before each shard, because the shard's files are read to compare their hashes.
            if progress.is_stopped() {
                return Err(ExtractError::stopped_after(&finished));
            }

            // A shard without keys has an input that has not been read yet, so the shard is new.
            let Some(keys_of_shard) = keys.keys(shard, |clip_key| known.get(clip_key))? else {
                for entry in keys.features {
                    let file = (entry.name.clone(), shard.label());
                    self.own(&file, |_| false)?;
                }
                continue;
            };
            let inputs = inputs_of(shard, &keys, known);
            let features = keys.features.iter().zip(keys_of_shard).enumerate();
            let mut theirs = Vec::new();
            for (feature, (entry, key)) in features {
                let file = (entry.name.clone(), shard.label());
                match self.receipt(&file, &key, &features_id)? {
                    Some(Found::Own(receipt)) => finished.put(place, feature, receipt),
                    Some(Found::Theirs(receipt)) => theirs.push((feature, receipt)),
                    None => {}
                }
            }
            if theirs.is_empty() {
                if has_receipt(&finished, place) {
                    finished.inputs.extend(inputs);
                }
                continue;
            }
            to_link.push(Links {
                place,
                shard,
                inputs,
                theirs,
            });
            if to_link.len() == self.store.links_at_once() {
                self.link(&mut to_link, &mut finished)?;
            }
        }
        self.link(&mut to_link, &mut finished)?;
        Ok((finished, self.warnings))
    }

    /// Links files of other plans, and adds their receipts to `finished`.
    fn link(
        &self,
        to_link: &mut Vec<Links<'_>>,
        finished: &mut FinishedShards,
    ) -> Result<(), StoreError> {
        let links = std::mem::take(to_link);
        let linked = in_parts(links.len(), links.len(), |i| self.link_shard(&links[i]))?;
        for (links, linked) in links.into_iter().zip(linked) {
            for (feature, receipt) in linked {
                finished.put(links.place, feature, receipt);
            }
            finished.inputs.extend(links.inputs);
        }
        Ok(())
    }

    fn link_shard(&self, links: &Links<'_>) -> Result<Vec<(usize, Receipt)>, StoreError> {
        let Links {
            shard,
            inputs,
            theirs,
            ..
        } = links;
        let label = shard.label();

        let link = |theirs: &Receipt| {
            if self.only_looks {
                return Ok(theirs.clone());
            }

            // The order is the same as for a computed file: first the file, then the contents of its inputs, then the
            // receipt that refers to both. The stamps are the current ones, so the next run need not read files that
            // were copied or touched.
            let mut receipt = self.store.link(theirs, self.plan_id, shard)?;
            receipt.is_computed = false;
            self.store.write_seen(self.plan_id, &label, inputs)?;
            self.store.write_receipt(self.plan_id, &label, receipt)
        };

        let linked = theirs
            .iter()
            .map(|(feature, theirs)| Ok((*feature, link(theirs)?)));
        linked.collect()
    }

    /// Finds the receipt of an existing file, which is given as feature and label of the shard.
    fn receipt(
        &mut self,
        file: &(String, String),
        key: &str,
        features_id: &str,
    ) -> Result<Option<Found>, StoreError> {
        let recompute = self.recompute;
        let n_warnings = self.warnings.len();
        let own = self.own(file, |own| {
            // Receipts are looked up by shard. The clips of the shard may have changed since, so the key must be equal
            // too. A panic may not recur, and a resumed run must give the same result as an uninterrupted one.
            own.key == key && (own.is_computed || !recompute) && !has_panic(own)
        })?;
        if let Some(own) = own {
            return Ok(Some(Found::Own(own)));
        }

        let mut theirs = self.others.get(key).cloned().unwrap_or_default();
        theirs.retain(|theirs| rejects_hold(theirs, features_id));
        // Prefer a receipt written by a plan with the same set of features: all of them rejected the same clips.
        theirs.sort_by_key(|theirs| theirs.features != features_id);
        // If the file of the other plan is damaged or missing, this plan writes it again.
        for theirs in theirs {
            if self.is_there(&theirs)? {
                // Nothing is computed again for those that were lost.
                self.warnings.truncate(n_warnings);
                return Ok(Some(Found::Theirs(theirs)));
            }
        }
        Ok(None)
    }

    /// Returns this plan's receipt for a file, given as feature and label, if the receipt `applies` and the file is
    /// there. Otherwise removes the receipt.
    fn own(
        &mut self,
        file: &(String, String),
        applies: impl Fn(&Receipt) -> bool,
    ) -> Result<Option<Receipt>, StoreError> {
        let Some(own) = self.own.remove(file) else {
            return Ok(None);
        };
        if applies(&own) && self.is_there(&own)? {
            return Ok(Some(own));
        }
        if !self.only_looks {
            self.store.remove_receipt(self.plan_id, &file.0, &file.1)?;
        }
        Ok(None)
    }

    fn is_there(&mut self, receipt: &Receipt) -> Result<bool, StoreError> {
        if self.only_looks {
            return Ok(true);
        }
        match self.store.holds(receipt) {
            Err(error) if is_lost(&error) => {
                self.warnings.push(warning_of(&receipt.file));
                Ok(false)
            }
            is_there => is_there,
        }
    }
}

/// Returns the files of a part of a stored plan that workers have finished.
///
/// # Errors
/// [`ExtractError::Store`] if receipts cannot be read; [`ExtractError::Changed`] if files were computed from different
/// contents of a clip's file.
pub(crate) fn finished_by_workers(
    store: &Store,
    plan_id: &str,
    shards: &[Shard],
    features: &[FeatureEntry],
) -> Result<FinishedShards, ExtractError> {
    store.pull_seen(plan_id, shards.iter().map(Shard::label))?;
    let mut finished = FinishedShards::new(shards.len(), features.len());
    for (place, shard) in shards.iter().enumerate() {
        let label = shard.label();
        for (feature, entry) in features.iter().enumerate() {
            if let Some(receipt) = store.receipt_with_file(plan_id, &entry.name, &label)? {
                finished.put(place, feature, receipt);
            }
        }

        if has_receipt(&finished, place) {
            add_inputs(&mut finished, store.seen_of_shard(plan_id, &label)?)?;
        }
    }
    Ok(finished)
}

/// Adds the files of `shards`, a block of a stored plan, that workers have finished. `keys` are the inputs of the
/// files' keys. Removes receipts whose key differs from what the plan and the record of the shard's inputs give, so
/// that their files are written again.
pub(crate) fn add_checked(
    finished: &mut FinishedShards,
    store: &Store,
    plan_id: &str,
    shards: &[ShardTask<'_>],
    keys: &KeyInputs<'_>,
) -> Result<(), ExtractError> {
    for ShardTask { place, shard } in shards {
        let label = shard.label();
        let seen = store.seen_of_shard(plan_id, &label)?;
        let keys_of_shard = keys.keys(shard, |clip_key| seen.get(clip_key))?;

        for (feature, entry) in keys.features.iter().enumerate() {
            let receipt = store.receipt_with_file(plan_id, &entry.name, &label)?;
            let key = keys_of_shard.as_ref().map(|keys| &keys[feature]);
            match receipt {
                Some(receipt) if key == Some(&receipt.key) => {
                    finished.put(*place, feature, receipt);
                }
                Some(_) => store.remove_receipt(plan_id, &entry.name, &label)?,
                None => {}
            }
        }

        if has_receipt(finished, *place) {
            add_inputs(finished, seen)?;
        }
    }
    Ok(())
}

fn add_inputs(
    finished: &mut FinishedShards,
    inputs: BTreeMap<String, InputSeen>,
) -> Result<(), ExtractError> {
    if let Some(clip_key) = finished.changed_input(&inputs) {
        let clip_key = clip_key.clone();
        return Err(ExtractError::Changed { clip_key });
    }
    finished.inputs.extend(inputs);
    Ok(())
}

fn has_receipt(finished: &FinishedShards, place: usize) -> bool {
    let mut receipts = finished.receipts_of_shard(place).iter();
    receipts.any(Option::is_some)
}

fn has_panic(receipt: &Receipt) -> bool {
    let mut rejects = receipt.rejects.iter();
    rejects.any(|reject| reject.reason == Reason::WorkerPanic)
}

/// Reports whether the rejects in another plan's receipt also apply to this plan. Rejects of the stage `features`
/// depend on all features of a plan, and a panic may not recur.
fn rejects_hold(receipt: &Receipt, features_id: &str) -> bool {
    let mut rejects = receipt.rejects.iter();
    let is_of_features = rejects.any(|reject| reject.stage == Stage::Features);
    !has_panic(receipt) && (!is_of_features || receipt.features == features_id)
}

/// Returns the known contents of a shard's inputs.
fn inputs_of(
    shard: &Shard,
    keys: &KeyInputs<'_>,
    known: &KnownInputs,
) -> BTreeMap<String, InputSeen> {
    let mut inputs = BTreeMap::new();
    for &row in &shard.members {
        let clip_key = &keys.clips[row].clip_key;
        if let Some(seen) = known.get(clip_key) {
            inputs.insert(clip_key.clone(), seen.clone());
        }
    }
    inputs
}

/// Shards to be written for the same features, in plan order.
pub(crate) struct Pass<'a> {
    /// Indices of the pass's features in the recipe.
    pub features: Vec<usize>,
    pub todo: Vec<ShardTask<'a>>,
}

/// Groups the remaining shards into passes. Missing features of a shard are written together because they share the
/// decoded samples and the spectrum. Features whose rows the parent has (`is_kept`, by feature) form a separate pass:
/// for an unchanged clip, either all features of a pass are copied or none.
pub(crate) fn passes<'a>(
    shard_plan: &'a ShardPlan,
    finished: &FinishedShards,
    is_kept: &[bool],
) -> Vec<Pass<'a>> {
    let mut by_features: BTreeMap<Vec<usize>, Vec<ShardTask<'a>>> = BTreeMap::new();
    for (place, shard) in shard_plan.shards.iter().enumerate() {
        let receipts = finished.receipts_of_shard(place).iter().enumerate();
        let missing = receipts.filter(|(_, receipt)| receipt.is_none());
        let missing = missing.map(|(feature, _)| feature);
        let (kept, fresh): (Vec<usize>, Vec<usize>) = missing.partition(|&n| is_kept[n]);
        for features in [kept, fresh] {
            if !features.is_empty() {
                let todo = by_features.entry(features).or_default();
                todo.push(ShardTask { place, shard });
            }
        }
    }

    by_features
        .into_iter()
        .map(|(features, todo)| Pass { features, todo })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wavemill_schemas::manifest::FileEntry;

    use super::*;

    /// Reading the memory of a process at address 0 fails with `EIO`.
    #[test]
    fn a_file_that_the_disk_does_not_return_is_written_again() {
        let lost = Receipt {
            key: "key".to_owned(),
            file: FileEntry {
                table: None,
                feature: Some("mel".to_owned()),
                split: None,
                path: "mem".to_owned(),
                rows: 7,
                bytes: 0,
                blake3: String::new(),
                row_groups: Vec::new(),
                footer: None,
            },
            rejects: Vec::new(),
            features: String::new(),
            is_computed: true,
            clips_written: 7,
            partials: Vec::new(),
            class_counts: Vec::new(),
        };
        let store = Store::at(Path::new("/proc/self"));
        let mut earlier = EarlierRuns {
            store: &store,
            plan_id: "plan",
            own: Receipts::new(),
            others: BTreeMap::from([("key".to_owned(), vec![lost])]),
            plans: Vec::new(),
            parent: None,
            recompute: false,
            only_looks: false,
            warnings: Vec::new(),
        };

        let file = ("mel".to_owned(), "training-00000".to_owned());
        let found = earlier.receipt(&file, "key", "").expect("no error");
        assert!(found.is_none());
        let warning = &earlier.warnings[0];
        assert!(warning.starts_with("mem: lost"), "{warning}");
    }
}
