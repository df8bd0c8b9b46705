//! The steps of an extraction by several processes: one plans, workers write the shards, and one commits.
//!
//! The plan is stored in the store (`planned`). It fixes everything: the same files result, whoever writes them, in any
//! order, and however often. A shard with a receipt is finished. Workers share the store's lock; planning, commits and
//! garbage collection have it for themselves.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use wavemill_runtime::progress::Phase;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::local_path::scheme;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::recipe::Recipe;
use wavemill_source::ListedClip;
use wavemill_store::plan::{ClipShards, Shard, ShardPlan};
use wavemill_store::shards::{FinishedShards, KeyInputs, ShardTask};
use wavemill_store::{
    Access, BLOCK_SHARDS, Claims, Lock, Parent, PlannedClip, PlannedShard, Purpose, Store,
    StoreError,
};

use super::begin::take_lock;
use super::planned::{PlannedVersion, PlannedWork};
use super::prepare::{Preparation, Prepared, prepare};
use super::record::{COMMITTED, RunRecord};
use super::shards::ShardRun;
use super::{Report, RunMonitor, SplitChanges, account, commit as committing};
use crate::engine::engine_of;
use crate::error::ExtractError;
use crate::features::FeaturePlan;
use crate::incremental::input::reopen_source;
use crate::incremental::known::KnownInputs;
use crate::incremental::parent;
use crate::incremental::plan::Plan;
use crate::incremental::renames::Renames;
use crate::incremental::reuse;
use crate::job::Job;
use crate::settings::Settings;
use crate::threads::{Limits, RejectTally};

/// Result of planning a version.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// Id of the plan, which workers and the commit are given.
    pub plan_id: String,
    /// Number of the version.
    pub version: u64,
    /// True if the version exists already. Workers and the commit then have nothing to do either.
    pub nothing_to_do: bool,
    /// Number of shards, which is the largest useful number of parts.
    pub shards: usize,
    /// Number of feature files that exist already, because an earlier run wrote them or another version has them.
    pub files_reused: usize,
    /// Number of planned clips.
    pub clips: u64,
    /// Changes of the tracks' splits since the previous version, if there is one.
    pub sides: Option<SplitChanges>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// A part of a plan: the shards that one worker writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the part, from 1.
    pub number: usize,
    /// Number of parts.
    pub of: usize,
}

impl Part {
    /// Returns the part's places among `shards` shards. Parts are contiguous, and their sizes differ by one at most.
    fn places(self, shards: usize) -> Range<usize> {
        let start = |part: usize| (part as u128 * shards as u128 / self.of as u128) as usize;
        start(self.number - 1)..start(self.number)
    }
}

/// The shards that a worker writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One of several parts.
    Part(Part),
    /// Any shards that are left, until all are finished.
    Claim,
}

/// The inputs of a worker.
#[derive(Clone, Debug)]
pub struct WorkJob {
    /// The store that contains the plan.
    pub store: PathBuf,
    /// Id of the plan.
    pub plan_id: String,
    /// The shards to write.
    pub share: Share,
    /// Folder or zip with the audio, if it has another path on this machine than where the plan was made.
    pub audio: Option<PathBuf>,
    /// Maximum time to wait for the store's lock.
    pub lock_wait: Duration,
}

