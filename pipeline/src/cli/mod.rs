//! One file a subcommand.

pub mod recipe;
