//! The report of a run, for users and programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use wavemill_catalog::{Duplicates, FileAccount};
use wavemill_schemas::manifest::{Counts, FileEntry, Manifest};
use wavemill_store::Parent;
use wavemill_store::shards::FinishedShards;

use crate::incremental::moves::SplitChanges;
use crate::incremental::plan::Plan;
use crate::threads::{Counters, LaneTimes, WorkerTimes};

/// The report of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Number of the version that contains the result.
    pub version: u64,
    /// True if the version existed already, so that there was nothing to do.
    pub nothing_to_do: bool,
    /// Id of the plan of the version.
    pub plan_id: String,
    /// Numbers of inputs by outcome; every input is counted.
    pub counts: Counts,
    /// Numbers of feature files that were reused, rewritten or created.
    #[serde(flatten)]
    pub reuse: FileReuse,
    /// Number of written feature files and tables that are equal to files of the previous version and were replaced by
    /// links to them.
    pub files_equal: usize,
    /// Number of clips that were decoded, or at least read. A clip counts once for each set of features that is
    /// computed separately.
    pub clips_decoded: u64,
    /// Number of rows that were copied from the previous version, counted for every feature.
    pub rows_taken_over: u64,
    /// CPU seconds by stage.
    pub cpu_s: BTreeMap<&'static str, f64>,
    /// Fraction of time, 0 to 1, that workers spent on clips and row groups. Otherwise they waited for readers, memory
    /// or a device, or there were too few clips. `None` if there was nothing to extract.
    pub workers_busy: Option<f64>,
    /// Wall-clock seconds by phase: `metadata`, `cleaning`, …, `clips`, `commit`.
    pub wall_s: BTreeMap<&'static str, f64>,
    /// All files of the version.
    #[serde(skip)]
    pub files: Vec<FileEntry>,
    /// Numbers of dropped rows with the reason, such as `16 without a genre`.
    #[serde(skip)]
    pub dropped: Vec<String>,
    /// Number of compressed bytes read.
    pub bytes_read: u64,
    /// The backend that computed the features, as named in the manifest's engine.
    pub backend: String,
    /// Use of the device (GPU), if a device computed the features.
    pub device: Option<DeviceReport>,
    /// Account of the files below the audio root: which ones are used, and why the others are not.
    pub files_found: FileAccount,
    /// The duplicates that were found, if `split.group_duplicates` is set.
    pub duplicates: Option<Duplicates>,
    /// Changes of the tracks' splits since the previous version, if there is one.
    pub sides: Option<SplitChanges>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Numbers of feature files. There is one file per feature and shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReuse {
    /// Number of files that an earlier run had finished, or that are linked from another version.
    pub shards_reused: usize,
    /// Number of files that exist in the previous version with other contents.
    pub files_rewritten: usize,
    /// Number of all other files.
    pub files_new: usize,
}

impl FileReuse {
    /// Counts the `finished` files, and divides the files that remain to be written into rewritten and new ones.
    pub(super) fn classify(
        finished: &FinishedShards,
        plan: &Plan<'_>,
        parent: Option<&Parent>,
    ) -> Self {
        // Files are identified by feature, split and number.
        let files = parent.into_iter().flat_map(|parent| &parent.manifest.files);
        let of_parent: BTreeSet<&str> = files.filter_map(|file| below_plan(&file.path)).collect();

        let mut reuse = Self {
            shards_reused: finished.n_done(),
            ..Self::default()
        };
        for (place, shard) in plan.shard_plan.shards.iter().enumerate() {
            let receipts = finished.receipts_of_shard(place).iter();
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

/// Removes `data/<plan_id>/` from a path.
fn below_plan(path: &str) -> Option<&str> {
    path.splitn(3, '/').nth(2)
}

/// Use of a device (GPU) during a run.
#[derive(Debug, Serialize)]
pub struct DeviceReport {
    /// Number of batches that the device computed.
    pub batches: u64,
    /// Number of clips in the batches that the device computed.
    pub clips: u64,
    /// Number of clips that were too large for the device, and were computed on the CPU.
    pub cpu_clips: u64,
    /// Fraction of time that the device's threads spent on batches, with copies. Otherwise they waited for decoders.
    pub busy: f64,
}

impl DeviceReport {
    /// Creates the report from the times of a device's threads. Returns `None` if they computed no clip.
    fn new(lanes: &LaneTimes) -> Option<Self> {
        let counts = [&lanes.batches, &lanes.clips, &lanes.cpu_clips];
        let [batches, clips, cpu_clips] = counts.map(|n| n.load(Ordering::Relaxed));
        let [busy, total] = [&lanes.busy, &lanes.total].map(|n| n.load(Ordering::Relaxed));
        (batches + cpu_clips > 0).then(|| Self {
            batches,
            clips,
            cpu_clips,
            busy: busy as f64 / total.max(1) as f64,
        })
    }
}

/// Returns the fraction of time in which workers were busy; `None` if no worker ran.
fn busy_part(workers: &WorkerTimes) -> Option<f64> {
    let waiting = workers.waiting.load(Ordering::Relaxed);
    let total = workers.total.load(Ordering::Relaxed);
    (total > 0).then(|| 1.0 - waiting as f64 / total as f64)
}

impl Report {
    /// Creates the report for a latest version that was made from exactly these inputs. `warnings` are about the
    /// inputs, and are reported again by every run.
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

    /// Creates the report of a committed version.
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

        let dropped = manifest.counts.rows_dropped.iter();
        let dropped = dropped.filter(|dropped| dropped.rows > 0).map(|dropped| {
            let reason = manifest.recipe.reason_of_drop(&dropped.step);
            format!("{} {reason}", dropped.rows)
        });

        Self {
            version,
            dropped: dropped.collect(),
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
