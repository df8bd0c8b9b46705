//! Errors of the report.

use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
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
    /// A shard cannot be read.
    #[error(
        "{path}: cannot read its rows; `wavemill verify` names every damaged file and the remedy"
    )]
    Read {
        /// Path of the shard.
        path: PathBuf,
        /// Error of the Parquet reader.
        source: ParquetError,
    },
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
            Self::Read { .. } => exit::DAMAGED,
            Self::Answer(_) => exit::FAILED,
        }
    }
}
