//! The command `wavemill`: from a music archive to a versioned feature store in Parquet that answers SQL.

pub mod cli;
#[cfg(fuzzing)]
pub mod fuzzing;

mod export;
mod quote;
mod report;
mod serve;
