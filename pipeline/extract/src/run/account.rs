//! Accounts for every input: rows read = kept + dropped + rejected, clips planned = written + rejected.

use std::collections::{BTreeMap, BTreeSet};

use wavemill_catalog::Catalog;
use wavemill_schemas::FORMAT_VERSION;
use wavemill_schemas::manifest::{Counts, Dropped, FeatureEntry, FileEntry, Manifest};
use wavemill_schemas::reject::Reject;
use wavemill_store::plan::ShardPlan;
use wavemill_store::shards::FinishedShards;
use wavemill_store::tensors;

use super::planned::{InputAccount, PlannedVersion, PlannedWork};
use crate::error::ExtractError;
use crate::threads::RejectTally;

/// Index of the feature from which counts are taken. All features have rows of the same clips and reject the others.
const FIRST: usize = 0;

/// Accounts for the inputs of a planned version. Moves the rejects out of the catalog.
pub(super) fn of_inputs(
    catalog: &mut Catalog,
    other_rejects: Vec<Reject>,
    shard_plan: &ShardPlan,
) -> InputAccount {
    let mut rows_dropped = Vec::with_capacity(catalog.steps.len());
    for step in &catalog.steps {
        rows_dropped.push(Dropped {
            step: step.step.clone(),
            rows: step.dropped,
        });
    }

    let members = shard_plan.shards.iter().map(|s| s.members.len() as u64);
    InputAccount {
        rows_read: catalog.rows_read,
        rows_kept: catalog.clips.len() as u64,
        rows_dropped,
        rejects: std::mem::take(&mut catalog.rejects),
        other_rejects,
        clips_planned: shard_plan.planned.len() as u64,
        members: members.sum(),
    }
}

/// Creates the manifest of a version whose shards are `finished`. `tables` are its metadata tables, in the manifest's
/// order.
///
/// # Errors
/// [`ExtractError::inconsistent`] if the sums do not match.
pub(super) fn manifest(
    planned: &PlannedVersion,
    tables: Vec<FileEntry>,
    finished: &FinishedShards,
) -> Result<Manifest, ExtractError> {
    let PlannedVersion {
        plan_id,
        work,
        commit,
    } = planned;
    let features = &commit.features;

    let mut targets = work.targets.clone();
    for (index, target) in targets.iter_mut().enumerate() {
        target.counts = class_counts(index, target.classes.len(), finished);
    }

    // Files are ordered by feature, and within a feature in plan order: the loader reads them in this order.
    let mut files = tables;
    let mut stats = BTreeMap::new();
    for (index, feature) in features.iter().enumerate() {
        let of_feature = finished.of_feature(index);
        files.extend(of_feature.map(|receipt| receipt.file.clone()));

        let partials = finished.of_feature(index).flat_map(|r| &r.partials);
        if let Some(found) = tensors::stats::finish(partials) {
            stats.insert(feature.name.clone(), found);
        }
    }

    // Of two files with the same path, the later one would have replaced the earlier one.
    if let Some(path) = named_twice(&files) {
        let what = format!("{path} belongs to two shards");
        return Err(ExtractError::inconsistent(&what));
    }

    let mut counts = counts(&commit.account, &files, features, finished)?;
    // These rejects are added after the check, because they are neither rows of the tracks nor planned clips.
    count_reasons(&mut counts.rejects, &commit.account.other_rejects);

    Ok(Manifest {
        format_version: FORMAT_VERSION,
        plan_id: plan_id.clone(),
        identity: work.identity.clone(),
        engine: work.engine.clone(),
        recipe: work.recipe.clone(),
        targets,
        features: features.clone(),
        files,
        shards: commit.shards.clone(),
        counts,
        stats,
    })
}

/// Counts the clips of each class of target number `index`, by split.
fn class_counts(
    index: usize,
    n_classes: usize,
    finished: &FinishedShards,
) -> BTreeMap<String, Vec<u64>> {
    let mut by_split = BTreeMap::new();
    for receipt in finished.of_feature(FIRST) {
        let counts = by_split
            .entry(receipt.file.split.clone().unwrap_or_default())
            .or_insert_with(|| vec![0; n_classes]);
        let written = receipt.class_counts.get(index);
        for (count, n) in counts.iter_mut().zip(written.into_iter().flatten()) {
            *count += n;
        }
    }
    by_split
}

