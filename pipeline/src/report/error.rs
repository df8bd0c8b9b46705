//! Why there is no report.

use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::sql::SqlError;
use crate::store::StoreError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A question to the version failed: a table is lost or damaged.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A shard that cannot be read.
    #[error(
        "{path}: cannot read its rows; `wavemill verify` names every damaged file and says what helps"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// An answer has other columns than were asked for; cannot happen.
    #[error("an answer of the store cannot be understood")]
    Answer(#[from] ArrowError),
}
