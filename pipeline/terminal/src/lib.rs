//! Code shared by the command lines of `wavemill` and `wavemill-train`: global options, progress, signals, exit codes
//! and output files.
//!
//! This crate does not depend on stores, runs or models.

pub mod command;
pub mod display;
pub mod exit;
pub mod files;
pub mod help;
pub mod interrupt;
pub mod output;

use std::any::TypeId;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgMatches, Command, FromArgMatches};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wavemill_schemas::exit::Kind;
use wavemill_schemas::local_path::require_local;
use wavemill_schemas::version_name::VERSIONS_FOLDER;

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
    let args: Vec<OsString> = args.into_iter().collect();
    let shows_all = args.iter().any(|arg| arg == "--help-all");
    let command = help::with_pages(with_local_paths(definition), shows_all);
    // Only the first command line sets the program's name.
    let _ = PROGRAM.set(command.get_name().to_owned());

    let parsed = command.clone().try_get_matches_from(&args);
    let parsed = parsed.or_else(|error| {
        let again = with_store_option(&args).map(|args| command.try_get_matches_from(args));
        again.and_then(Result::ok).ok_or(error)
    });
    let parsed = parsed.and_then(|matches| {
        OutputArgs::from_arg_matches(&matches)?.set();
        Ok(matches)
    });
    parsed.map_err(|error| {
        // An error of the terminal cannot be reported on it.
        let _ = match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.print(),
            _ => write!(std::io::stderr(), "{}", brief(&error.to_string())),
        };
        let code = error.exit_code().try_into();
        code.unwrap_or(Kind::Usage.exit_code())
    })
}

/// Shortens the message of an error of the command line to a line for each of its paragraphs, without the last one,
/// which only names `--help`.
fn brief(message: &str) -> String {
    let mut lines = String::new();
    for paragraph in message.trim_end().split("\n\n") {
        if !paragraph.starts_with("For more information") {
            let parts: Vec<&str> = paragraph.lines().map(str::trim).collect();
            lines += &format!("{}\n", parts.join(" "));
        }
    }
    lines
}

/// Returns a command line that cannot be parsed with `--store` before its first word that is the folder of a store, so
/// that `wavemill verify store` has the only meaning that it can have. Returns `None` if there is no such word, or
/// another store is given.
fn with_store_option(words: &[OsString]) -> Option<Vec<OsString>> {
    let is_option = |word: &OsString| word.to_string_lossy().split('=').next() == Some("--store");
    if words.iter().any(is_option) {
        return None;
    }
    let is_store = |word: &OsString| Path::new(word).join(VERSIONS_FOLDER).is_dir();
    let place = words.iter().position(is_store)?;
    let mut words = words.to_vec();
    words.insert(place, "--store".into());
    Some(words)
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

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn stores_are_also_given_by_position() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_str().unwrap();
        let stores = |words: &[&str]| {
            let reads = Command::new("sql").args([
                Arg::new("store").long("store").required(true),
                Arg::new("query"),
                Arg::new("x").long("x"),
            ]);
            let program = Command::new("wavemill").subcommand(reads);
            let parsed = parse(program, words.iter().map(OsString::from))?;
            let (_, reads) = parsed.subcommand().unwrap();
            let value = |name| reads.get_one::<String>(name).cloned();
            Ok([value("store"), value("query")])
        };

        assert_eq!(stores(&["wavemill", "sql", store, "SELECT 1"]), Err(2));

        std::fs::create_dir_all(folder.path().join(VERSIONS_FOLDER)).unwrap();
        let query = Some("SELECT 1".to_owned());
        for words in [
            &["wavemill", "sql", store, "SELECT 1"][..],
            &["wavemill", "sql", "SELECT 1", store],
            &["wavemill", "sql", "--store", store, "SELECT 1"],
        ] {
            let want = Ok([Some(store.to_owned()), query.clone()]);
            assert_eq!(stores(words), want, "{words:?}");
        }
        assert_eq!(
            stores(&["wavemill", "sql", store]),
            Ok([Some(store.to_owned()), None])
        );
        for wrong in [
            &["wavemill", "sql", "--x", store, "SELECT 1"][..],
            &["wavemill", "sql", "--store", "a", "SELECT 1", store],
        ] {
            assert_eq!(stores(wrong), Err(2), "{wrong:?}");
        }
    }
}
