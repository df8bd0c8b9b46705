//! The command `wavemill`: from a music archive to a versioned feature store in Parquet that answers SQL.

pub mod cli;

mod export;
mod quote;
mod report;
mod serve;
mod sql_server;
