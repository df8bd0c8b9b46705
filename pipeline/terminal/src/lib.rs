//! Code shared by the command lines of `wavemill` and `wavemill-train`: global options, progress, signals, exit codes
//! and output files.
//!
//! This crate does not depend on stores, runs or models.

pub mod command;
pub mod display;
pub mod exit;
pub mod files;
pub mod interrupt;
pub mod output;

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgMatches, Command, FromArgMatches};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wavemill_schemas::exit::Kind;
use wavemill_schemas::local_path::require_local;

use output::OutputArgs;

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Lets this process open as many files as the system permits: many threads that each keep some shards open need more
/// than the usual 1024. If that fails, the limit stays as it is.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Parses a command line, whose first word is the path of the program, and applies the options of all commands.
///
/// # Errors
/// The exit code, after help was printed (0) or an error of the command line (2).
pub fn parse(
    definition: Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, u8> {
    let command = with_local_paths(definition);
    // Only the first command line sets the program's name.
    let _ = PROGRAM.set(command.get_name().to_owned());

    let parsed = command.try_get_matches_from(args).and_then(|matches| {
        OutputArgs::from_arg_matches(&matches)?.set();
        Ok(matches)
    });
    parsed.map_err(|error| {
        // An error of the terminal cannot be reported on it.
        let _ = error.print();
        let code = error.exit_code().try_into();
        code.unwrap_or(Kind::Usage.exit_code())
    })
}

/// Returns the name of this program, which is the prefix of its messages.
fn program() -> &'static str {
    PROGRAM.get().map_or("wavemill", String::as_str)
}

/// Makes every option of `command` that takes a path reject addresses such as `s3://bucket/store`. Also permits
/// repeated options, of which the last one applies, so that a script can override an option.
pub fn with_local_paths(command: Command) -> Command {
    let command = command.args_override_self(true).mut_args(|arg| {
        if arg.get_value_parser().type_id() != TypeId::of::<PathBuf>() {
            return arg;
        }
        arg.value_parser(PathBufValueParser::new().try_map(require_local))
    });
    command.mut_subcommands(with_local_paths)
}
