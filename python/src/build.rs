//! `wavemill extract` and its steps as a function.

use std::ffi::OsString;

use pyo3::prelude::*;
use wavemill::cli::extract::{ExtractCommand, report_json};
use wavemill::cli::from_options;
use wavemill::cli::progress::PhaseClock;
use wavemill::cli::steps::{CommitCommand, PlanCommand, WorkCommand};
use wavemill_extract::run::{self, RunMonitor};
use wavemill_runtime::panics;
use wavemill_terminal::display::Snapshot;

use crate::errors;
use crate::interrupt::watched;

/// Runs the command `extract`, `plan`, `work` or `commit` with options, and returns its report as JSON.
///
/// `progress(line, done, total)` is called several times a second; `done` and `total` count units of the phase, and
/// `total` is `None` if it is unknown. An exception of `progress` or of a signal handler stops the run, whose finished
/// work is kept.
#[pyfunction]
pub(crate) fn build(
    py: Python<'_>,
    command: &str,
    options: Vec<OsString>,
    progress: Bound<'_, PyAny>,
) -> PyResult<String> {
    let monitor = RunMonitor::default();
    let progress = progress.unbind();

    let mut clock = PhaseClock::new(&monitor);
    let show = |py: Python<'_>| {
        let snapshot = clock.look(&monitor);
        let shown = (snapshot.line(), snapshot.done(), snapshot.total());
        progress.call1(py, shown).map(drop)
    };
    let work = || {
        let ran = panics::caught(|| run_step(command, &options, &monitor));
        ran.unwrap_or_else(|panic| Err(panic.into()))
    };
    let built = watched(py, &monitor.progress.stop, show, work)?;
    built.map_err(|error| errors::of_command(py, &error))
}

fn run_step(command: &str, options: &[OsString], monitor: &RunMonitor) -> anyhow::Result<String> {
    let report = match command {
        "plan" => serde_json::to_string(&from_options::<PlanCommand>(options)?.report(monitor)?),
        "work" => serde_json::to_string(&from_options::<WorkCommand>(options)?.report(monitor)?),
        "commit" => {
            serde_json::to_string(&from_options::<CommitCommand>(options)?.report(monitor)?)
        }
        _ => return extract(options, monitor),
    };
    Ok(report?)
}

fn extract(options: &[OsString], monitor: &RunMonitor) -> anyhow::Result<String> {
    // Otherwise the heaps of the threads would retain the memory that clips have freed.
    wavemill_kernels::return_large_blocks();
    let (job, settings) = from_options::<ExtractCommand>(options)?.plan()?;
    let warnings = job.recipe.warnings();
    let report = run::run(&job, &settings, monitor)?;
    report_json(report, warnings)
}
