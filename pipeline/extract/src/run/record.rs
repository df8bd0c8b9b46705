//! Writes run records: time, host, duration and outcome of each run. These are the only files of a store that contain
//! times and hosts. The list of versions takes its dates from them, but no results depend on them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};
use wavemill_schemas::durable::random_token;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_store::{Store, StoreError, durable};

use crate::error::ExtractError;

/// Outcome of a run that committed a version.
pub(super) const COMMITTED: &str = "committed";

/// A record whose first line has been written. A record without a last line belongs to a run that is still in progress
/// or was killed.
#[derive(Debug)]
pub(super) struct RunRecord {
    store: Store,
    path: PathBuf,
    start: Instant,
}

impl RunRecord {
    /// Creates `_wavemill/runs/<run id>.jsonl` and writes its first line.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the record cannot be created.
    pub(super) fn begin(store: &Store, plan_id: &str, threads: usize) -> Result<Self, StoreError> {
        let folder = store.root().join("_wavemill/runs");
        durable::make_folder(&folder)?;

        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis());
        // Two runs may start in the same millisecond, on one machine or on several.
        let token = random_token() as u32;
        let path = folder.join(format!("{unix_ms}-{token:08x}.jsonl"));
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let line = json!({"event": "start", "unix_ms": unix_ms as u64, "host": host.trim(), "plan_id": plan_id,
            "threads": threads, "wavemill": version});

        let record = Self {
            store: store.clone(),
            path,
            start: Instant::now(),
        };
        record.append(&line)?;
        durable::sync_folder(&folder)?;
        Ok(record)
    }

    /// Adds the last line to the record of a run that ended as intended. `warnings` are all those shown to the user.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the record cannot be written.
    pub(super) fn end(
        self,
        outcome: &str,
        report: &impl Serialize,
        warnings: &[String],
    ) -> Result<(), StoreError> {
        let mut report = serde_json::to_value(report)?;
        report["warnings"] = warnings.into();
        let seconds = self.start.elapsed().as_secs_f64();
        self.append(
            &json!({"event": "end", "outcome": outcome, "seconds": seconds, "report": report}),
        )?;
        self.store.send([self.path])
    }

    /// Adds the last line to the record of a run that was interrupted or failed. An error about too many rejects then
    /// refers to this record, which lists them; other errors are returned unchanged.
    pub(super) fn failed(self, mut error: ExtractError, warnings: &[String]) -> ExtractError {
        let outcome = match error.kind() {
            Kind::Interrupted => "interrupted",
            _ => "failed",
        };
        let seconds = self.start.elapsed().as_secs_f64();
        let mut line = json!({"event": "end", "outcome": outcome, "seconds": seconds, "error": describe_error(&error),
            "warnings": warnings});
        if let Some(rejects) = error.rejects() {
            line["rejects"] = json!(rejects);
        }

        // The run's own error matters more than a record without a last line.
        let is_written = self.append(&line).is_ok();
        if is_written {
            let _ = self.store.send([self.path.clone()]);
        }
        if let ExtractError::TooManyRejects { list, .. } = &mut error {
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
        // The line is written in a single call, so that the record of a run in progress contains no partial line.
        let line = format!("{line}\n");
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(StoreError::io_at(&self.path, "write"))
    }
}

/// Formats an error with its causes on one line.
fn describe_error(error: &ExtractError) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}
