//! Why an export ended without its files.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::course::Phase;
use crate::store::StoreError;

/// Why an export ended without its files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// A name that the version does not have, or that has to be given.
    #[error("{option}: this version has {there}")]
    Name {
        /// As typed.
        option: String,
        /// What there is.
        there: String,
    },
    /// A feature that the format cannot hold.
    #[error("--format {format}: {problem}")]
    Unfit {
        /// As typed.
        format: &'static str,
        /// Why, and what helps.
        problem: String,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is not what was committed.
    #[error(
        "{path}: damaged: it is not what was committed; `wavemill verify` names every such file and says what helps"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file that has the right hash, and yet cannot be read as a shard.
    #[error("{path}: cannot read its rows")]
    Read {
        /// The file.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// Rows that are not what docs/store.md says.
    #[error("damaged store: {problem}")]
    Rows {
        /// What is wrong with them.
        problem: String,
    },
    /// The file system refused.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A Parquet file cannot be written.
    #[error("{path}: cannot write it")]
    Write {
        /// The file.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// The disk is too small.
    #[error(
        "--out: about {needed_bytes} bytes are needed and {free_bytes} are free: make room, or write elsewhere"
    )]
    Space {
        /// Of the feature alone.
        needed_bytes: u64,
        /// On its file system.
        free_bytes: u64,
    },
    /// Asked to stop.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// What was being done.
        phase: Phase,
    },
}

impl ExportError {
    pub(super) fn io_at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(super) fn read_at(path: &Path) -> impl Fn(ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Read {
            path: path.clone(),
            source,
        }
    }

    pub(super) fn rows(problem: impl Into<String>) -> Self {
        Self::Rows {
            problem: problem.into(),
        }
    }

    /// Whether the store's disk failed, and not its content.
    #[must_use]
    pub(crate) fn is_failing_disk(&self) -> bool {
        match self {
            Self::Read {
                source: ParquetError::External(cause),
                ..
            } => cause.is::<io::Error>(),
            _ => false,
        }
    }
}
