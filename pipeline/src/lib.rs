//! From a music archive to a versioned feature store in Parquet that answers SQL.
//!
//! [`run::run`] is the whole flow; the modules are its stages, in the order of ARCHITECTURE.md's table.

pub mod account;
pub mod batch;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod clip;
pub mod course;
pub mod decode;
pub mod duplicates;
pub mod durable;
pub mod engine;
pub mod event;
pub mod extract;
pub mod features;
pub mod laps;
pub mod panics;
pub mod plan;
pub mod pool;
pub mod preview;
pub mod reader;
pub mod refusal;
pub mod run;
pub mod segments;
pub mod settings;
pub mod shards;
pub mod source;
pub mod space;
pub mod sql;
pub mod store;
pub mod tables;
pub mod worker;
