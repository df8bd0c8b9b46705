//! The command line: one file per subcommand, and the code that they share. Data goes to stdout, everything else to
//! stderr.

pub mod backend;
pub mod catalog;
pub mod clips;
mod completions;
pub mod demo;
mod devices;
pub mod exit;
pub mod experiment;
pub mod export;
pub mod extract;
pub mod features;
mod interrupt;
mod model_answers;
pub mod program;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod serve;
pub mod sql;
pub mod steps;
pub mod store;
pub mod tag;
pub mod train;
mod views;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Command};
use serde::Serialize;
use wavemill_runtime::panics;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::number::number;
use wavemill_schemas::text::shown_lines;
use wavemill_schemas::version_name::VersionName;
use wavemill_store::{Store, StoreError, StorePlace};
use wavemill_terminal::command::{self, Subcommand, subcommand, with_subcommands};
use wavemill_terminal::exit::{UsageError, finish};
use wavemill_terminal::help::with_groups;
use wavemill_terminal::interrupt::at_once;
use wavemill_terminal::output::{self, OutputArgs, stdout};
use wavemill_terminal::with_local_paths;

use completions::CompletionsCommand;

const AFTER_HELP: &str = "\
Examples:
  wavemill demo               # makes a small data set, extracts and queries it
  wavemill help train fit     # the options and examples of a command
  wavemill extract --recipe fma-large --metadata fma_metadata.zip \\
      --audio fma_large.zip --store store
  wavemill sql --store store \\
      'SELECT track_genre_top, count(*) FROM tracks GROUP BY 1 ORDER BY 2 DESC'
  wavemill features song.mp3 --recipe fma-large --feature log_mel \\
      --format npy --out song.npy

Exit codes: 0 ok, 1 failed, 2 wrong usage, recipe, query or configuration, or no such store, version, run or device, \
3 store or checkpoint damaged, 4 store of another plan or feature, 5 no space or read-only, 7 another wavemill is writing \
the store or the output, 9 shards are missing (only `commit`), 130 interrupted.";

// Last lines of commands that a signal ends.
const NOTHING_DONE: &str = "interrupted before anything was done; nothing was written";
const UNCHANGED: &str = "interrupted; nothing was changed";
const RUN_AGAIN: &str = "interrupted; run the same command again to continue";
const UNCHECKED: &str = "interrupted while the version was checked; nothing was changed";
const TAGGED: &str = "interrupted; the tag is either unchanged or completely written";
const REMOVING: &str = "interrupted while removing data; run the same command again to continue";
const NO_PAGE: &str = "interrupted; no page was written";
const COMPUTING: &str = "interrupted while features were computed; the output is not complete";
const UNPREDICTED: &str = "interrupted; some clips have no prediction";
const UNLOADED: &str = "interrupted before the models were loaded";

/// The groups of subcommands in the help, in the order in which a user needs them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start", &["demo", "recipe", "completions"]),
    ("Build", &["extract", "features"]),
    ("Read", &["sql", "info", "report", "export", "catalog"]),
    ("Models", &["train", "predict", "serve", "experiment"]),
    ("Manage", &["verify", "diff", "tag", "gc"]),
    ("Several machines", &["plan", "work", "commit"]),
];

