//! Every input accounted for: rows read = kept + dropped + rejected, clips planned = written + rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde::Serialize;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::manifest::{
    Counts, Dropped, Engine, FeatureEntry, FileEntry, Identity, Manifest, Receipt, TargetEntry,
};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::{Reason, Reject};

use crate::batch::LaneTimes;
use crate::catalog::{Catalog, Duplicates};
use crate::course::Course;
use crate::plan::ShardPlan;
use crate::pool::Counters;
use crate::run::RunError;
use crate::settings::Limits;
use crate::shards::finish_stats;
use crate::source::{InputSeen, ReadFailure, Source};
use crate::store::Store;
use crate::tables::clip_rejects;

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
    /// Shards that an earlier run had finished, or that another version lent.
    pub shards_reused: usize,
    /// CPU seconds by stage.
    pub cpu_s: BTreeMap<&'static str, f64>,
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
    /// With `split.group_duplicates`: what it found.
    pub duplicates: Option<Duplicates>,
    /// What a person should know.
    pub warnings: Vec<String>,
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
            [&lanes.batches, &lanes.clips, &lanes.busy, &lanes.total].map(|n| n.load(Ordering::Relaxed));
        (batches > 0).then(|| Self { batches, clips, busy: busy as f64 / total.max(1) as f64 })
    }
}

impl Report {
    /// The latest version was made of just this. `warnings`: what its inputs tell today as they did then.
    #[must_use]
    pub fn nothing_to_do(version: u64, manifest: Manifest, warnings: Vec<String>) -> Self {
        Self { nothing_to_do: true, warnings, ..Self::committed(version, manifest, &Counters::default(), 0) }
    }

    /// A version was committed.
    #[must_use]
    pub fn committed(version: u64, manifest: Manifest, counters: &Counters, shards_reused: usize) -> Self {
        let times = &counters.times;
        let stages = [
            ("read", &times.read),
            ("decode", &times.decode),
            ("features", &times.features),
            ("encode", &times.encode),
        ];
        Self {
            version,
            nothing_to_do: false,
            plan_id: manifest.plan_id,
            counts: manifest.counts,
            files: manifest.files,
            wall_s: BTreeMap::new(),
            shards_reused,
            cpu_s: stages.map(|(name, ns)| (name, ns.load(Ordering::Relaxed) as f64 / 1e9)).into(),
            bytes_read: counters.bytes.load(Ordering::Relaxed),
            backend: manifest.engine.backend,
            device: DeviceReport::new(&counters.lanes),
            duplicates: None,
            warnings: Vec::new(),
        }
    }
}

/// Targets with their classes; counts come with the receipts.
#[must_use]
pub fn targets(recipe: &Recipe, catalog: &Catalog) -> Vec<TargetEntry> {
    let classes = |name: &str| catalog.classes.get(name).cloned().unwrap_or_default();
    let entry = |name: &String| TargetEntry { name: name.clone(), classes: classes(name), counts: BTreeMap::new() };
    recipe.targets.iter().map(|target| entry(&target.name)).collect()
}

/// What a manifest is made of, besides the recipe and what was counted.
pub struct Made {
    /// Its id.
    pub plan_id: String,
    /// The id's parts.
    pub identity: Identity,
    /// What computed.
    pub engine: Engine,
    /// With classes.
    pub targets: Vec<TargetEntry>,
    /// Metadata tables.
    pub files: Vec<FileEntry>,
    /// Rejects that belong neither to the main metadata file nor to a planned clip.
    pub others: Vec<Reject>,
}

/// The manifest of a finished plan; `receipts` in plan order.
///
/// # Errors
/// [`RunError::Accounting`] when the sums do not agree.
pub fn manifest(
    made: Made,
    recipe: Recipe,
    catalog: &Catalog,
    plan: &ShardPlan,
    features: &[FeatureEntry],
    receipts: &[Receipt],
) -> Result<Manifest, RunError> {
    let Made { plan_id, identity, engine, mut targets, mut files, others } = made;
    for (index, target) in targets.iter_mut().enumerate() {
        for (shard, receipt) in plan.shards.iter().zip(receipts) {
            let counts = target.counts.entry(shard.split.clone()).or_insert_with(|| vec![0; target.classes.len()]);
            let written = receipt.class_counts.get(index).map(Vec::as_slice).unwrap_or_default();
            counts.iter_mut().zip(written).for_each(|(count, n)| *count += n);
        }
    }
    let mut stats = BTreeMap::new();
    for (index, feature) in features.iter().enumerate() {
        files.extend(receipts.iter().filter_map(|receipt| receipt.files.get(index).cloned()));
        let partials = receipts.iter().filter_map(|r| r.partials.get(&feature.name)).flatten();
        stats.extend(finish_stats(partials).map(|found| (feature.name.clone(), found)));
    }
    if let Some(path) = named_twice(&files) {
        return Err(RunError::Accounting { what: format!("{path} is the file of two shards") });
    }
    let mut counts = counts(catalog, plan, &files, features, receipts)?;
    count_reasons(&mut counts.rejects, &others);
    let features = features.to_vec();
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        plan_id,
        identity,
        engine,
        recipe,
        targets,
        features,
        files,
        counts,
        stats,
    })
}

fn named_twice(files: &[FileEntry]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    files.iter().map(|file| file.path.as_str()).find(|path| !seen.insert(*path))
}

