//! Errors of the report.

use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::sql::SqlError;
use crate::store::StoreError;

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
    /// A query result has other columns than expected. This is a bug.
    #[error("a query result does not have the expected columns")]
    Answer(#[from] ArrowError),
}
