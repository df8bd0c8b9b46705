//! Receives the outcomes of clips in any order, restores plan order, cuts row groups, and writes files and receipts.
//!
//! The shard writer runs on one thread. Encoding is left to the workers.

use std::collections::BTreeMap;

use wavemill_reader::layout::next_group;
use wavemill_runtime::budget::ByteBudget;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{FileEntry, Partial, Receipt, TargetEntry};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::split::Split;

use super::encode::{EncodedGroup, Format, RowGroup};
use super::file::ParquetFile;
use super::rows::FeatureRow;
use super::{KeyInputs, TakenRows};
use crate::plan::Shard;
use crate::{Store, StoreError};

/// The result of processing one clip.
#[derive(Debug)]
pub enum Outcome {
    /// The rows of the clip's segments. Empty if the rule `segment` puts all of them into other splits.
    Rows(Vec<FeatureRow>),
    /// The clip has no rows, and the reject is counted.
    Rejected(Reject),
}

impl Outcome {
    /// Returns the reject, if the clip was rejected.
    pub const fn reject(&self) -> Option<&Reject> {
        match self {
            Self::Rejected(reject) => Some(reject),
            Self::Rows(_) => None,
        }
    }

    /// Reports to the memory budget that the writing thread has received the rows.
    pub fn taken(&self) {
        if let Self::Rows(rows) = self {
            for permit in rows.iter().filter_map(|row| row.permit.as_ref()) {
                permit.taken();
            }
        }
    }
}

/// A shard to write.
#[derive(Debug)]
pub struct ShardTask<'a> {
    /// Index of the shard in the plan.
    pub place: usize,
    /// The shard as planned.
    pub shard: &'a Shard,
}

/// Arguments of [`ShardWriter::new`].
pub struct WriterArgs<'a> {
    /// The store that the files are written to.
    pub store: &'a Store,
    /// Name of the plan's folder in the store.
    pub plan_id: &'a str,
    /// Inputs from which the keys of files are computed, with the plan's rows, targets and recipe.
    pub keys: &'a KeyInputs<'a>,
    /// Id of the set of all features of the plan, stored in receipts.
    pub features_id: &'a str,
    /// Rows that are copied from an earlier version instead of being computed.
    pub taken: &'a TakenRows,
    /// Shards to write, in plan order.
    pub todo: &'a [ShardTask<'a>],
    /// File format of each feature.
    pub formats: &'a [Format],
    /// Memory budget from which clips hold permits; rows return them.
    pub budget: &'a ByteBudget,
}

/// Writes the shards of `todo`, clip by clip in plan order.
pub struct ShardWriter<'a> {
    args: WriterArgs<'a>,
    parked: BTreeMap<usize, (Outcome, InputSeen)>,
    next: usize,
    filling: usize,
    open: BTreeMap<usize, OpenShard>,
}

struct OpenShard {
    members_left: usize,
    pending: Vec<FeatureRow>,
    groups_made: usize,
    groups_done: usize,
    parked: BTreeMap<usize, EncodedGroup>,
    /// One open file per feature, with the sums over each of the file's row groups. Empty before the first row group,
    /// so that few files are open at once: clips of many small shards may arrive before the first of them is encoded.
    files: Vec<(ParquetFile, Vec<Partial>)>,
    /// Inputs of the shard's members, as they were read.
    inputs: BTreeMap<String, InputSeen>,
    rejects: Vec<Reject>,
    clips_written: u64,
    class_counts: Vec<Vec<u64>>,
}

/// A shard whose files are complete.
pub struct FinishedShard {
    /// Index of the shard among the shards to write.
    pub index: usize,
    /// The file of each feature, in the order of the formats.
    pub files: Vec<FinishedFile>,
    /// Inputs of the shard's members, as they were read.
    pub inputs: BTreeMap<String, InputSeen>,
}

