//! Outcomes in any order → plan order → row groups → files and receipts. Runs on one thread; encodes nothing itself.

use std::collections::BTreeMap;
use std::path::Path;

use wavemill_schemas::manifest::{Partial, Receipt};
use wavemill_schemas::reject::Reject;

use super::ShardError;
use super::encode::{EncodedGroup, Format, RowGroup};
use super::file::ShardFile;
use super::rows::FeatureRow;
use crate::budget::{ByteBudget, Permit};
use crate::catalog::ClipRow;
use crate::catalog::split::SIDES;
use crate::plan::Shard;
use crate::pool::Work;
use crate::source::InputSeen;

/// What became of one clip.
#[derive(Debug)]
pub enum Outcome {
    /// Its segments; none where the rule `segment` puts them all on other sides.
    Rows(Vec<FeatureRow>),
    /// Counted out.
    Rejected(Reject),
}

impl Outcome {
    /// The reject, where it is one.
    #[must_use]
    pub const fn reject(&self) -> Option<&Reject> {
        match self {
            Self::Rejected(reject) => Some(reject),
            Self::Rows(_) => None,
        }
    }

    /// Tells the budget that the writing thread has it.
    pub fn taken(&self) {
        if let Self::Rows(rows) = self {
            rows.iter().filter_map(|row| row.audio.permit.as_ref()).for_each(Permit::taken);
        }
    }
}

/// A shard that is to be written, with its key.
#[derive(Debug)]
pub struct Todo<'a> {
    /// Index into the plan's shards.
    pub place: usize,
    /// From the plan.
    pub shard: &'a Shard,
    /// See [`super::shard_key`].
    pub key: String,
}

/// Writes the shards of `todo`, one clip after the other in plan order.
pub struct ShardWriter<'a> {
    root: &'a Path,
    plan_id: &'a str,
    formats: &'a [Format],
    clips: &'a [ClipRow],
    todo: &'a [Todo<'a>],
    class_sizes: &'a [usize],
    budget: &'a ByteBudget,
    row_group_rows: usize,
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
    files: Vec<ShardFile>,
    receipt: Receipt,
}

impl<'a> ShardWriter<'a> {
    /// A writer into the plan's folder of the store at `root`.
    #[must_use]
    pub fn new((root, plan_id): (&'a Path, &'a str), work: &'a Work<'_>, row_group_rows: usize) -> Self {
        Self {
            root,
            plan_id,
            formats: work.formats,
            clips: work.clips,
            todo: work.todo,
            class_sizes: work.class_sizes,
            budget: &work.budget,
            row_group_rows,
            parked: BTreeMap::new(),
            next: 0,
            filling: 0,
            open: BTreeMap::new(),
        }
    }

    /// Takes the outcome of clip number `seq` (over all shards of `todo`, in plan order) and returns the row groups
    /// that are now ready to be encoded, and receipts of shards that ended without a row.
    ///
    /// # Errors
    /// [`ShardError`] when a file cannot be opened or ended.
    pub fn outcome(&mut self, seq: usize, outcome: Outcome, seen: InputSeen) -> Result<Vec<RowGroup>, ShardError> {
        self.parked.insert(seq, (outcome, seen));
        let mut ready = Vec::new();
        while let Some((outcome, seen)) = self.parked.remove(&self.next) {
            self.next += 1;
            self.take(outcome, seen, &mut ready)?;
        }
        Ok(ready)
    }