/// Returns the subcommands.
fn subcommands() -> Vec<Subcommand> {
    vec![
        subcommand("extract", NOTHING_DONE, extract::ExtractCommand::run),
        subcommand("plan", NOTHING_DONE, steps::PlanCommand::run),
        subcommand("work", NOTHING_DONE, steps::WorkCommand::run),
        subcommand("commit", RUN_AGAIN, steps::CommitCommand::run),
        subcommand("sql", None, sql::SqlCommand::run),
        subcommand("info", UNCHANGED, store::InfoCommand::run),
        subcommand("verify", UNCHECKED, store::VerifyCommand::run),
        subcommand("tag", TAGGED, tag::TagCommand::run),
        subcommand("gc", REMOVING, store::GcCommand::run),
        subcommand("diff", UNCHANGED, store::DiffCommand::run),
        subcommand("export", NOTHING_DONE, export::ExportCommand::run),
        subcommand("catalog", NOTHING_DONE, catalog::CatalogCommand::run),
        subcommand("report", NO_PAGE, report::ReportCommand::run),
        subcommand("recipe", UNCHANGED, recipe::RecipeCommand::run),
        subcommand("features", COMPUTING, features::FeaturesCommand::run),
        subcommand("demo", RUN_AGAIN, demo::DemoCommand::run),
        subcommand("train", None, train::TrainCommand::run),
        subcommand("predict", UNPREDICTED, train::PredictCommand::run),
        subcommand("serve", UNLOADED, serve::ServeCommand::run),
        subcommand("experiment", RUN_AGAIN, experiment::ExperimentCommand::run),
        subcommand("completions", UNCHANGED, CompletionsCommand::run),
    ]
}

/// Returns the definition of the command line.
fn definition() -> Command {
    let program = Command::new("wavemill")
        .about("Turn a music archive into a versioned feature store in Parquet that can be queried with SQL")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER_HELP);
    with_groups(with_subcommands(program, subcommands()), GROUPS)
}

/// Turns `help train fit` into `train fit --help`, because the trainer, another program, has the help of its commands.
fn trainers_help(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.len() > 2 && args[1] == "help" && args[2] == "train" {
        args.remove(1);
        args.push("--help".into());
    }
    args
}

/// Runs the command line `args`, whose first word is the path of the program, and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    // This call precedes all code that could panic: from here on, a panic is reported in one line.
    panics::silence();
    wavemill_terminal::raise_file_limit();

    // Only builds for the tests contain fail points; other builds ignore the variable `FAILPOINTS`.
    if fail::has_failpoints() && std::env::var_os("FAILPOINTS").is_some() {
        // Dropping the scenario would disable the fail points.
        std::mem::forget(fail::FailScenario::setup());
    }

    let matches = match wavemill_terminal::parse(definition(), trainers_help(args)) {
        Ok(matches) => matches,
        Err(code) => return code,
    };

    let ended = panics::caught(|| command::run(&subcommands(), &matches, at_once));
    let ended = ended.unwrap_or_else(|panic| Err(panic.into()));
    let read = wavemill_store::traffic();
    if OutputArgs::get().verbose && read.bytes > 0 {
        wavemill_terminal::say!("{read}");
    }
    match ended {
        // The child program has already reported the reason.
        Err(error) if error.is::<exit::ChildFailure>() => exit::code(&error),
        ended => finish(ended, exit::code),
    }
}

/// The version of a store that a command reads.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    pub store: StorePlace,
    /// Version, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    pub version: Option<VersionName>,
}

impl VersionArgs {
    /// Opens the store. Returns it with the number and the manifest of the version, whose data `gc` has not removed.
    ///
    /// # Errors
    /// `StoreError` if the store has no such version, or it cannot be read.
    fn open(&self) -> Result<(Store, u64, Manifest), StoreError> {
        let store = Store::open(&self.store)?;
        let (version, manifest) = store.readable(store.resolve(self.version.as_ref())?)?;
        Ok((store, version, manifest))
    }

    /// Opens the version like [`VersionArgs::open`], for a command that writes to `out`.
    ///
    /// # Errors
    /// [`UsageError`] if `out` is in the store; the errors of [`VersionArgs::open`].
    fn open_outside(&self, out: &Path) -> Result<(Store, u64, Manifest)> {
        let opened = self.open()?;
        require_outside(&opened.0, out)?;
        Ok(opened)
    }
}

/// Rejects an output path in a store: only extraction runs may write into its folder.
fn require_outside(store: &Store, out: &Path) -> Result<(), UsageError> {
    if store.encloses(out) {
        let message = format!("--out {}: must be outside the store", out.display());
        return Err(UsageError(message));
    }
    Ok(())
}