/// A complete file of a shard.
pub enum FinishedFile {
    /// The file was written. Its receipt still has to be written.
    Written(Receipt),
    /// Another worker of the plan has finished the file, with this receipt.
    Found(Receipt),
}

impl OpenShard {
    fn new(shard: &Shard, targets: &[TargetEntry]) -> Self {
        Self {
            members_left: shard.members.len(),
            pending: Vec::new(),
            groups_made: 0,
            groups_done: 0,
            parked: BTreeMap::new(),
            files: Vec::new(),
            inputs: BTreeMap::new(),
            rejects: Vec::new(),
            clips_written: 0,
            class_counts: targets
                .iter()
                .map(|target| vec![0; target.classes.len()])
                .collect(),
        }
    }

    /// Reports whether every clip of the shard was received and every row group was appended.
    fn is_complete(&self) -> bool {
        self.members_left == 0 && self.groups_done == self.groups_made
    }

    /// Counts a clip that has rows, in total and by class.
    fn count_clip(&mut self, clip: &ClipRow) {
        self.clips_written += 1;
        for (counts, class) in self.class_counts.iter_mut().zip(&clip.targets) {
            if let Some(count) = class.and_then(|class| counts.get_mut(class as usize)) {
                *count += 1;
            }
        }
    }
}

impl<'a> ShardWriter<'a> {
    /// Creates a writer that has opened no file yet.
    pub const fn new(args: WriterArgs<'a>) -> Self {
        Self {
            args,
            parked: BTreeMap::new(),
            next: 0,
            filling: 0,
            open: BTreeMap::new(),
        }
    }

    /// Accepts the outcome of clip number `seq`, counted over all shards of `todo` in plan order. Returns the row
    /// groups that are now ready to be encoded.
    pub fn outcome(&mut self, seq: usize, outcome: Outcome, seen: InputSeen) -> Vec<RowGroup> {
        // Outcomes of clips that arrive before their turn wait here.
        self.parked.insert(seq, (outcome, seen));
        let mut ready = Vec::new();
        while let Some((outcome, seen)) = self.parked.remove(&self.next) {
            self.next += 1;
            self.take(outcome, seen, &mut ready);
        }
        ready
    }

    fn take(&mut self, outcome: Outcome, seen: InputSeen, ready: &mut Vec<RowGroup>) {
        let index = self.filling;
        let todo = &self.args.todo[index];
        let keys = self.args.keys;
        let open = self
            .open
            .entry(index)
            .or_insert_with(|| OpenShard::new(todo.shard, keys.targets));
        // Clips arrive in plan order, so this clip is the first member that has not been received yet.
        let member = &keys.clips[todo.shard.members[todo.shard.members.len() - open.members_left]];
        open.members_left -= 1;
        open.inputs.insert(member.clip_key.clone(), seen);

        match outcome {
            Outcome::Rejected(reject) => open.rejects.push(reject),
            Outcome::Rows(rows) => {
                // Under the rule `segment` a shard may contain no row of one of its members.
                if !rows.is_empty() {
                    open.count_clip(member);
                }
                open.pending.extend(rows);
            }
        }

        let last = open.members_left == 0;
        let row_group_rows = keys.recipe.shards.row_group_rows;
        while let Some(n_rows) = next_group(open.pending.len(), row_group_rows, last) {
            let rest = open.pending.split_off(n_rows);
            ready.push(RowGroup {
                shard: index,
                number: open.groups_made,
                rows: std::mem::replace(&mut open.pending, rest),
                training: todo.shard.split == Split::Training.name(),
                // From now on the rows release their memory without further input, so a thread may wait for it.
                busy: self.args.budget.busy(),
            });
            open.groups_made += 1;
        }

        if last {
            self.filling += 1;
        }
    }

