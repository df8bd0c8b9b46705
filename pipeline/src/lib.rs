//! From a music archive to a versioned feature store in Parquet that answers SQL.
//!
//! [`run::run`] is the whole flow. The folders are its stages, in the order of ARCHITECTURE.md's table.

pub mod catalog;
pub mod cli;
pub mod decode;
pub mod run;
pub mod settings;
pub mod source;

mod budget;
mod changes;
mod course;
mod export;
mod extract;
mod features;
mod panics;
mod parent;
mod pictures;
mod plan;
mod report;
mod serve;
mod shards;
mod single;
mod sql;
mod store;
mod tensors;
