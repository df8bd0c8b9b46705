//! Why there is no report.

use std::io;
use std::path::PathBuf;

use wavemill_scores::records::RecordError;

use crate::evaluate::ROWS_FORMAT;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// No run there, or its log or result is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The disk's word.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A configuration that is none.
    #[error("{path} is damaged ({problem}): restore it from a copy of the run")]
    Config {
        /// The file.
        path: PathBuf,
        /// How it shows.
        problem: String,
    },
    /// A file of rows whose bytes are not those that were written.
    #[error(
        "{path} is damaged ({problem}): remove it, or write it again with `wavemill-train eval RUN {flag} FILE`"
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// What writes it.
        flag: &'static str,
        /// How it shows.
        problem: String,
    },
    /// A file of rows by a later wavemill.
    #[error(
        "{path}: format {found}; this wavemill-train reads up to {ROWS_FORMAT}: use a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}
