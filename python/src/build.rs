//! `wavemill extract` and its steps as a function.

use std::ffi::OsString;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use wavemill::cli::extract::{ExtractCommand, report_json};
use wavemill::cli::from_options;
use wavemill::cli::progress::PhaseClock;
use wavemill::cli::steps::{CommitCommand, PlanCommand, WorkCommand};
use wavemill_extract::run::{self, RunMonitor};
use wavemill_runtime::panics;
use wavemill_terminal::display::Snapshot;

use crate::errors;
use crate::interrupt::SIGNALS_EVERY;

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

    let built = py.detach(|| {
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let (options, monitor) = (&options, &monitor);
            scope.spawn(move || {
                let ran = panics::caught(|| run_step(command, options, monitor));
                let ran = ran.unwrap_or_else(|panic| Err(panic.into()));
                // The receiver exists until this thread has ended.
                let _ = sender.send(ran);
            });
            watch(&receiver, monitor, &progress)
        })
    });
    built?.map_err(|error| errors::of_command(py, &error))
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

/// Waits for the end of a run and shows its progress. An exception meanwhile stops the run, and is returned when the run
/// has ended.
fn watch(
    receiver: &mpsc::Receiver<anyhow::Result<String>>,
    monitor: &RunMonitor,
    progress: &Py<PyAny>,
) -> PyResult<anyhow::Result<String>> {
    let mut clock = PhaseClock::new(monitor);
    let mut raised = None;

    loop {
        match receiver.recv_timeout(SIGNALS_EVERY) {
            Ok(ran) => return raised.map_or(Ok(ran), Err),
            Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                let snapshot = clock.look(monitor);
                raised = Python::attach(|py| {
                    py.check_signals()?;
                    let shown = (snapshot.line(), snapshot.done(), snapshot.total());
                    progress.call1(py, shown)
                })
                .err();
                monitor
                    .progress
                    .stop
                    .store(raised.is_some(), Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let problem = "the thread of the run ended without a result";
                return Err(PyRuntimeError::new_err(problem));
            }
        }
    }
}