fn named_twice(files: &[FileEntry]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    files
        .iter()
        .map(|file| file.path.as_str())
        .find(|path| !seen.insert(*path))
}

/// Counts rows and clips from the account of the inputs and the receipts of all files, and checks that they add up.
fn counts(
    account: &InputAccount,
    files: &[FileEntry],
    features: &[FeatureEntry],
    finished: &FinishedShards,
) -> Result<Counts, ExtractError> {
    let mut rejects = BTreeMap::new();
    count_reasons(&mut rejects, &account.rejects);
    count_reasons(&mut rejects, clip_rejects(finished));

    let clips_rejected = clip_rejects(finished).count() as u64;
    let feature_rows: Vec<u64> = features.iter().map(|f| rows_of(f, files)).collect();

    let counts = Counts {
        rows_read: account.rows_read,
        rows_kept: account.rows_kept,
        rows_dropped: account.rows_dropped.clone(),
        rows_rejected: account.rejects.len() as u64,
        clips_planned: account.clips_planned,
        clips_written: account.clips_planned - clips_rejected,
        clips_rejected,
        // `check` fails unless all features have equally many rows.
        feature_rows: feature_rows.first().copied().unwrap_or(0),
        rejects,
    };
    check(&counts, account.members, &feature_rows, finished)?;
    Ok(counts)
}

/// Returns the total number of rows in all files of a feature.
fn rows_of(feature: &FeatureEntry, files: &[FileEntry]) -> u64 {
    files
        .iter()
        .filter(|file| file.feature.as_ref() == Some(&feature.name))
        .map(|file| file.rows)
        .sum()
}

fn count_reasons<'a>(
    counts: &mut BTreeMap<String, u64>,
    rejects: impl IntoIterator<Item = &'a Reject>,
) {
    for reject in rejects {
        *counts.entry(reject.reason.name().to_owned()).or_default() += 1;
    }
}

fn check(
    counts: &Counts,
    members: u64,
    feature_rows: &[u64],
    finished: &FinishedShards,
) -> Result<(), ExtractError> {
    let Counts {
        rows_read,
        rows_kept,
        rows_rejected,
        clips_planned,
        clips_rejected,
        ..
    } = *counts;

    let dropped: u64 = counts.rows_dropped.iter().map(|d| d.rows).sum();
    if rows_read != rows_kept + dropped + rows_rejected {
        let what = format!(
            "{rows_read} rows read, {rows_kept} kept + {dropped} dropped + {rows_rejected} rejected"
        );
        return Err(ExtractError::inconsistent(&what));
    }

    if let Some(&place) = finished.in_dispute().first() {
        let file = finished.receipts_of_shard(place).iter().flatten().next();
        let path = file.map_or("", |receipt| &receipt.file.path);
        let what = format!("the features of the shard of {path} do not reject the same clips");
        return Err(ExtractError::inconsistent(&what));
    }

    if feature_rows.iter().any(|n| *n != counts.feature_rows) {
        let what = format!("features have different numbers of rows: {feature_rows:?}");
        return Err(ExtractError::inconsistent(&what));
    }

    // Under the rule `segment` a clip is a member of several shards; under other rules, of exactly one.
    let written = finished.of_feature(FIRST);
    let written: u64 = written.map(|receipt| receipt.clips_written).sum();
    if members == clips_planned && written + clips_rejected != clips_planned {
        let what =
            format!("{clips_planned} clips planned, {written} written + {clips_rejected} rejected");
        return Err(ExtractError::inconsistent(&what));
    }
    Ok(())
}

/// Returns the rejected clips of all shards. Each clip is returned once, although under the rule `segment` it is a
/// member of several shards.
pub(super) fn clip_rejects(finished: &FinishedShards) -> impl Iterator<Item = &Reject> {
    let mut seen = BTreeSet::new();
    finished
        .of_feature(FIRST)
        .flat_map(|receipt| &receipt.rejects)
        .filter(move |reject| seen.insert(reject.clip_key.as_deref()))
}

/// Checks the number of rejects again before the commit, because shards of earlier runs add rejects of their own.
pub(super) fn check_rejects(
    finished: &FinishedShards,
    work: &PlannedWork,
) -> Result<(), ExtractError> {
    let mut tally = RejectTally::default();
    for reject in clip_rejects(finished) {
        tally.add(reject, work.clips_planned, work.reject_fraction)?;
    }
    Ok(())
}
