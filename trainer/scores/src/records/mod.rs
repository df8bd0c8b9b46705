//! The files of a run in `runs/<id>/`: configuration, log, TensorBoard events, checkpoints and result.
//!
//! The log is authoritative; the TensorBoard events repeat its figures for other tools. Times are written only to log
//! and events. This module writes no checkpoints, it only defines their paths.

mod log;
mod run_dir;
mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};

pub use log::{Entry, Log, PROFILE_OTHERS, PROFILE_PARTS, read_log};
pub use run_dir::{RunDir, run_stem};
pub use tensorboard::{EventWriter, ResumePoint};
use wavemill_schemas::exit::{Classified, Kind};

/// The reason why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file system operation on a run's files failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder that was accessed.
        path: PathBuf,
        /// The failed operation, such as `write`.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content of a run's file is invalid.
    #[error("{path}{}: not a valid file of a run", line.map_or(String::new(), |line| format!(", line {line}")))]
    Json {
        /// The invalid file.
        path: PathBuf,
        /// The number of the invalid line, starting at 1, in a file with one value per line.
        line: Option<usize>,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// The id of the run is not the valid name of a single folder.
    #[error("{id:?} is not a valid name for a run: use a single folder name")]
    Id {
        /// The id as the user has given it.
        id: String,
    },
    /// The folder for a new run already contains a run.
    #[error("{path}: a run already exists; continue it with --resume, or choose another id")]
    Exists {
        /// The folder with the existing run.
        path: PathBuf,
    },
    /// The folder does not contain a run.
    #[error("{path}: not a run (no config.toml)")]
    Missing {
        /// The folder in which a run was expected.
        path: PathBuf,
    },
    /// No run can begin in the folder, because it contains other files.
    #[error("{path}: {problem}")]
    Taken {
        /// The folder in which a run should begin.
        path: PathBuf,
        /// Description of the folder's content, and a remedy.
        problem: String,
    },
    /// Another process is writing the run.
    #[error("{path}: another process is writing this run")]
    Busy {
        /// The path of the run's log.
        path: PathBuf,
    },
}

impl Classified for RecordError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::Id { .. } | Self::Taken { .. } => Kind::Usage,
            Self::Json { .. } => Kind::Damaged,
            Self::Io { .. } | Self::Exists { .. } | Self::Busy { .. } => Kind::Failed,
        }
    }
}

impl RecordError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }

    /// Returns a closure for `map_err` that adds a path and the failed operation to an I/O error.
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    /// Returns a closure for `map_err` that adds a path, and the number of a line, to an error of the JSON parser.
    fn json(path: &Path, line: Option<usize>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Json { path, line, source }
    }
}
