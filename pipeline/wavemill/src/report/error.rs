//! Errors of the report.

use arrow::error::ArrowError;
use wavemill_schemas::exit;
use wavemill_sql::SqlError;
use wavemill_store::StoreError;

/// Errors that prevent a report from being written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An SQL query failed because a table is missing or damaged.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The result of a query has other columns than expected, which is a bug.
    #[error("a query result does not have the expected columns")]
    Answer(#[from] ArrowError),
}

impl ReportError {
    /// Returns the exit code of a command that failed with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Sql(error) => error.exit_code(),
            Self::Answer(_) => exit::FAILED,
        }
    }
}
