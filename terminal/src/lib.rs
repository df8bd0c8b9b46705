//! Code shared by the command lines of `wavemill` and `wavemill-train`: global options, progress, signals, exit codes
//! and output files.
//!
//! This crate does not depend on stores, runs or models.

pub mod display;
pub mod exit;
pub mod files;
pub mod interrupt;
pub mod output;

use std::any::TypeId;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Command, Parser};
use wavemill_schemas::local_path::require_local;

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Parses the command line of this process. Ends the process if help is requested (exit code 0) or the command line is
/// wrong (2).
pub fn parse<C: Parser>() -> C {
    let command = with_local_paths(C::command());
    // Only the first command line sets the program's name.
    let _ = PROGRAM.set(command.get_name().to_owned());
    C::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Returns the name of this program, which is the prefix of its messages.
fn program() -> &'static str {
    PROGRAM.get().map_or("wavemill", String::as_str)
}

/// Makes every option of `command` that takes a path reject addresses such as `s3://bucket/store`.
fn with_local_paths(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if arg.get_value_parser().type_id() != TypeId::of::<PathBuf>() {
            return arg;
        }
        arg.value_parser(PathBufValueParser::new().try_map(require_local))
    });
    command.mut_subcommands(with_local_paths)
}