/// Result of a worker.
#[derive(Debug, Default, Serialize)]
pub struct WorkReport {
    /// True if the plan is committed already, so that there was nothing to do.
    pub committed: bool,
    /// Number of shards of the worker.
    pub shards: usize,
    /// Number of clips of these shards. Under the rule `segment`, a clip counts once for each shard.
    pub clips: u64,
    /// Number of these clips that were rejected.
    pub clips_rejected: u64,
    /// Number of feature files that existed already.
    pub files_reused: usize,
    /// Number of feature files that were written.
    pub files_written: usize,
    /// Number of clips that were decoded, or at least read.
    pub clips_decoded: u64,
    /// Number of rows that were copied from the previous version, counted for every feature.
    pub rows_taken_over: u64,
    /// Number of compressed bytes read.
    pub bytes_read: u64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Plans a version and stores the plan. Everything that [`super::run`] does before the first clip is done here.
/// Planning the same version again writes the same plan, and keeps finished shards.
///
/// # Errors
/// [`ExtractError`] if the inputs cannot be used, or the store refuses the plan.
pub fn plan(
    job: &Job,
    settings: &Settings,
    monitor: &RunMonitor,
) -> Result<PlanReport, ExtractError> {
    let mut prepared = match prepare(job, settings, monitor)? {
        Preparation::Version(prepared) => prepared,
        Preparation::NothingToDo(report) => {
            return Ok(PlanReport {
                plan_id: report.plan_id,
                version: report.version,
                nothing_to_do: true,
                shards: 0,
                files_reused: 0,
                clips: report.counts.clips_planned,
                sides: None,
                warnings: report.warnings,
            });
        }
    };

    let record = RunRecord::begin(&prepared.store, &prepared.plan_id, settings.threads)?;
    let report = match store_plan(&mut prepared) {
        Ok(report) => report,
        Err(error) => return Err(record.failed(error, &prepared.draft.catalog.warnings)),
    };
    record.end("planned", &report, &report.warnings)?;
    Ok(report)
}

fn store_plan(prepared: &mut Prepared<'_>) -> Result<PlanReport, ExtractError> {
    PlannedVersion::invalidate(&prepared.store, &prepared.plan_id)?;
    let finished = prepared.finished_shards()?;
    prepared.shards().check_space(&finished)?;
    let mut planned = prepared.planned(&finished)?;

    // Workers may have another working folder.
    let audio = &prepared.job.audio;
    if scheme(audio.as_os_str()).is_none() {
        planned.work.audio = std::path::absolute(audio).unwrap_or_else(|_| audio.clone());
    }
    let shards = prepared.stored_shards();
    let blocks = prepared
        .store
        .write_planned_shards(&prepared.plan_id, shards)?;
    planned.work.blocks = blocks;
    planned.store(&prepared.store)?;

    Ok(PlanReport {
        version: planned.work.version,
        nothing_to_do: false,
        shards: planned.work.shards,
        files_reused: finished.n_done(),
        clips: planned.work.clips_planned,
        sides: planned.commit.sides,
        warnings: prepared.draft.catalog.warnings.clone(),
        plan_id: planned.plan_id,
    })
}

impl Prepared<'_> {
    /// Returns the shards as they are stored, in plan order.
    fn stored_shards(&self) -> impl Iterator<Item = PlannedShard> {
        let shards = self.draft.plan.shard_plan.shards.iter().enumerate();
        shards.map(|(place, shard)| PlannedShard {
            place,
            split: shard.split.clone(),
            number: shard.number,
            clips: shard
                .members
                .iter()
                .map(|&row| self.stored_clip(row))
                .collect(),
        })
    }

    fn stored_clip(&self, row: usize) -> PlannedClip {
        let row = &self.draft.catalog.clips[row];
        PlannedClip {
            renamed_from: self.draft.renames.get(&row.clip_key).cloned(),
            input: self.source.index().get(&row.clip_key).copied(),
            fault: self.source.fault(&row.clip_key).map(str::to_owned),
            row: row.clone(),
        }
    }
}

