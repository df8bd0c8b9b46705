//! Selects the rows that a pass copies from the parent: rows of unchanged inputs and of unchanged features.

use std::collections::{BTreeSet, HashMap};

use wavemill_runtime::parallel::in_parts;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::reject::Reject;
use wavemill_store::plan::ClipShards;
use wavemill_store::plan::segments::variants_on;
use wavemill_store::shards::{TakenClip, TakenRows};
use wavemill_store::{Parent, RemoteError, Store, StoreError, is_lost};

use super::known::KnownInputs;
use super::plan::Plan;
use super::renames::Renames;
use super::reuse::Pass;
use crate::error::ExtractError;
use crate::features::FeaturePlan;
use crate::incremental::parent::{self, ClipRows, ParentInput, RowIndex};
use crate::settings::Settings;

/// Returns, for each feature of the plan, the parent's entry from whose rows it can be made.
///
/// Stored values are equal if both the `feature_id` and the engine are equal.
pub(crate) fn kept_features<'p>(
    parent: Option<&'p Parent>,
    plan: &Plan<'_>,
    settings: &Settings,
) -> Vec<Option<&'p FeatureEntry>> {
    let features = match parent {
        Some(parent) if parent.manifest.engine.agrees_with(&plan.engine) && !settings.recompute => {
            parent.manifest.features.as_slice()
        }
        _ => &[],
    };
    plan.features.stored_in(features)
}

/// Index of the parent's rows, rejects and inputs, for the clips of some shards.
pub(crate) struct ParentRows<'a> {
    store: &'a Store,
    parent: &'a Parent,
    /// The parent's shards to which the clips belong.
    shards: ClipShards,
    inputs: HashMap<String, ParentInput>,
    /// Positions of the clips' rows in the parent's files of the feature `indexed`.
    index: RowIndex,
    indexed: String,
    /// Clips of the parent that were rejected because of the contents of their files.
    rejects: HashMap<String, Reject>,
    renames: &'a Renames,
    /// Warnings about unreadable files of the parent, one sentence each.
    warnings: Vec<String>,
}

