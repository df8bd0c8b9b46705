//! What a run did, for people and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde::Serialize;
use wavemill_schemas::manifest::{Counts, FileEntry, Manifest};

use super::moves::SideChanges;
use super::plan::Plan;
use crate::catalog::{Duplicates, FileAccount};
use crate::extract::{Counters, LaneTimes, WorkerTimes};
use crate::shards::FinishedShards;
use crate::store::Parent;

/// What a run did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version that now holds what was asked for.
    pub version: u64,
    /// True: it was there already.
    pub nothing_to_do: bool,
    /// Its plan.
    pub plan_id: String,
    /// Every input accounted for.
    pub counts: Counts,
    /// Which files of features had to be written.
    #[serde(flatten)]
    pub reuse: FileReuse,
    /// Files of features and tables that were written and came out equal to those of the version before: they are links to
    /// these now.
    pub files_equal: usize,
    /// Clips that were decoded, or at least read; one for each set of features that is computed by itself.
    pub clips_decoded: u64,
    /// Rows that were taken over from the version before, counted for every feature.
    pub rows_taken_over: u64,
    /// CPU seconds by stage.
    pub cpu_s: BTreeMap<&'static str, f64>,
    /// The part of their time, 0 to 1, in which workers worked on a clip or a row group. The rest is waiting: for readers,
    /// memory or a device, or because there are few clips. `None` where there was nothing to extract.
    pub workers_busy: Option<f64>,
    /// Wall seconds by phase: `metadata`, `cleaning`, …, `clips`, `commit`.
    pub wall_s: BTreeMap<&'static str, f64>,
    /// The version's files.
    #[serde(skip)]
    pub files: Vec<FileEntry>,
    /// Compressed bytes read.
    pub bytes_read: u64,
    /// What computed features, as the manifest's engine names it.
    pub backend: String,
    /// Where that was a device: what it had to do.
    pub device: Option<DeviceReport>,
    /// The fate of every file below the audio root.
    pub files_found: FileAccount,
    /// With `split.group_duplicates`: what it found.
    pub duplicates: Option<Duplicates>,
    /// How sides differ from those of the version before, where there is one.
    pub sides: Option<SideChanges>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Files of features: one for each feature of each shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileReuse {
    /// Those that an earlier run had finished, or that another version lent.
    pub shards_reused: usize,
    /// Those that the version before has too, with other bytes.
    pub files_rewritten: usize,
    /// All others.
    pub files_new: usize,
}

impl FileReuse {
    /// What is to be written beside what is `finished`.
    pub(super) fn of(finished: &FinishedShards, plan: &Plan<'_>, parent: Option<&Parent>) -> Self {
        // Files are known by feature, split and number.
        let files = parent.into_iter().flat_map(|parent| &parent.manifest.files);
        let of_parent: BTreeSet<&str> = files.filter_map(|file| below_plan(&file.path)).collect();

        let mut reuse = Self {
            shards_reused: finished.n_done(),
            ..Self::default()
        };
        for (place, shard) in plan.shard_plan.shards.iter().enumerate() {
            let receipts = finished.of_shard(place).iter();
            for (receipt, feature) in receipts.zip(plan.features.entries()) {
                let path = shard.file("", &feature.name);
                match receipt {
                    Some(_) => {}
                    None if below_plan(&path).is_some_and(|path| of_parent.contains(path)) => {
                        reuse.files_rewritten += 1;
                    }
                    None => reuse.files_new += 1,
                }
            }
        }
        reuse
    }
}

/// A path without `data/<plan_id>/`.
fn below_plan(path: &str) -> Option<&str> {
    path.splitn(3, '/').nth(2)
}

/// How much a device had to do.
#[derive(Debug, Serialize)]
pub struct DeviceReport {
    /// Batches of clips.
    pub batches: u64,
    /// Clips in them.
    pub clips: u64,
    /// The part of their time that lanes spent in batches, copies included; the rest is waiting for decoders.
    pub busy: f64,
}

impl DeviceReport {
    /// `None` where no lane computed anything.
    fn new(lanes: &LaneTimes) -> Option<Self> {
        let [batches, clips, busy, total] =
            [&lanes.batches, &lanes.clips, &lanes.busy, &lanes.total]
                .map(|n| n.load(Ordering::Relaxed));
        (batches > 0).then(|| Self {
            batches,
            clips,
            busy: busy as f64 / total.max(1) as f64,
        })
    }
}

/// `None` where no worker ran.
fn busy_part(workers: &WorkerTimes) -> Option<f64> {
    let waiting = workers.waiting.load(Ordering::Relaxed);
    let total = workers.total.load(Ordering::Relaxed);
    (total > 0).then(|| 1.0 - waiting as f64 / total as f64)
}

impl Report {
    /// The latest version was made of just this. `warnings`: what its inputs tell today as they did then.
    pub fn nothing_to_do(version: u64, manifest: Manifest, warnings: Vec<String>) -> Self {
        Self {
            nothing_to_do: true,
            warnings,
            ..Self::committed(
                version,
                manifest,
                &Counters::default(),
                FileReuse::default(),
            )
        }
    }

    /// A version was committed.
    pub fn committed(
        version: u64,
        manifest: Manifest,
        counters: &Counters,
        reuse: FileReuse,
    ) -> Self {
        let times = &counters.times;
        let stages = [
            ("read", &times.read),
            ("decode", &times.decode),
            ("features", &times.features),
            ("encode", &times.encode),
            ("take", &times.take),
        ];

        Self {
            version,
            nothing_to_do: false,
            plan_id: manifest.plan_id,
            counts: manifest.counts,
            files: manifest.files,
            wall_s: BTreeMap::new(),
            reuse,
            files_equal: 0,
            clips_decoded: counters.clips_read.load(Ordering::Relaxed),
            rows_taken_over: counters.rows_taken.load(Ordering::Relaxed),
            cpu_s: stages
                .map(|(name, ns)| (name, ns.load(Ordering::Relaxed) as f64 / 1e9))
                .into(),
            workers_busy: busy_part(&counters.workers),
            bytes_read: counters.bytes.load(Ordering::Relaxed),
            backend: manifest.engine.backend,
            device: DeviceReport::new(&counters.lanes),
            files_found: FileAccount::default(),
            duplicates: None,
            sides: None,
            warnings: Vec::new(),
        }
    }
}