/// Writes the shards of a part of a stored plan that are not finished. `settings` returns the engine and the resources
/// for a recipe; the rows and the limit of rejects are those of the plan.
///
/// # Errors
/// [`ExtractError`], and the errors of `settings`. Receipts of finished files are kept, and the same call continues
/// from there.
pub fn work<E: From<ExtractError>>(
    job: &WorkJob,
    settings: impl FnOnce(&Recipe) -> Result<Settings, E>,
    monitor: &RunMonitor,
) -> Result<WorkReport, E> {
    let store = Store::find(&job.store, Purpose::Writing).map_err(ExtractError::from)?;
    let (found, _lock) = find(&store, &job.plan_id, Access::Shared, job.lock_wait, monitor)?;
    let Found::Open(open) = found else {
        store.settle_manifests().map_err(ExtractError::from)?;
        return Ok(WorkReport {
            committed: true,
            ..WorkReport::default()
        });
    };
    let OpenPlan { work, parent } = *open;
    let settings = settings(&work.recipe)?;

    let part = StoredPart {
        job,
        store: &store,
        work: &work,
        parent: parent.as_ref(),
        monitor,
    };
    match part.write_recorded(&settings) {
        Err(_) if committed_elsewhere(&store, &job.plan_id).is_some() => Ok(WorkReport {
            committed: true,
            ..WorkReport::default()
        }),
        report => Ok(report?),
    }
}

/// A part of a stored plan that a worker writes.
struct StoredPart<'a> {
    job: &'a WorkJob,
    store: &'a Store,
    work: &'a PlannedWork,
    parent: Option<&'a Parent>,
    monitor: &'a RunMonitor,
}

impl StoredPart<'_> {
    /// Writes the part, and a record of this run.
    fn write_recorded(&self, settings: &Settings) -> Result<WorkReport, ExtractError> {
        let record = RunRecord::begin(self.store, &self.job.plan_id, settings.threads)?;
        match self.write(settings) {
            Ok(report) => {
                record.end("worked", &report, &report.warnings)?;
                Ok(report)
            }
            Err(error) => Err(record.failed(plan_again(self.store, error), &[])),
        }
    }

    fn write(&self, settings: &Settings) -> Result<WorkReport, ExtractError> {
        let Self {
            job, store, work, ..
        } = *self;
        let settings = &Settings {
            recompute: work.recompute,
            max_reject_fraction: Some(work.reject_fraction),
            ..settings.clone()
        };
        store.require_engine(&work.engine, &engine_of(&work.recipe, settings))?;

        let mut report = WorkReport::default();
        let mut rejects = RejectTally::default();
        match job.share {
            Share::Part(part) => {
                let places = part.places(work.shards);
                self.write_places(places, settings, &mut report, &mut rejects)?;
            }
            Share::Claim => {
                let mut claims = Claims::new(store, &job.plan_id, work.shards)?;
                while let Some(place) = claims.take()? {
                    self.write_places(place..place + 1, settings, &mut report, &mut rejects)?;
                    claims.finish(place)?;
                }
            }
        }

        let counters = &self.monitor.counters;
        report.clips_decoded = counters.clips_read.load(Ordering::Relaxed);
        report.rows_taken_over = counters.rows_taken.load(Ordering::Relaxed);
        report.bytes_read = counters.bytes.load(Ordering::Relaxed);
        report.warnings.extend(counters.lanes.warnings());
        Ok(report)
    }

    /// Writes the unfinished files of the shards at `places`, and adds the shards to the report and their rejects to
    /// `rejects`.
    fn write_places(
        &self,
        places: Range<usize>,
        settings: &Settings,
        report: &mut WorkReport,
        rejects: &mut RejectTally,
    ) -> Result<(), ExtractError> {
        let Self {
            job,
            store,
            work,
            parent,
            monitor,
        } = *self;
        monitor.progress.enter(Phase::Planning, 0);
        let shards = store.planned_shards(&work.blocks, places)?;
        let listed = listed(&shards);
        let (shard_plan, clips, renames) = rows_of(shards);
        let features = FeaturePlan::new(&work.recipe, settings)?;
        let models_id = features.models_id()?;
        store.require_models(work.identity.models.as_deref(), models_id.as_deref())?;
        let plan = Plan {
            recipe: &work.recipe,
            features,
            shard_plan,
            targets: work.targets.clone(),
            engine: work.engine.clone(),
            identity: work.identity.clone(),
            clips_absent: 0,
        };
        let row_group_rows = work.recipe.shards.row_group_rows;
        let limits = Limits::new(settings, work.clips_planned, row_group_rows, &plan.features)?;

        let shards = &plan.shard_plan.shards;
        let features = plan.features.entries();
        let mut finished = reuse::finished_by_workers(store, &job.plan_id, shards, features)?;
        let files_reused = finished.n_done();
        if files_reused < finished.n_total() || !finished.in_dispute().is_empty() {
            monitor.progress.enter(Phase::Listing, 0);
            let audio = job.audio.as_ref().unwrap_or(&work.audio);
            let source = reopen_source(audio, &work.recipe, &work.audio_root, listed)?;
            let mut known = KnownInputs::default();
            if let Some(parent) = parent {
                let manifest = &parent.manifest;
                let keys = clips.iter().map(|clip| clip.clip_key.as_str());
                let shards = ClipShards::new(manifest, keys.clone());
                let doubtful = match parent::seen_of_shards(store, manifest, &shards)? {
                    Some(seen) => known.recall(seen, source.index()),
                    None => parent::input_keys(store, manifest)?.into_iter().collect(),
                };
                let changed = keys.filter(|clip_key| doubtful.contains(*clip_key));
                // The previous version knows renamed files by other names.
                let renamed = renames.keys().map(String::as_str);
                let progress = &monitor.progress;
                known.read(changed.chain(renamed), &*source, settings, progress)?;
            }
            let run = ShardRun {
                settings,
                monitor,
                store,
                plan_id: &job.plan_id,
                plan: &plan,
                clips: &clips,
                parent,
                renames: &renames,
                source: &*source,
                limits: &limits,
            };
            run.check_space(&finished)?;
            let warnings = run.write_missing(known, &mut finished)?;
            report.warnings.extend(warnings);
        }

        report.shards += shards.len();
        report.clips += clips.len() as u64;
        report.clips_rejected += n_rejected(&finished);
        report.files_reused += files_reused;
        report.files_written += finished.n_done() - files_reused;
        for reject in account::clip_rejects(&finished) {
            rejects.add(reject, work.clips_planned, work.reject_fraction)?;
        }
        Ok(())
    }
}

