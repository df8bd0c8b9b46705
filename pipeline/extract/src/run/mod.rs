//! The main flow of an extraction, from metadata and audio to a committed version. Start reading here.

mod account;
mod begin;
mod commit;
mod forecast;
mod planned;
mod prepare;
mod preview;
mod record;
mod report;
mod shards;
mod space;
mod steps;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wavemill_runtime::progress::Progress;
use wavemill_schemas::recipe::Recipe;

pub use self::preview::{Preview, SplitLabels, preview};
pub use self::report::{FileReuse, Report};
pub use self::space::{free_bytes, require_space};
pub use self::steps::{Part, PlanReport, Share, WorkJob, WorkReport, commit, plan, work};
use crate::error::ExtractError;
pub use crate::incremental::moves::{MoveCount, SplitChanges};
pub use crate::incremental::shrink::VanishedClips;
pub use crate::job::Job;

use self::prepare::{Preparation, Prepared};
use self::record::{COMMITTED, RunRecord};
use crate::settings::Settings;
use crate::threads::Counters;

/// Lets a caller watch and stop a run.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Progress of the run. Setting its `stop` ends the run; during extraction, clips in flight are finished first.
    pub progress: Arc<Progress>,
    /// Number of clips that this run has to process; 0 until the number is known.
    pub clips_total: AtomicU64,
    /// Counters of the work that the run has done so far.
    pub counters: Counters,
    /// Called with the recipe and, if there is a previous version, with the changes of splits, as soon as these are
    /// known. This is long before the commit.
    pub on_plan: Option<fn(&Recipe, Option<&SplitChanges>)>,
    /// True once `on_plan` was called. A run that fails earlier has no plan.
    pub is_planned: AtomicBool,
}

impl RunMonitor {
    fn announce_plan(&self, recipe: &Recipe, splits: Option<&SplitChanges>) {
        self.is_planned.store(true, Ordering::Relaxed);
        if let Some(tell) = self.on_plan {
            tell(recipe, splits);
        }
    }
}

/// Runs an extraction. This is all of `wavemill extract` except its command line.
///
/// # Errors
/// [`ExtractError`] if no version is committed. Finished work is kept, and the same call resumes from there.
pub fn run(job: &Job, settings: &Settings, monitor: &RunMonitor) -> Result<Report, ExtractError> {
    let mut prepared = match prepare::prepare(job, settings, monitor)? {
        Preparation::NothingToDo(report) => return Ok(*report),
        Preparation::Version(prepared) => prepared,
    };

    // From here on the run has a record in the store. Its last line is written even if the run fails.
    let record = RunRecord::begin(&prepared.store, &prepared.plan_id, settings.threads)?;
    let committed = write_and_commit(&mut prepared);
    end(*prepared, record, committed)
}

/// Writes everything that does not exist yet, and commits the version.
fn write_and_commit(prepared: &mut Prepared<'_>) -> Result<Report, ExtractError> {
    // Files that exist already need no more space, so these files are found before free space is checked.
    let mut finished = prepared.finished_shards()?;
    prepared.shards().check_space(&finished)?;
    // Tables are written before clips, because clips need the memory that is freed with the catalog's tables.
    let planned = prepared.planned(&finished)?;

    let known = std::mem::take(&mut prepared.known);
    let mut warnings = prepared.shards().write_missing(known, &mut finished)?;
    // A file of the parent that cannot be read was named when finished files were looked for, too.
    warnings.retain(|warning| !prepared.draft.catalog.warnings.contains(warning));

    let Prepared { store, draft, .. } = prepared;
    let mut report = commit::commit(
        store,
        draft.parent.as_ref(),
        &planned,
        &finished,
        prepared.monitor,
    )?;
    report.warnings.extend(warnings);
    // The plan may have been stored for other processes. If it cannot be removed, it only takes space.
    let _ = store.remove_committed_plan(&prepared.plan_id);
    Ok(report)
}

/// Completes the run's record, and adds warnings for the user to the report.
fn end(
    prepared: Prepared<'_>,
    record: RunRecord,
    committed: Result<Report, ExtractError>,
) -> Result<Report, ExtractError> {
    let Prepared {
        job,
        monitor,
        draft,
        sides,
        ..
    } = prepared;
    let catalog = draft.catalog;

    // The order in which warnings are shown. The first one is about scores of earlier models that are no longer valid.
    let mut warnings = Vec::new();
    warnings.extend(sides.as_ref().and_then(SplitChanges::warning));
    warnings.extend(job.recipe.warnings());
    warnings.extend_from_slice(&catalog.warnings);
    let mut report = match committed {
        Ok(report) => report,
        Err(error) => return Err(record.failed(error, &warnings)),
    };

    // `on_plan` has already shown the recipe's own warnings and the warning about moved tracks.
    let lane_warnings = monitor.counters.lanes.warnings();
    warnings.extend_from_slice(&lane_warnings);
    warnings.extend_from_slice(&report.warnings);
    let of_parent = std::mem::replace(&mut report.warnings, catalog.warnings);
    report.warnings.extend(lane_warnings);
    report.warnings.extend(of_parent);
    report.wall_s = monitor.progress.seconds();

    // The version is committed even if the last line of its record cannot be written.
    if let Err(error) = record.end(COMMITTED, &report, &warnings) {
        let message = format!("cannot complete the run record: {error}");
        report.warnings.push(message);
    }
    Ok(report)
}
