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
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser};
use wavemill_runtime::panics;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::number::number;
use wavemill_schemas::version_name::VersionName;
use wavemill_store::{Store, StoreError, StorePlace};
use wavemill_terminal::command::{self, Subcommand, subcommand, with_subcommands};
use wavemill_terminal::exit::{UsageError, finish};
use wavemill_terminal::interrupt::at_once;
use wavemill_terminal::output::OutputArgs;
use wavemill_terminal::with_local_paths;

use completions::CompletionsCommand;

const AFTER_HELP: &str = "\
Examples:
  wavemill demo     # creates a small data set, extracts and queries it
  wavemill extract --recipe fma-large --metadata fma_metadata.zip \\
      --audio fma_large.zip --store store
  wavemill sql --store store \\
      'SELECT track_genre_top, count(*) FROM tracks GROUP BY 1 ORDER BY 2 DESC'
  wavemill features song.mp3 --recipe fma-large --feature log_mel \\
      --format npy --out song.npy

Exit codes: 0 ok, 1 failed, 2 wrong usage or recipe, 3 store damaged, 4 store of another plan, 5 no space or read-only, \
7 another wavemill is writing the store, 130 interrupted.";

/// Exit codes of the commands that read a store.
const READER_EXIT_CODES: &str =
    "Exit codes: 0 ok, 1 failed, 2 wrong usage, or no such store or version, 3 store damaged.";

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

/// Turn a music archive into a versioned feature store in Parquet that can be queried with SQL
#[derive(Debug, Parser)]
#[command(name = "wavemill", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    output: OutputArgs,
}

/// Returns the subcommands, in the order of the help.
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
fn definition() -> clap::Command {
    with_subcommands(Cli::command(), subcommands())
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

    let matches = match wavemill_terminal::parse(definition(), args) {
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

/// Parses a command from `line` as if it had been typed, so that the defaults of its flags apply.
///
/// # Errors
/// An error of clap if the line is wrong.
pub fn command_of<C: Args>(line: &[&OsStr]) -> Result<C> {
    let command = C::augment_args(clap::Command::new("wavemill").no_binary_name(true));
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
    use super::*;

    /// Width in columns of the narrowest terminal that help is formatted for.
    const TERMINAL_COLUMNS: usize = 80;

    fn list(command: clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
        let name = format!("{name} {}", command.get_name());
        command
            .get_subcommands()
            .for_each(|one| list(one.clone(), &name, found));
        found.push((name, command));
    }

    /// Examples appear in the help exactly as written, so that they can be copied; other lines may be wrapped.
    #[test]
    fn help_examples_are_valid() {
        let mut commands = Vec::new();
        list(definition(), "", &mut commands);
        assert!(commands.len() > 14);

        for (name, command) in commands {
            let written = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let shown = command
                .term_width(TERMINAL_COLUMNS)
                .render_long_help()
                .to_string();

            let examples: Vec<&str> = written
                .lines()
                .filter(|line| line.starts_with("  "))
                .collect();
            assert!(
                !examples.is_empty() && written.contains("xit code"),
                "{name}: {written}"
            );

            for line in examples {
                assert!(shown.lines().any(|shown| shown == line), "{name}: {line}");
            }
        }
    }
}