/// Returns the clips of stored shards as they were listed.
fn listed(shards: &[PlannedShard]) -> Vec<ListedClip> {
    let clips = shards.iter().flat_map(|shard| &shard.clips);
    let listed = clips.map(|clip| ListedClip {
        clip_key: clip.row.clip_key.clone(),
        id: clip.input,
        fault: clip.fault.clone(),
    });
    listed.collect()
}

/// Returns stored shards as a plan with its rows, and the clips' keys in the parent.
fn rows_of(shards: Vec<PlannedShard>) -> (ShardPlan, Vec<ClipRow>, Renames) {
    let mut plan = ShardPlan::default();
    let mut clips = Vec::new();
    let mut renames = Renames::new();
    for shard in shards {
        let first = clips.len();
        for clip in shard.clips {
            if let Some(before) = clip.renamed_from {
                renames.insert(clip.row.clip_key.clone(), before);
            }
            clips.push(clip.row);
        }
        plan.shards.push(Shard {
            split: shard.split,
            number: shard.number,
            members: (first..clips.len()).collect(),
        });
    }
    plan.planned = (0..clips.len()).collect();
    (plan, clips, renames)
}

fn n_rejected(finished: &FinishedShards) -> u64 {
    let of_first = finished.of_feature(0);
    of_first.map(|receipt| receipt.rejects.len() as u64).sum()
}

/// Commits a stored plan whose shards are all finished. Has nothing to do if the plan is committed already.
///
/// # Errors
/// An error of the kind `Unfinished` if shards are missing; [`ExtractError::Store`] if another version was committed
/// after the plan was made.
pub fn commit(
    root: &Path,
    plan_id: &str,
    settings: &Settings,
    monitor: &RunMonitor,
) -> Result<Report, ExtractError> {
    let store = Store::find(root, Purpose::Writing)?;
    // No worker runs during the commit, so that none replaces a file of the version.
    let access = Access::Exclusive;
    let (found, _lock) = find(&store, plan_id, access, settings.lock_wait, monitor)?;
    let open = match found {
        Found::Open(open) => *open,
        Found::Committed(version, manifest) => {
            store.settle_manifests()?;
            store.remove_committed_plan(plan_id)?;
            return Ok(Report::nothing_to_do(version, *manifest, Vec::new()));
        }
    };

    match commit_open(&store, plan_id, open, settings, monitor) {
        Err(error) => match committed_elsewhere(&store, plan_id) {
            Some((version, manifest)) => Ok(Report::nothing_to_do(version, manifest, Vec::new())),
            None => Err(error),
        },
        report => report,
    }
}

