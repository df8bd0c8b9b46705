//! The files of a run: `runs/<id>/` with its configuration, log, TensorBoard events, checkpoints and result.
//!
//! The JSONL log is authoritative; the events repeat its figures for other tools. Times are written only to these two.
//! This module writes no checkpoints, it only defines their paths.

mod log;
mod run_dir;
mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};

pub use log::{Entry, Log, read_log};
pub use run_dir::{RunDir, run_stem};
pub use tensorboard::{EventWriter, ResumePoint};
use wavemill_schemas::exit;

/// The reason that a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation, such as `write`.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content of a file is invalid.
    #[error("{path}{}: not a valid file of a run", line.map_or(String::new(), |line| format!(", line {line}")))]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, starting at 1, in a file with one value per line.
        line: Option<usize>,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The id is not a valid name of a single folder.
    #[error("{id:?} is not a valid name for a run: use a single folder name")]
    Id {
        /// The id as given.
        id: String,
    },
    /// A run already exists in the folder of a new run.
    #[error("{path}: a run already exists; continue it with --resume, or choose another id")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder contains no run.
    #[error("{path}: not a run (no config.toml)")]
    Missing {
        /// The folder that was searched.
        path: PathBuf,
    },
    /// No run can begin in the folder.
    #[error("{path}: {problem}")]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What the folder contains, and a remedy.
        problem: String,
    },
    /// Another process is writing the run.
    #[error("{path}: another process is writing this run")]
    Busy {
        /// The log of the run.
        path: PathBuf,
    },
}

impl RecordError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } | Self::Id { .. } | Self::Taken { .. } => exit::USAGE,
            Self::Json { .. } => exit::DAMAGED,
            Self::Io { .. } | Self::Exists { .. } | Self::Busy { .. } => exit::FAILED,
        }
    }

    /// Returns a closure for `map_err`.
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}