/// The time that a command waits for a store that another command is writing.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// Wait up to SECONDS for another wavemill that is writing the store
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 0, value_parser = number::<u64>(0..))]
    pub seconds: u64,
}

impl WaitArgs {
    const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Prints the report of a command, as JSON on stdout or as text on stderr, and returns the exit code.
fn print_report(
    report: &impl Serialize,
    as_json: bool,
    text: impl FnOnce() -> String,
) -> Result<u8> {
    if as_json {
        writeln!(stdout(), "{}", serde_json::to_string(report)?)?;
    } else {
        output::report(&shown_lines(&text()));
    }
    Ok(0)
}

/// Parses a command from `line` as if it had been typed, so that the defaults of its flags apply.
///
/// # Errors
/// An error of clap if the line is wrong.
pub fn command_of<C: Args>(line: &[&OsStr]) -> Result<C> {
    let command = C::augment_args(Command::new("wavemill").no_binary_name(true));
    let command = with_local_paths(command);
    Ok(C::from_arg_matches(&command.try_get_matches_from(line)?)?)
}

/// Parses the options of a command as if they had been typed. The error does not contain the usage.
///
/// # Errors
/// [`UsageError`] if an option does not exist or has a wrong value.
pub fn from_options<C: Args>(options: &[OsString]) -> Result<C> {
    let line: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
    command_of(&line).map_err(|error| {
        let message = error.to_string();
        // The usage and the hint at --help follow after an empty line.
        let first = message.split("\n\n").next().unwrap_or_default();
        UsageError(first.trim_start_matches("error: ").to_owned()).into()
    })
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    /// Names of the subcommands of `command` in their order in the definition.
    fn names(command: &Command) -> Vec<&str> {
        command.get_subcommands().map(Command::get_name).collect()
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        grouped.sort_unstable();

        let definition = definition();
        let mut defined = names(&definition);
        defined.sort_unstable();
        assert_eq!(grouped, defined);
    }

    #[test]
    fn examples_of_the_help_can_be_parsed() {
        for (page, words) in wavemill_tests::help_examples("wavemill") {
            // The trainer parses its own command lines.
            let args = trainers_help(words.iter().map(OsString::from));
            let parsed = definition().try_get_matches_from(args);
            assert!(parsed.is_ok(), "{page}: {words:?}: {:?}", parsed.err());
        }
    }

    #[test]
    fn help_of_the_trainer_is_asked_of_the_trainer() {
        for (line, wanted) in [
            ("wavemill help train fit", "wavemill train fit --help"),
            ("wavemill help train", "wavemill train --help"),
            ("wavemill help sql", "wavemill help sql"),
            ("wavemill help", "wavemill help"),
        ] {
            let args = trainers_help(line.split(' ').map(OsString::from));
            let wanted: Vec<&str> = wanted.split(' ').collect();
            assert_eq!(args, wanted);
        }
    }

    #[test]
    fn rare_options_are_in_the_complete_help_only() {
        let page = |line: &str| {
            let args: Vec<&str> = line.split(' ').collect();
            let command = wavemill_terminal::help::with_pages(definition(), line.ends_with("-all"));
            let error = command.try_get_matches_from(args).expect_err("help");
            assert_eq!(error.kind(), ErrorKind::DisplayHelp);
            error.to_string()
        };

        let short = page("wavemill extract --help");
        assert!(!short.contains("--renumber"), "{short}");
        assert!(
            short.ends_with("--help-all shows 9 more options.\n"),
            "{short}"
        );

        let all = page("wavemill extract --help-all");
        assert!(all.contains("--renumber"), "{all}");
        assert!(!all.contains("more options."), "{all}");

        // No option of `plan` is its own.
        assert!(!page("wavemill plan --help").contains("--limit"));
        assert!(page("wavemill plan --help-all").contains("--limit"));
    }
}