/// Commits a stored plan that is not committed yet.
fn commit_open(
    store: &Store,
    plan_id: &str,
    OpenPlan { work, parent }: OpenPlan,
    settings: &Settings,
    monitor: &RunMonitor,
) -> Result<Report, ExtractError> {
    let plan = PlannedVersion::read(store, plan_id, work)?;
    store.pull_plan(plan_id)?;
    let finished = checked_shards(store, &plan).map_err(|error| plan_again(store, error))?;
    if let Err(unfinished) = require_finished(&finished, plan.work.shards) {
        // Workers have to look at shards again whose receipts were removed.
        store.remove_claims(plan_id)?;
        return Err(unfinished);
    }

    let record = RunRecord::begin(store, plan_id, settings.threads)?;
    let mut report = match committing::commit(store, parent.as_ref(), &plan, &finished, monitor) {
        Ok(report) => report,
        Err(error) => return Err(record.failed(error, &[])),
    };
    report.wall_s = monitor.progress.seconds();
    // The version is committed, whatever happens now.
    if let Err(error) = record.end(COMMITTED, &report, &report.warnings) {
        let message = format!("cannot complete the run record: {error}");
        report.warnings.push(message);
    }
    if let Err(error) = store.remove_committed_plan(plan_id) {
        let message = format!("cannot remove the plan, which is no longer needed: {error}");
        report.warnings.push(message);
    }
    Ok(report)
}

/// Returns the files that workers have finished. Only one block of the plan is in memory at a time.
fn checked_shards(store: &Store, planned: &PlannedVersion) -> Result<FinishedShards, ExtractError> {
    let PlannedVersion {
        plan_id,
        work,
        commit,
    } = planned;

    let mut finished = FinishedShards::new(work.shards, commit.features.len());
    for first in (0..work.shards).step_by(BLOCK_SHARDS) {
        let places = first..work.shards.min(first + BLOCK_SHARDS);
        let (block, clips, _) = rows_of(store.planned_shards(&work.blocks, places)?);
        let keys = KeyInputs {
            clips: &clips,
            recipe: &work.recipe,
            features: &commit.features,
            targets: &work.targets,
            engine: &work.engine,
        };

        let shards: Vec<ShardTask<'_>> = (first..)
            .zip(&block.shards)
            .map(|(place, shard)| ShardTask { place, shard })
            .collect();
        reuse::add_checked(&mut finished, store, plan_id, &shards, &keys)?;
    }
    Ok(finished)
}

/// A repeated worker or commit cannot resolve that an input changed; a repeated plan can.
fn plan_again(store: &Store, error: ExtractError) -> ExtractError {
    let ExtractError::Changed { clip_key } = error else {
        return error;
    };
    let problem = format!("{clip_key}: changed after a part of the plan was written: plan again");
    StoreError::other_plan(store.place(), problem).into()
}

