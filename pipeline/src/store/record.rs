//! Run records: when, where and how long. The one place of a store that holds times and hosts; the list of
//! versions takes its dates from them, and no result does.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Store, StoreError};
use crate::account::Report;
use crate::durable;
use crate::run::RunError;

/// A record that has its first line; without a last one the run did not finish.
#[derive(Debug)]
pub struct RunRecord {
    path: PathBuf,
    start: Instant,
}

impl Store {
    /// Begins `_wavemill/runs/<run id>.jsonl`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn record(&self, plan_id: &str, threads: usize) -> Result<RunRecord, StoreError> {
        let folder = self.root.join("_wavemill/runs");
        durable::make_folder(&folder).map_err(StoreError::io_at(&folder, "create the folder"))?;
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis());
        let path = folder.join(format!("{unix_ms}-{}.jsonl", std::process::id()));
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let line = json!({"event": "start", "unix_ms": unix_ms as u64, "host": host.trim(), "plan_id": plan_id,
            "threads": threads, "wavemill": version});
        fs::write(&path, format!("{line}\n")).map_err(StoreError::io_at(&path, "write"))?;
        Ok(RunRecord { path, start: Instant::now() })
    }
}

impl RunRecord {
    /// Notes the rejects of a run that had too many, so that its error can name the list; other errors pass.
    #[must_use]
    pub fn failed(&self, error: RunError) -> RunError {
        let RunError::TooManyRejects { planned, fraction, rejects, list: _ } = error else { return error };
        let line = json!({"event": "rejected", "rejects": rejects});
        let list = self.append(&line).is_ok().then(|| self.path.clone());
        RunError::TooManyRejects { planned, fraction, rejects, list }
    }

    /// Adds the last line.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn end(self, report: &Report) -> Result<(), StoreError> {
        self.append(&json!({"event": "end", "seconds": self.start.elapsed().as_secs_f64(), "report": report}))
    }

    fn append(&self, line: &Value) -> Result<(), StoreError> {
        let mut file =
            OpenOptions::new().append(true).open(&self.path).map_err(StoreError::io_at(&self.path, "open"))?;
        writeln!(file, "{line}").map_err(StoreError::io_at(&self.path, "write"))
    }
}
