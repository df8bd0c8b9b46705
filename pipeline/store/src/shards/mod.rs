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

pub use encode::{EncodedGroup, Format, RowGroup};
pub use file::write_table;
pub use finished::FinishedShards;
pub use key::KeyInputs;
pub use rows::FeatureRow;
pub use taken::{RowReader, RowRun, TAKEN_BATCH_ROWS, TakenClip, TakenRow, TakenRows};
pub use write::{FinishedFile, FinishedShard, Outcome, ShardTask, ShardWriter, WriterArgs};
