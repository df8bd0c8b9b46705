//! The error of a run's files.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Classified, Kind, PlainError};

/// The reason why the folder of a run, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum RunFilesError {
    /// A file system operation on a run's files failed.
    #[error("{path}: cannot {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    /// The content of a run's file is invalid. Lines are numbered from 1, in a file with one value per line.
    #[error("{path}{}: not a valid file of a run", line.map_or(String::new(), |line| format!(", line {line}")))]
    Json {
        path: PathBuf,
        line: Option<usize>,
        source: serde_json::Error,
    },
    /// The folder for a new run already contains a run.
    #[error("{path}: a run already exists; continue it with --resume, or choose another id")]
    Exists { path: PathBuf },
    /// The folder does not contain a run, but what `found` says.
    #[error("{path}: not a run ({found}); give a folder that `wavemill train fit` created")]
    Missing { path: PathBuf, found: String },
    /// Any other error, for example of an invalid name for a run.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for RunFilesError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::Usage,
            Self::Json { .. } => Kind::Damaged,
            Self::Io { .. } | Self::Exists { .. } => Kind::Failed,
            Self::Other(error) => error.kind(),
        }
    }
}

impl RunFilesError {
    /// Returns a closure for `map_err` that adds a path and the failed operation to an I/O error.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    /// Returns a closure for `map_err` that adds a path, and the number of a line, to an error of the JSON parser.
    pub fn json(path: &Path, line: Option<usize>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Json { path, line, source }
    }
}