fn counts(
    catalog: &Catalog,
    plan: &ShardPlan,
    files: &[FileEntry],
    features: &[FeatureEntry],
    receipts: &[Receipt],
) -> Result<Counts, RunError> {
    let mut rejects = BTreeMap::new();
    count_reasons(&mut rejects, catalog.rejects.iter().chain(clip_rejects(receipts)));
    let rows_of = |feature: &FeatureEntry| -> u64 {
        files.iter().filter(|f| f.feature.as_ref() == Some(&feature.name)).map(|f| f.rows).sum()
    };
    let clips_rejected = clip_rejects(receipts).count() as u64;
    let rows: Vec<u64> = features.iter().map(rows_of).collect();
    let counts = Counts {
        rows_read: catalog.rows_read,
        rows_kept: catalog.clips.len() as u64,
        rows_dropped: catalog.steps.iter().map(|s| Dropped { step: s.step.clone(), rows: s.dropped }).collect(),
        rows_rejected: catalog.rejects.iter().filter(|r| is_row(r.reason)).count() as u64,
        clips_planned: plan.planned.len() as u64,
        clips_written: plan.planned.len() as u64 - clips_rejected,
        clips_rejected,
        feature_rows: rows.first().copied().unwrap_or(0),
        rejects,
    };
    check(&counts, plan, &rows, receipts)?;
    Ok(counts)
}

fn count_reasons<'a>(counts: &mut BTreeMap<String, u64>, rejects: impl IntoIterator<Item = &'a Reject>) {
    for reject in rejects {
        *counts.entry(reject.reason.name().to_owned()).or_default() += 1;
    }
}

const fn is_row(reason: Reason) -> bool {
    matches!(reason, Reason::BadRow | Reason::BadEncoding)
}

fn check(counts: &Counts, plan: &ShardPlan, rows: &[u64], receipts: &[Receipt]) -> Result<(), RunError> {
    let wrong = |what: String| Err(RunError::Accounting { what });
    let dropped: u64 = counts.rows_dropped.iter().map(|d| d.rows).sum();
    let Counts { rows_read, rows_kept, rows_rejected, clips_planned, clips_rejected, .. } = *counts;
    if rows_read != rows_kept + dropped + rows_rejected {
        return wrong(format!(
            "{rows_read} rows read, {rows_kept} kept + {dropped} dropped + {rows_rejected} rejected"
        ));
    }
    if rows.iter().any(|n| *n != counts.feature_rows) {
        return wrong(format!("features differ in rows: {rows:?}"));
    }
    // Under the rule `segment` a clip is a member of several shards; elsewhere of exactly one.
    let members: usize = plan.shards.iter().map(|s| s.members.len()).sum();
    let written: u64 = receipts.iter().map(|r| r.clips_written).sum();
    if members == plan.planned.len() && written + clips_rejected != clips_planned {
        return wrong(format!("{clips_planned} clips planned, {written} written + {clips_rejected} rejected"));
    }
    Ok(())
}

/// Clips rejected so far, each once, those of earlier runs of the plan among them.
#[derive(Debug, Default)]
pub struct Rejected {
    clip_keys: BTreeSet<String>,
    rejects: Vec<Reject>,
}

impl Rejected {
    /// What finished shards say.
    pub fn of<'a>(receipts: impl IntoIterator<Item = &'a Receipt>) -> Self {
        let mut rejected = Self::default();
        receipts.into_iter().flat_map(|receipt| &receipt.rejects).for_each(|reject| rejected.insert(reject));
        rejected
    }

    fn insert(&mut self, reject: &Reject) {
        if self.clip_keys.insert(reject.clip_key.clone().unwrap_or_default()) {
            self.rejects.push(reject.clone());
        }
    }

    /// Counts one more.
    ///
    /// # Errors
    /// [`RunError::TooManyRejects`] as soon as the run cannot be committed any more.
    pub fn add(&mut self, reject: &Reject, limits: &Limits) -> Result<(), RunError> {
        self.insert(reject);
        let (planned, fraction) = (limits.planned, limits.reject_fraction);
        if self.rejects.len() as f64 <= fraction * planned as f64 {
            return Ok(());
        }
        Err(RunError::TooManyRejects { planned, fraction, rejects: std::mem::take(&mut self.rejects), list: None })
    }
}

/// Once more before the commit: shards of earlier runs bring rejects of their own.
///
/// # Errors
/// [`RunError::TooManyRejects`].
pub fn check_rejects(receipts: &[Receipt], limits: &Limits) -> Result<(), RunError> {
    let mut rejected = Rejected::default();
    clip_rejects(receipts).try_for_each(|reject| rejected.add(reject, limits))
}

/// Clips of a version whose files changed although their sizes did not: those whose stamp differs are read again and
/// their content compared.
///
/// # Errors
/// [`RunError::Store`] when receipts cannot be listed, [`RunError::Read`] when a clip cannot be read,
/// [`RunError::Stopped`].
pub fn stale_inputs(
    store: &Store,
    manifest: &Manifest,
    source: &dyn Source,
    course: &Course,
) -> Result<Vec<String>, RunError> {
    let mut stale = Vec::new();
    let mut bytes = Vec::new();
    // Under the rule `segment` several receipts name a clip.
    let inputs: BTreeMap<_, _> = store.receipts(&manifest.plan_id)?.into_values().flat_map(|r| r.inputs).collect();
    for (clip_key, seen) in inputs {
        let Ok(seen) = serde_json::from_value::<InputSeen>(seen) else { continue };
        if source.index().get(&clip_key).copied() == seen.id {
            continue;
        }
        if course.is_stopped() {
            return Err(RunError::Stopped { phase: course.phase() });
        }
        let content = match source.read(&clip_key, &mut bytes) {
            Ok(()) => blake3::hash(&bytes).to_hex().to_string(),
            Err(ReadFailure::Reject(_)) => String::new(),
            Err(ReadFailure::Io(source)) => return Err(RunError::Read { clip_key, source }),
        };
        if content != seen.content {
            stale.push(clip_key);
        }
    }
    Ok(stale)
}