    fn take(&mut self, outcome: Outcome, seen: InputSeen, ready: &mut Vec<RowGroup>) -> Result<(), ShardError> {
        let index = self.filling;
        let todo = &self.todo[index];
        if !self.open.contains_key(&index) {
            let shard = self.open_shard(index)?;
            self.open.insert(index, shard);
        }
        let open = self.open.get_mut(&index).expect("opened above");
        let member = &self.clips[todo.shard.members[todo.shard.members.len() - open.members_left]];
        open.members_left -= 1;
        open.receipt.inputs.insert(member.clip_key.clone(), serde_json::to_value(&seen)?);
        match outcome {
            Outcome::Rejected(reject) => open.receipt.rejects.push(reject),
            Outcome::Rows(rows) => {
                if !rows.is_empty() {
                    open.receipt.clips_written += 1;
                    for (counts, class) in open.receipt.class_counts.iter_mut().zip(&member.targets) {
                        if let Some(count) = class.and_then(|c| counts.get_mut(c as usize)) {
                            *count += 1;
                        }
                    }
                }
                open.pending.extend(rows);
            }
        }
        let last = open.members_left == 0;
        while open.pending.len() >= self.row_group_rows || (last && !open.pending.is_empty()) {
            let rest = open.pending.split_off(self.row_group_rows.min(open.pending.len()));
            let rows = std::mem::replace(&mut open.pending, rest);
            let training = todo.shard.split == SIDES[0];
            let busy = self.budget.busy();
            ready.push(RowGroup { shard: index, number: open.groups_made, rows, training, busy });
            open.groups_made += 1;
        }
        if last {
            self.filling += 1;
        }
        Ok(())
    }

    fn open_shard(&self, index: usize) -> Result<OpenShard, ShardError> {
        let Todo { shard, key, .. } = &self.todo[index];
        let create =
            |format: &Format| ShardFile::create(self.root, shard.file(self.plan_id, &format.feature.name), format);
        let partials = self.formats.iter().map(|f| (f.feature.name.clone(), Vec::new())).collect();
        Ok(OpenShard {
            members_left: shard.members.len(),
            pending: Vec::new(),
            groups_made: 0,
            groups_done: 0,
            parked: BTreeMap::new(),
            files: self.formats.iter().map(create).collect::<Result<_, _>>()?,
            receipt: Receipt {
                key: key.clone(),
                files: Vec::new(),
                rejects: Vec::new(),
                clips_written: 0,
                partials,
                class_counts: self.class_sizes.iter().map(|&n| vec![0; n]).collect(),
                inputs: BTreeMap::new(),
            },
        })
    }

    /// Appends an encoded row group as soon as its turn has come.
    ///
    /// # Errors
    /// [`ShardError`] when the file system or Parquet refuses.
    pub fn encoded(&mut self, group: EncodedGroup) -> Result<(), ShardError> {
        let open = self.open.get_mut(&group.shard).expect("a shard stays open until its last group is appended");
        open.parked.insert(group.number, group);
        while let Some(group) = open.parked.remove(&open.groups_done) {
            open.groups_done += 1;
            for ((file, format), feature) in open.files.iter_mut().zip(self.formats).zip(group.features) {
                let partials = open.receipt.partials.get_mut(&format.feature.name);
                partials.expect("one list a feature").push(feature.partial.clone());
                file.append(group.rows, feature)?;
            }
        }
        Ok(())
    }

    /// Ends every shard that is complete, and returns its index with its receipt.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn finished(&mut self) -> Result<Vec<(usize, Receipt)>, ShardError> {
        let complete = |open: &OpenShard| open.members_left == 0 && open.groups_done == open.groups_made;
        let indices: Vec<usize> = self.open.iter().filter(|(_, o)| complete(o)).map(|(i, _)| *i).collect();
        let mut receipts = Vec::with_capacity(indices.len());
        for index in indices {
            let OpenShard { files, mut receipt, .. } = self.open.remove(&index).expect("listed above");
            for (file, format) in files.into_iter().zip(self.formats) {
                receipt.files.push(file.finish(&self.todo[index].shard.split, &format.feature.name)?);
            }
            if receipt.partials.values().flatten().all(|p: &Partial| p.values == 0) {
                receipt.partials.clear();
            }
            receipts.push((index, receipt));
        }
        Ok(receipts)
    }
}
