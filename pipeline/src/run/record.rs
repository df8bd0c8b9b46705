//! Run records: when, where, how long, and how it ended. The one place of a store that holds times and hosts; the list of
//! versions takes its dates from them, and no result does.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Report, RunError};
use crate::extract::ExtractError;
use crate::store::{Store, StoreError, durable};

/// A record that has its first line. One without a last line is of a run that still goes on, or was killed.
#[derive(Debug)]
pub(super) struct RunRecord {
    path: PathBuf,
    start: Instant,
}

impl RunRecord {
    /// Begins `_wavemill/runs/<run id>.jsonl`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn begin(store: &Store, plan_id: &str, threads: usize) -> Result<Self, StoreError> {
        let folder = store.root().join("_wavemill/runs");
        durable::make_folder(&folder).map_err(StoreError::io_at(&folder, "create the folder"))?;

        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis());
        // With the process's number, since two runs may begin in one millisecond.
        let path = folder.join(format!("{unix_ms}-{}.jsonl", std::process::id()));
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let line = json!({"event": "start", "unix_ms": unix_ms as u64, "host": host.trim(), "plan_id": plan_id,
            "threads": threads, "wavemill": version});

        let record = Self {
            path,
            start: Instant::now(),
        };
        record.append(&line)?;
        durable::sync_folder(&folder).map_err(StoreError::io_at(&folder, "sync the folder"))?;
        Ok(record)
    }

    /// Adds the last line of a run that committed a version. `warnings`: all that a person was told.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn end(self, report: &Report, warnings: &[String]) -> Result<(), StoreError> {
        let mut report = serde_json::to_value(report)?;
        report["warnings"] = warnings.into();
        let seconds = self.start.elapsed().as_secs_f64();
        self.append(
            &json!({"event": "end", "outcome": "committed", "seconds": seconds, "report": report}),
        )
    }

    /// Adds the last line of a run that was interrupted or failed. The error of one that had too many rejects can name
    /// the list of them then; others pass as they are.
    pub(super) fn failed(self, error: RunError, warnings: &[String]) -> RunError {
        let outcome = if error.is_interruption() {
            "interrupted"
        } else {
            "failed"
        };
        let seconds = self.start.elapsed().as_secs_f64();
        let mut line = json!({"event": "end", "outcome": outcome, "seconds": seconds, "error": in_words(&error),
            "warnings": warnings});
        if let Some(rejects) = error.rejects() {
            line["rejects"] = json!(rejects);
        }

        // The run's own error matters more than that its record has no end.
        let is_written = self.append(&line).is_ok();
        self.listing_rejects(error, is_written)
    }

    /// An error that names this record where its rejects stand.
    fn listing_rejects(self, mut error: RunError, is_written: bool) -> RunError {
        if let RunError::Extract(ExtractError::TooManyRejects { list, .. }) = &mut error {
            *list = is_written.then_some(self.path);
        }
        error
    }

    fn append(&self, line: &Value) -> Result<(), StoreError> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .map_err(StoreError::io_at(&self.path, "open"))?;
        // One call, so that a line is never half a line in the file of a run that goes on.
        let line = format!("{line}\n");
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(StoreError::io_at(&self.path, "write"))
    }
}

/// An error with its causes, on one line.
fn in_words(error: &RunError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
