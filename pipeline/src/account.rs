//! Every input accounted for: rows read = kept + dropped + rejected, clips planned = written + rejected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Serialize;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::manifest::{
    Counts, Dropped, Engine, FeatureEntry, FileEntry, Identity, Manifest, Receipt, TargetEntry,
};
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::reject::{Reason, Reject};

use crate::catalog::{Catalog, Duplicates};
use crate::decode::Pcm;
use crate::features::FeaturePlan;
use crate::plan::ShardPlan;
use crate::pool::{Counters, Work};
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
    /// Compressed bytes read.
    pub bytes_read: u64,
    /// With `split.group_duplicates`: what it found.
    pub duplicates: Option<Duplicates>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl Report {
    /// The latest version was made of just this.
    #[must_use]
    pub fn nothing_to_do(version: u64, manifest: Manifest) -> Self {
        Self { nothing_to_do: true, ..Self::committed(version, manifest, &Counters::default(), 0) }
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
            shards_reused,
            cpu_s: stages.map(|(name, ns)| (name, ns.load(Ordering::Relaxed) as f64 / 1e9)).into(),
            bytes_read: counters.bytes.load(Ordering::Relaxed),
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

/// Fails as soon as so many clips are rejected that the run cannot be committed any more.
///
/// # Errors
/// [`RunError::TooManyRejects`].
pub fn too_many_rejects(work: &Work<'_>, limits: &Limits, reject: Option<&Reject>) -> Result<(), RunError> {
    let rejected = work.counters.rejects.load(Ordering::Relaxed);
    let Some(reject) = reject.filter(|_| rejected as f64 > limits.reject_fraction * limits.planned as f64) else {
        return Ok(());
    };
    Err(RunError::TooManyRejects {
        rejected,
        planned: limits.planned,
        fraction: limits.reject_fraction,
        clip_key: reject.clip_key.clone().unwrap_or_default(),
        reason: reject.reason.name(),
        detail: reject.detail.clone(),
    })
}

/// Clips of a version whose files changed although their sizes did not: those whose stamp differs are read again and
/// their content compared.
///
/// # Errors
/// [`RunError::Store`] when receipts cannot be listed.
pub fn stale_inputs(
    store: &Store,
    manifest: &Manifest,
    source: &dyn Source,
    features: &FeaturePlan,
) -> Result<Vec<String>, RunError> {
    let mut stale = Vec::new();
    let (mut decoder, mut pcm, mut bytes) = (features.decoder()?, Pcm::default(), Vec::new());
    for (clip_key, seen) in store.receipts(&manifest.plan_id)?.into_values().flat_map(|r| r.inputs) {
        let Ok(seen) = serde_json::from_value::<InputSeen>(seen) else { continue };
        if source.index().get(&clip_key).copied() == seen.id {
            continue;
        }
        let content = match source.read(&clip_key, &mut bytes) {
            Err(ReadFailure::Io(_)) => continue,
            Err(ReadFailure::Reject(_)) => String::new(),
            Ok(()) => {
                let extension = Path::new(&clip_key).extension().and_then(|e| e.to_str()).unwrap_or_default();
                match decoder.decode(extension, &bytes, &mut pcm) {
                    Ok(()) => pcm.audio_blake3.clone(),
                    Err(_) => blake3::hash(&bytes).to_hex().to_string(),
                }
            }
        };
        if content != seen.content {
            stale.push(clip_key);
        }
    }
    Ok(stale)
}
