//! What a run leaves behind: `runs/<id>/` with its configuration, its log, TensorBoard events, checkpoints and result.
//!
//! The JSONL log is the truth; the events repeat its figures for tools that read those. Times stand in these two and
//! nowhere else. Writes no checkpoint, it only says where they lie.

mod log;
mod run_dir;
mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};

pub use log::{Entry, Log, read_log};
pub use run_dir::{RunDir, run_stem};
pub use tensorboard::{EventPicture, EventWriter, ResumePoint};

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system said no.
    #[error("{path}: cannot {action}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Such as `write`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{path}{}: not what a run writes there", line.map_or(String::new(), |line| format!(", line {line}")))]
    Json {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1, of a file with one value a line.
        line: Option<usize>,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A configuration that TOML cannot hold.
    #[error("{path}: cannot write")]
    Config {
        /// Which file.
        path: PathBuf,
        /// The writer's reason.
        source: toml::ser::Error,
    },
    /// An id that would be no folder of its own.
    #[error("{id:?} is no name for a run: one folder name is wanted")]
    Id {
        /// As given.
        id: String,
    },
    /// A new run where there is one.
    #[error("{path}: there is a run already; go on with it by --resume, or choose another id")]
    Exists {
        /// Its folder.
        path: PathBuf,
    },
    /// No run there.
    #[error("{path}: no run (no config.toml)")]
    Missing {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A folder of something else.
    #[error(
        "{path}: no run, and not empty ({name:?}): name a folder that is not there, to begin a run in it"
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        name: String,
    },
    /// A run of which only the scores are left.
    #[error(
        "{path}: this run has a result and no checkpoint: there is nothing to go on from; name another folder"
    )]
    Ended {
        /// Its folder.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("{path}: another process is writing this run")]
    Busy {
        /// Its log.
        path: PathBuf,
    },
}

impl RecordError {
    /// For `map_err`.
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}