impl<'a> ParentRows<'a> {
    /// Reads the parent's rejects, and its inputs of the clips of `passes`, but no tensors.
    ///
    /// # Errors
    /// [`ExtractError::Store`] if the parent's inputs cannot be read.
    pub(crate) fn new(
        store: &'a Store,
        parent: &'a Parent,
        renames: &'a Renames,
        passes: &[Pass<'_>],
        clips: &[ClipRow],
    ) -> Result<Self, ExtractError> {
        let members = passes.iter().flat_map(|pass| &pass.todo);
        let members = members.flat_map(|task| &task.shard.members);
        let keys = members.map(|&row| key_in_parent(&clips[row].clip_key, renames));
        let shards = ClipShards::new(&parent.manifest, keys);

        Ok(Self {
            store,
            parent,
            inputs: parent::inputs_of_shards(store, &parent.manifest, &shards)?,
            shards,
            index: RowIndex::new(),
            indexed: String::new(),
            warnings: Vec::new(),
            rejects: parent::rejects(store, &parent.manifest),
            renames,
        })
    }

    /// Indexes the clips' rows in the files of `feature`, which is an entry of the parent.
    ///
    /// The blake3 of each file is compared before the file is opened. If clips have all their rows in one file, a
    /// damaged file only loses its own rows. Under the rule `segment` the rows of a clip are in several files, and a
    /// damaged file could hide some of them, so all files must be intact.
    ///
    /// # Errors
    /// [`ExtractError::Store`] if a file of the parent cannot be checked.
    pub(crate) fn index_by(
        &mut self,
        feature: &FeatureEntry,
        threads: usize,
    ) -> Result<(), ExtractError> {
        if self.indexed == feature.name {
            return Ok(());
        }
        self.indexed.clone_from(&feature.name);

        // A file's place in this list is the number of its shard.
        let files = self.parent.manifest.files_of(&feature.name).enumerate();
        let is_needed = |file: &(usize, &FileEntry)| self.shards.label_of(file.1).is_some();
        let mut files: Vec<(usize, &FileEntry)> = files.filter(is_needed).collect();
        let damaged = self.damaged_files(&files, threads)?;
        files.retain(|file| !damaged.contains(file));
        let mut unsound: Vec<&FileEntry> = damaged.into_iter().map(|(_, entry)| entry).collect();

        let (index, unreadable) = parent::row_index(self.store, &files)?;
        self.index = index;
        unsound.extend(unreadable);
        if !unsound.is_empty() && self.parent.manifest.recipe.split.rule.is_by_segment() {
            self.index.clear();
        }
        self.warnings.extend(unsound.into_iter().map(warning_of));
        Ok(())
    }

    /// Collects the rows that a pass copies for the plan's `features`. `kept` contains the parent's entries of the
    /// features of the pass. Clips in damaged files of the parent are left out, and a warning is returned for each such
    /// file.
    ///
    /// # Errors
    /// [`ExtractError::Store`] if a file of the parent cannot be checked.
    pub(crate) fn taken(
        &mut self,
        pass: &Pass<'_>,
        features: &FeaturePlan,
        kept: &[&FeatureEntry],
        clips: &[ClipRow],
        known: &KnownInputs,
        threads: usize,
    ) -> Result<(TakenRows, Vec<String>), ExtractError> {
        if let Some(first) = kept.first() {
            self.index_by(first, threads)?;
        }
        let mut taken = TakenRows {
            columns: kept.iter().map(|&entry| entry.clone()).collect(),
            ..TakenRows::default()
        };
        for task in &pass.todo {
            let variants = features.variants_on(&task.shard.split);
            for &row in &task.shard.members {
                let clip_key = &clips[row].clip_key;
                let seen = known.get(clip_key);
                if let Some(clip) = self.clip(clip_key, seen, &variants, features) {
                    taken.clips.insert(row, clip);
                }
            }
        }

        let damaged = self.find_files(&mut taken, kept, threads)?;
        taken.clips.retain(|_, clip| match &clip.outcome {
            Ok(runs) => runs.iter().all(|run| !damaged.shards.contains(&run.shard)),
            Err(_) => true,
        });
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(damaged.warnings);
        warnings.sort();
        warnings.dedup();
        Ok((taken, warnings))
    }

    /// Returns the rows or the reject of a clip whose file is unchanged, if the parent has all of the wanted
    /// `variants`. `features` are those of the pass.
    pub(crate) fn clip(
        &self,
        clip_key: &str,
        seen: Option<&InputSeen>,
        variants: &[f64],
        features: &FeaturePlan,
    ) -> Option<TakenClip> {
        let seen = seen?;
        let clip_key = key_in_parent(clip_key, self.renames);
        let was = self.inputs.get(clip_key)?;
        let is_same = !seen.content.is_empty() && seen.content == was.content;
        if let Some(reject) = self.rejects.get(clip_key) {
            return is_same.then(|| TakenClip {
                outcome: Err(reject.clone()),
                duration_s: 0.0,
                seen: seen.clone(),
            });
        }

        // New tags change the content of a file, but the decoder still reads the same audio. Only features that consist
        // of the file itself differ.
        let decodes_alike = !seen.decode_key.is_empty() && seen.decode_key == was.decode_key;
        let is_unchanged = is_same || (decodes_alike && features.n_originals() == 0);
        let rows = self.index.get(clip_key)?;
        if !self.has_variants(rows, variants) {
            return None;
        }

        let mut runs = rows.runs.clone();
        runs.retain(|run| variants.iter().any(|&v| v as f32 == run.variant));
        is_unchanged.then(|| TakenClip {
            outcome: Ok(runs),
            duration_s: rows.duration_s,
            seen: seen.clone(),
        })
    }

    /// Reports whether the parent computed all of these variants of a clip. This cannot be seen from the clip's rows,
    /// because a stretched copy may be too short for a row.
    fn has_variants(&self, rows: &ClipRows, variants: &[f64]) -> bool {
        let parent = &self.parent.manifest;
        let mut files = parent.files_of(&self.indexed);
        let file = rows.runs.first().and_then(|run| files.nth(run.shard));
        let split = file.and_then(|file| file.split.as_deref());

        let recipe = &parent.recipe;
        let made = variants_on(&recipe.audio, recipe.split.rule, split.unwrap_or_default());
        // Compares the factors in f64: two factors that are equal as f32 may give copies of different lengths.
        variants.iter().all(|wanted| made.contains(wanted))
    }

    /// Fills in the files of the shards from which rows are copied, and compares each file with its blake3 hash.
    fn find_files(
        &self,
        taken: &mut TakenRows,
        kept: &[&FeatureEntry],
        threads: usize,
    ) -> Result<Damaged, StoreError> {
        let of_features: Vec<Vec<&FileEntry>> = kept
            .iter()
            .map(|entry| self.parent.manifest.files_of(&entry.name).collect())
            .collect();
        let indexed: Vec<&FileEntry> = self.parent.manifest.files_of(&self.indexed).collect();

        let mut wanted = BTreeSet::new();
        for clip in taken.clips.values() {
            let runs = clip.outcome.iter().flatten();
            wanted.extend(runs.map(|run| run.shard));
        }

        taken.files = vec![Vec::new(); indexed.len()];
        let mut damaged = Damaged::default();
        let mut entries = Vec::new();
        for &shard in &wanted {
            for files in &of_features {
                // All features of a version have the same rows in the same row groups.
                let Some(&entry) = files
                    .get(shard)
                    .filter(|entry| entry.row_groups == indexed[shard].row_groups)
                else {
                    damaged.shards.insert(shard);
                    continue;
                };
                taken.files[shard].push(self.store.locate(&entry.path)?);
                entries.push((shard, entry));
            }
        }

        for (shard, entry) in self.damaged_files(&entries, threads)? {
            damaged.shards.insert(shard);
            damaged.warnings.push(warning_of(entry));
        }
        Ok(damaged)
    }

    /// Returns the files of `entries` whose bytes differ from the committed bytes, each with its shard.
    fn damaged_files<'e>(
        &self,
        entries: &[(usize, &'e FileEntry)],
        threads: usize,
    ) -> Result<Vec<(usize, &'e FileEntry)>, StoreError> {
        let files: Vec<&FileEntry> = entries.iter().map(|(_, entry)| *entry).collect();
        match self.store.fetch(&files) {
            // Each damaged file is found when it is compared.
            Ok(()) | Err(StoreError::Remote(RemoteError::Damaged { .. })) => {}
            Err(error) => return Err(error),
        }

        let are_damaged = in_parts(threads, entries.len(), |number| {
            match self.store.sound_file(entries[number].1) {
                Ok(sound) => Ok(sound.is_none()),
                // The rows of a file that the disk does not return can be computed again.
                Err(error) if is_lost(&error) => Ok(true),
                Err(error) => Err(error),
            }
        })?;
        let damaged = entries.iter().zip(are_damaged);
        let damaged = damaged.filter(|(_, is_damaged)| *is_damaged);
        let mut damaged: Vec<_> = damaged.map(|(file, _)| *file).collect();
        damaged.sort_by(|a, b| a.1.path.cmp(&b.1.path));
        Ok(damaged)
    }
}

/// Returns the key that a clip has in the parent.
pub(crate) fn key_in_parent<'k>(clip_key: &'k str, renames: &'k Renames) -> &'k str {
    renames.get(clip_key).map_or(clip_key, String::as_str)
}

/// Returns the warning about a lost or damaged file.
pub(crate) fn warning_of(entry: &FileEntry) -> String {
    let FileEntry { path, rows, .. } = entry;
    format!("{path}: lost or damaged: its {rows} rows are computed again and not taken over")
}

/// Damaged files of the parent, from which no rows can be copied.
#[derive(Default)]
struct Damaged {
    /// Indices of the parent's shards that have damaged files.
    shards: BTreeSet<usize>,
    /// Warnings about the damaged files, one sentence each.
    warnings: Vec<String>,
}
