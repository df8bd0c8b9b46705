//! One file a subcommand.

pub mod sql;
