//! Errors of the report.

use std::io;
use std::path::PathBuf;

use wavemill_schemas::exit;
use wavemill_scores::records::RecordError;

use crate::evaluate::ROWS_FORMAT;

/// Errors that prevent a report from being written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The folder contains no run, or its log or result is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file of the run is damaged.
    #[error("{path} is damaged ({problem}): {remedy}")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
        /// Advice for this file.
        remedy: String,
    },
    /// A file of rows was written by a later version of wavemill.
    #[error(
        "{path}: format {found}; this wavemill-train reads up to {ROWS_FORMAT}: use a newer one"
    )]
    Newer {
        /// Path of the file.
        path: PathBuf,
        /// Format version of the file.
        found: u32,
    },
}

impl ReportError {
    /// Returns the exit code of a command that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Record(error) => error.exit_code(),
            Self::Damaged { .. } => exit::DAMAGED,
            Self::Newer { .. } => exit::USAGE,
            Self::Read { .. } => exit::FAILED,
        }
    }
}
