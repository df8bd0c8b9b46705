//! One file a subcommand.

pub mod recipe;
pub mod sql;
