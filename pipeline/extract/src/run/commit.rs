//! Commits a version whose shards are finished.

use fail::fail_point;
use wavemill_runtime::progress::Phase;
use wavemill_store::shards::FinishedShards;
use wavemill_store::{Parent, Store};

use super::planned::PlannedVersion;
use super::{Report, RunMonitor, account, tables};
use crate::error::ExtractError;
use crate::incremental::copies::splits::in_several_splits;

/// Accounts for every input and commits the version. `parent` is the latest version; `None` in a new store.
///
/// # Errors
/// [`ExtractError`] if the counts do not match, there are too many rejects, or the store cannot be written.
pub(super) fn commit(
    store: &Store,
    parent: Option<&Parent>,
    planned: &PlannedVersion,
    finished: &FinishedShards,
    monitor: &RunMonitor,
) -> Result<Report, ExtractError> {
    monitor.progress.enter(Phase::Commit, 0);
    fail_point!("run-before-commit");

    let PlannedVersion {
        plan_id,
        work,
        commit,
    } = planned;
    // The order of the rejects is fixed, because it determines the bytes of their table.
    let rejects = commit
        .account
        .rejects
        .iter()
        .chain(&commit.account.other_rejects)
        .chain(account::clip_rejects(finished));
    let mut tables = commit.tables.clone();
    tables.push(tables::write_rejects(store, plan_id, rejects)?);
    tables.push(tables::write_inputs(store, plan_id, &finished.inputs)?);
    tables.push(tables::write_classes(store, plan_id, &work.targets)?);
    tables.push(tables::write_audio_files(
        store,
        plan_id,
        &commit.files.found,
    )?);

    let manifest = account::manifest(planned, tables, finished)?;
    // Checks the rejects of all shards again: during extraction, the limit is only checked when a reject is added.
    account::check_rejects(finished, work)?;

    let files_equal = match parent {
        Some(parent) => store.link_equal(&parent.manifest, &manifest)?,
        None => 0,
    };
    store.commit(work.version, &manifest)?;

    // The version is committed, whatever happens now.
    let copies = in_several_splits(store, &manifest, finished).unwrap_or_else(|error| {
        Some(format!(
            "cannot look for recordings in several splits: {error}"
        ))
    });
    let mut report = Report::committed(work.version, manifest, &monitor.counters, commit.reuse);
    report.files_equal = files_equal;
    report.files_found = commit.files.clone();
    report.duplicates = commit.duplicates;
    report.sides.clone_from(&commit.sides);
    report.warnings.extend(copies);
    Ok(report)
}
