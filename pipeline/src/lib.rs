//! From a music archive to a versioned feature store in Parquet that answers SQL.

pub mod catalog;
pub mod cli;
pub mod decode;
pub mod source;
pub mod sql;
