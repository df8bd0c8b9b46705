//! A planned version: what its workers and its commit need besides the shards' clips and receipts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wavemill_catalog::{Duplicates, FileAccount};
use wavemill_schemas::manifest::{Dropped, Engine, FeatureEntry, FileEntry, Identity, TargetEntry};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::Reject;
use wavemill_store::{Store, StoreError};

use super::{FileReuse, SplitChanges};

/// File of [`PlannedWork`] in the folder of a stored plan. It is written last.
const WORK_FILE: &str = "plan.json";
/// File of [`PlannedCommit`] in the folder of a stored plan.
const COMMIT_FILE: &str = "commit.json";

/// A version whose tables are written.
pub(super) struct PlannedVersion {
    pub plan_id: String,
    pub work: PlannedWork,
    pub commit: PlannedCommit,
}

/// The part of a planned version that each worker reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlannedWork {
    /// Number of the version.
    pub version: u64,
    /// Hashes that identify the plan, including the parent's hash.
    pub identity: Identity,
    /// The engine that all workers must have.
    pub engine: Engine,
    pub recipe: Recipe,
    /// The targets with their classes, without numbers of clips.
    pub targets: Vec<TargetEntry>,
    /// Folder or zip with the audio.
    pub audio: PathBuf,
    /// Path of the audio root relative to the folder `audio`.
    pub audio_root: String,
    pub recompute: bool,
    pub clips_planned: u64,
    /// Maximum fraction of planned clips that may be rejected.
    pub reject_fraction: f64,
    /// Number of shards.
    pub shards: usize,
    /// Files of the shards' clips; empty unless the plan is stored.
    pub blocks: Vec<FileEntry>,
}

/// The part of a planned version that only the commit reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlannedCommit {
    pub features: Vec<FeatureEntry>,
    /// Number of shards of each split, including shards without a clip.
    pub shards: BTreeMap<String, u64>,
    /// Metadata tables, in the manifest's order.
    pub tables: Vec<FileEntry>,
    pub account: InputAccount,
    /// Account of the files below the audio root: which ones are used, and why the others are not.
    pub files: FileAccount,
    pub duplicates: Option<Duplicates>,
    /// Changes of the tracks' splits since the parent, if there is one.
    pub sides: Option<SplitChanges>,
    /// Numbers of feature files that existed already, are rewritten or are new.
    pub reuse: FileReuse,
}

/// Account of the inputs: which rows became clips, and which records were rejected.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InputAccount {
    pub rows_read: u64,
    pub rows_kept: u64,
    pub rows_dropped: Vec<Dropped>,
    /// Rejected rows of the main metadata file.
    pub rejects: Vec<Reject>,
    /// Rejects that belong neither to the main metadata file nor to a planned clip.
    pub other_rejects: Vec<Reject>,
    pub clips_planned: u64,
    /// Number of members of all shards. Under the rule `segment`, a clip is a member of several shards.
    pub members: u64,
}

impl PlannedVersion {
    /// Writes the plan, whose blocks are written already.
    pub(super) fn store(&self, store: &Store) -> Result<(), StoreError> {
        store.send_tables(&self.commit.tables)?;
        store.write_planned(&self.plan_id, COMMIT_FILE, &self.commit)?;
        store.write_planned(&self.plan_id, WORK_FILE, &self.work)
    }

    /// Makes a stored plan incomplete before it is written again.
    pub(super) fn invalidate(store: &Store, plan_id: &str) -> Result<(), StoreError> {
        store.remove_planned(plan_id, WORK_FILE)?;
        store.remove_claims(plan_id)
    }

    /// Completes a stored plan whose `work` was read.
    pub(super) fn read(
        store: &Store,
        plan_id: &str,
        work: PlannedWork,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            plan_id: plan_id.to_owned(),
            work,
            commit: store.planned(plan_id, COMMIT_FILE)?,
        })
    }
}

impl PlannedWork {
    /// Reads the part of a stored plan that each worker needs.
    pub(super) fn read(store: &Store, plan_id: &str) -> Result<Self, StoreError> {
        store.planned(plan_id, WORK_FILE)
    }
}