    /// Creates the files of a shard under temporary names, one per feature.
    fn create_files(&self, index: usize) -> Result<Vec<(ParquetFile, Vec<Partial>)>, StoreError> {
        let shard = self.args.todo[index].shard;
        let root = self.args.store.root();
        let mut files = Vec::with_capacity(self.args.formats.len());
        for format in self.args.formats {
            let path = shard.file(self.args.plan_id, &format.feature.name);
            let properties = format.properties.clone();
            let file = ParquetFile::create(root, path, &format.schema, properties)?;
            files.push((file, Vec::new()));
        }
        Ok(files)
    }

    /// Appends an encoded row group, or keeps it until the groups before it are appended.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be opened, or the file system or Parquet refuses the row group.
    pub fn encoded(&mut self, group: EncodedGroup) -> Result<(), StoreError> {
        let is_open = "a shard stays open until its last group is appended";
        if self.open.get(&group.shard).expect(is_open).files.is_empty() {
            let files = self.create_files(group.shard)?;
            self.open.get_mut(&group.shard).expect(is_open).files = files;
        }

        let open = self.open.get_mut(&group.shard).expect(is_open);
        // Groups are encoded in any order and appended in the order of the file.
        open.parked.insert(group.number, group);
        while let Some(group) = open.parked.remove(&open.groups_done) {
            open.groups_done += 1;
            for ((file, partials), feature) in open.files.iter_mut().zip(group.features) {
                partials.push(feature.partial.clone());
                file.append_feature(group.rows, feature)?;
            }
        }
        Ok(())
    }

    /// Finishes the files of every complete shard, except files that another worker of the plan has finished.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be completed, a receipt cannot be read, or the other worker read other inputs.
    pub fn finished(&mut self) -> Result<Vec<FinishedShard>, StoreError> {
        let complete = self.open.iter().filter(|(_, open)| open.is_complete());
        let indices: Vec<usize> = complete.map(|(index, _)| *index).collect();

        let mut finished = Vec::with_capacity(indices.len());
        for index in indices {
            let open = self.open.remove(&index).expect("listed above");
            finished.push(self.finish(index, open)?);
        }
        Ok(finished)
    }

    fn finish(&self, index: usize, open: OpenShard) -> Result<FinishedShard, StoreError> {
        let OpenShard {
            mut files,
            inputs,
            rejects,
            clips_written,
            class_counts,
            ..
        } = open;
        // A shard without rows has files, too.
        if files.is_empty() {
            files = self.create_files(index)?;
        }
        let shard = self.args.todo[index].shard;
        // The key is computed from the inputs as they were read now: a file may have changed since it was last seen.
        let keys = self.args.keys;
        let keys = keys.keys(shard, |clip_key| inputs.get(clip_key))?;
        let keys = keys.expect("every member was taken with its input");

        let is_computed = !shard
            .members
            .iter()
            .any(|row| self.args.taken.clips.contains_key(row));
        let label = shard.label();
        let (store, formats) = (self.args.store, self.args.formats);
        let mut finished = Vec::with_capacity(files.len());
        for (((file, mut partials), format), key) in files.into_iter().zip(formats).zip(keys) {
            // The file of another worker is not replaced. Its bytes are the same, unless a thread panicked.
            let feature = &format.feature.name;
            let found = store.receipt_with_file(self.args.plan_id, feature, &label)?;
            if let Some(found) = found {
                if found.key != key {
                    return Err(store.inputs_changed(&label));
                }
                finished.push(FinishedFile::Found(found));
                continue;
            }

            // Only rows of the training split are summed, so other files have no sums.
            if partials.iter().all(|partial| partial.values == 0) {
                partials.clear();
            }
            finished.push(FinishedFile::Written(Receipt {
                key,
                file: FileEntry {
                    feature: Some(feature.clone()),
                    split: Some(shard.split.clone()),
                    ..file.finish()?
                },
                rejects: rejects.clone(),
                features: self.args.features_id.to_owned(),
                is_computed,
                clips_written,
                partials,
                class_counts: class_counts.clone(),
            }));
        }
        Ok(FinishedShard {
            index,
            files: finished,
            inputs,
        })
    }
}
