//! Writes feature rows, which arrive in any order, as row groups in plan order: one Parquet file per shard and feature.
//!
//! The calling thread restores plan order and appends to files. The workers encode, because compression is most of the
//! cost. This module does not depend on how a feature was computed.

mod checksums;
mod encode;
mod file;
mod finished;
mod key;
mod rows;
mod taken;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

use parquet::errors::ParquetError;

pub use encode::{EncodedGroup, Format, RowGroup};
pub use file::write_table;
pub use finished::FinishedShards;
pub use key::KeyInputs;
pub use rows::{AudioFacts, FeatureRow};
pub use taken::{RowReader, RowRun, TAKEN_BATCH_ROWS, TakenClip, TakenRow, TakenRows};
pub use write::{FinishedShard, Outcome, ShardTask, ShardWriter, WriterArgs};

/// The error type of writing shards.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A file system operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The underlying error.
        source: std::io::Error,
    },
    /// Parquet could not write a row group.
    #[error("{path}: cannot write row group {row_group}")]
    Write {
        /// The file.
        path: PathBuf,
        /// From 0.
        row_group: usize,
        /// The underlying error.
        source: ParquetError,
    },
    /// Rows of an earlier version cannot be read, although the file's content is the committed one.
    #[error("{path}: cannot read rows to copy them; use --recompute to compute all rows")]
    Read {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: ParquetError,
    },
    /// Rows could not be put into columns.
    #[error("feature {feature}: cannot encode row group {row_group} of shard {shard}")]
    Encode {
        /// Its name.
        feature: String,
        /// The shard's label.
        shard: String,
        /// From 0.
        row_group: usize,
        /// The underlying error.
        source: ParquetError,
    },
    /// A metadata table cannot be assembled.
    #[error("metadata table")]
    Table(#[source] arrow::error::ArrowError),
    /// Metadata that is not JSON; cannot happen with checked recipes.
    #[error("shard metadata")]
    Json(#[from] serde_json::Error),
}

impl ShardError {
    /// Returns the I/O error that caused this error, if any.
    pub fn io(&self) -> Option<&std::io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Write {
                source: ParquetError::External(cause),
                ..
            }
            | Self::Read {
                source: ParquetError::External(cause),
                ..
            } => cause.downcast_ref(),
            _ => None,
        }
    }
}

/// Reports whether reading Parquet failed because of the disk, which is not damage of the store.
pub fn is_failing_disk(error: &ParquetError) -> bool {
    match error {
        ParquetError::External(cause) => cause.is::<std::io::Error>(),
        _ => false,
    }
}
