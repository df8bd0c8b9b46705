//! The command line: one file per subcommand, and the code that they share. Data goes to stdout, everything else to
//! stderr.

pub mod backend;
pub mod catalog;
pub mod clips;
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
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use wavemill_runtime::panics;
use wavemill_terminal::exit::{UsageError, finish};
use wavemill_terminal::interrupt::at_once;
use wavemill_terminal::output::{OutputArgs, stdout};
use wavemill_terminal::with_local_paths;

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

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  wavemill completions bash \\
      > ~/.local/share/bash-completion/completions/wavemill
  wavemill completions zsh > ~/.zfunc/_wavemill
  wavemill completions fish > ~/.config/fish/completions/wavemill.fish

Exit codes: 0 ok, 1 failed, 2 wrong usage.";

/// Turn a music archive into a versioned feature store in Parquet that can be queried with SQL
#[derive(Debug, Parser)]
#[command(name = "wavemill", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Extract(extract::ExtractCommand),
    Plan(steps::PlanCommand),
    Work(steps::WorkCommand),
    Commit(steps::CommitCommand),
    Sql(sql::SqlCommand),
    Info(store::InfoCommand),
    Verify(store::VerifyCommand),
    Tag(tag::TagCommand),
    Gc(store::GcCommand),
    Diff(store::DiffCommand),
    Export(export::ExportCommand),
    Catalog(catalog::CatalogCommand),
    Report(report::ReportCommand),
    Recipe(recipe::RecipeCommand),
    Features(features::FeaturesCommand),
    Demo(demo::DemoCommand),
    Train(train::TrainCommand),
    Predict(train::PredictCommand),
    Serve(serve::ServeCommand),
    Experiment(experiment::ExperimentCommand),
    /// Write a shell's completion script to stdout
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Shell to write the script for
        shell: Shell,
    },
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

    let Cli { command, output } = match wavemill_terminal::parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    output.set();

    let ended = panics::caught(|| run(command)).unwrap_or_else(|panic| Err(panic.into()));
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

/// Returns the message for a signal that arrives while the command runs; `None` if the command handles signals itself.
const fn interrupted(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Sql(_) | Command::Train(_) => return None,
        Command::Extract(_)
        | Command::Plan(_)
        | Command::Work(_)
        | Command::Export(_)
        | Command::Catalog(_) => "interrupted before anything was done; nothing was written",
        Command::Commit(_) => "interrupted; run the same command again to continue",
        Command::Verify(_) => "interrupted while the version was checked; nothing was changed",
        Command::Report(_) => "interrupted; no page was written",
        Command::Tag(_) => "interrupted; the tag is either unchanged or completely written",
        Command::Gc(gc) if gc.dry_run() => "interrupted; nothing was removed",
        Command::Gc(_) => "interrupted while removing data; run the same command again to continue",
        Command::Features(_) => {
            "interrupted while features were computed; the output is not complete"
        }
        Command::Demo(_) => "interrupted; run the same command again to continue",
        Command::Predict(_) => "interrupted; some clips have no prediction",
        Command::Serve(_) => "interrupted before the models were loaded",
        Command::Experiment(_) => "interrupted; run the same command again to continue",
        Command::Info(_) | Command::Diff(_) | Command::Recipe(_) | Command::Completions { .. } => {
            "interrupted; nothing was changed"
        }
    })
}

fn run(command: Command) -> Result<u8> {
    if let Some(words) = interrupted(&command) {
        at_once(words)?;
    }

    let ran = match command {
        Command::Extract(command) => return command.run(),
        Command::Plan(command) => return command.run(),
        Command::Work(command) => return command.run(),
        Command::Commit(command) => return command.run(),
        Command::Sql(command) => command.run(),
        Command::Info(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Tag(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Catalog(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Recipe(command) => command.run(),
        Command::Features(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Experiment(command) => command.run(),
        Command::Completions { shell } => {
            // The script is generated in memory first, because the generator panics if the reader closes its pipe.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wavemill", &mut script);
            Ok(stdout().write_all(&script)?)
        }
    };
    ran.map(|()| 0)
}

/// The time that a command waits for a store that another command is writing.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// Wait up to SECONDS for another wavemill that is writing the store
    #[arg(long = "wait", value_name = "SECONDS", default_value_t = 0)]
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

    fn with_subcommands(
        command: clap::Command,
        name: &str,
        found: &mut Vec<(String, clap::Command)>,
    ) {
        let name = format!("{name} {}", command.get_name());
        command
            .get_subcommands()
            .for_each(|one| with_subcommands(one.clone(), &name, found));
        found.push((name, command));
    }

    /// Examples appear in the help exactly as written, so that they can be copied; other lines may be wrapped.
    #[test]
    fn help_examples_are_valid() {
        let mut commands = Vec::new();
        with_subcommands(Cli::command(), "", &mut commands);
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