fn require_finished(finished: &FinishedShards, shards: usize) -> Result<(), ExtractError> {
    let in_dispute = finished.in_dispute();
    let mut missing = Vec::new();
    for place in 0..shards {
        let mut receipts = finished.receipts_of_shard(place).iter();
        if receipts.any(Option::is_none) || in_dispute.contains(&place) {
            missing.push(place + 1);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of {shards} shards of the plan are missing ({}): write them with `wavemill work --claim` and the --store and \
         --plan of this command, or one of them with --part {}/{shards} instead",
        missing.len(),
        format_places(&missing),
        missing[0]
    );
    Err(PlainError::new(Kind::Unfinished, message).into())
}

/// Number of ranges of missing shards that a message names.
const RANGES_SHOWN: usize = 10;

/// Formats ascending numbers as ranges: `1-3, 7`.
fn format_places(places: &[usize]) -> String {
    let ranges: Vec<&[usize]> = places.chunk_by(|a, b| a + 1 == *b).collect();
    let mut shown = Vec::new();
    for range in ranges.iter().take(RANGES_SHOWN) {
        shown.push(match range {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        });
    }
    let more = if ranges.len() > RANGES_SHOWN {
        ", …"
    } else {
        ""
    };
    shown.join(", ") + more
}

/// A stored plan that is not committed, and the version that it follows.
struct OpenPlan {
    work: PlannedWork,
    parent: Option<Parent>,
}

/// A stored plan, as found by a worker or a commit.
enum Found {
    /// The plan can be committed after the latest version, which is `None` in a new store.
    Open(Box<OpenPlan>),
    /// The plan is committed as this version.
    Committed(u64, Box<Manifest>),
}

/// Takes the store's lock and reads a stored plan.
///
/// # Errors
/// [`StoreError::Absent`] if there is no such plan; [`StoreError::other_plan`] if another version was committed in the
/// meantime, so that the plan can never be committed.
fn find(
    store: &Store,
    plan_id: &str,
    access: Access,
    wait: Duration,
    monitor: &RunMonitor,
) -> Result<(Found, Lock), ExtractError> {
    store.require_folder()?;
    let lock = take_lock(store, access, wait, &monitor.progress)?;
    store.require_no_links(Some(plan_id))?;
    let latest = store.latest()?;
    let work = match PlannedWork::read(store, plan_id) {
        Err(error @ StoreError::Absent { .. }) => {
            // The commit removes the stored plan, also that of another machine since the versions were listed.
            store.refresh()?;
            let (version, manifest) = committed(store, plan_id)?.ok_or(error)?;
            return Ok((Found::Committed(version, Box::new(manifest)), lock));
        }
        read => read?,
    };

    let hash = latest.as_ref().map(|latest| &latest.hash);
    if hash == work.identity.parent.as_ref() {
        let parent = latest;
        return Ok((Found::Open(Box::new(OpenPlan { work, parent })), lock));
    }
    if let Some((version, manifest)) = committed(store, plan_id)? {
        return Ok((Found::Committed(version, Box::new(manifest)), lock));
    }
    let version = latest.map_or(0, |latest| latest.version);
    let problem = format!(
        "version {version} was committed after plan {plan_id} was made, so that this plan can no longer be committed: \
         plan again"
    );
    Err(StoreError::other_plan(store.place(), problem).into())
}

/// Returns the version that was made by a plan, if it is committed.
fn committed(store: &Store, plan_id: &str) -> Result<Option<(u64, Manifest)>, StoreError> {
    for version in store.versions()?.into_iter().rev() {
        let (version, manifest) = store.manifest(Some(version))?;
        if manifest.plan_id == plan_id {
            return Ok(Some((version, manifest)));
        }
    }
    Ok(None)
}

/// Returns the version that another machine made by a plan while this process used the plan. The store's lock excludes
/// only processes of this machine from a store in an object store, and the commit removes the plan's files.
fn committed_elsewhere(store: &Store, plan_id: &str) -> Option<(u64, Manifest)> {
    store.mirror()?;
    store.refresh().ok()?;
    committed(store, plan_id).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_shards_once() {
        for (shards, of) in [(0, 1), (1, 1), (1, 8), (7, 3), (40, 8), (1953, 1000)] {
            let mut next = 0;
            for number in 1..=of {
                let places = Part { number, of }.places(shards);
                assert_eq!(places.start, next, "{number}/{of} of {shards}");
                assert!(places.len().abs_diff(shards / of) <= 1);
                next = places.end;
            }
            assert_eq!(next, shards);
        }
    }
}
