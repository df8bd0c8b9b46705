//! Errors of reading runs for a report.

use std::io;
use std::path::PathBuf;

use wavemill_schemas::exit;
use wavemill_scores::records::RecordError;

use super::ROWS_FORMAT;

/// Error that prevents a report from being written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The folder contains no run, or the log or result in it is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file of the run cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Path of the unreadable file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The contents of a file of the run are damaged.
    #[error("{path} is damaged ({problem}): {remedy}")]
    Damaged {
        /// Path of the damaged file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
        /// Advice on how to replace the file.
        remedy: String,
    },
    /// A file with predictions or a map was written by a later version of wavemill.
    #[error(
        "{path}: format {found}; this wavemill-train reads up to {ROWS_FORMAT}: use a newer one"
    )]
    Newer {
        /// Path of the file with predictions or a map.
        path: PathBuf,
        /// Format version found in the file.
        found: u32,
    },
}

impl ReportError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Record(error) => error.exit_code(),
            Self::Damaged { .. } => exit::DAMAGED,
            Self::Newer { .. } => exit::USAGE,
            Self::Read { .. } => exit::FAILED,
        }
    }
}
