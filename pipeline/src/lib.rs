//! Turns a music archive into a versioned feature store in Parquet that can be queried with SQL.
//!
//! [`run::run`] is the whole flow. The folders are its stages, in the order of the table in ARCHITECTURE.md.

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
