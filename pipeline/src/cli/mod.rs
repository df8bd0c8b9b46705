//! The command line: one file a subcommand, and what they share. Data goes to stdout, everything else to stderr.

pub mod backend;
pub mod demo;
pub mod exit;
pub mod extract;
pub mod features;
pub mod progress;
pub mod recipe;
pub mod sql;
pub mod store;
pub mod train;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

const AFTER_HELP: &str = "\
Examples:
  wavemill demo                                     # makes a small data set, extracts it, asks it questions
  wavemill extract --recipe fma-large --metadata fma_metadata.zip --audio fma_large.zip --store store
  wavemill sql --store store 'SELECT track_genre_top, count(*) FROM tracks GROUP BY 1 ORDER BY 2 DESC'
  wavemill features song.mp3 --recipe fma-large --feature log_mel --format npy --out song.npy

Exit codes: 0 ok, 1 failed, 2 usage or recipe, 3 store damaged, 4 store of another plan, 5 no space or read-only,
130 interrupted.";

/// From a music archive to a versioned feature store in Parquet that answers SQL
#[derive(Debug, Parser)]
#[command(name = "wavemill", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Extract(extract::ExtractCommand),
    Sql(sql::SqlCommand),
    Info(store::InfoCommand),
    Verify(store::VerifyCommand),
    Gc(store::GcCommand),
    Diff(store::DiffCommand),
    Recipe(recipe::RecipeCommand),
    Features(features::FeaturesCommand),
    Demo(demo::DemoCommand),
    Train(train::TrainCommand),
    Predict(train::PredictCommand),
    /// Write a shell's completion script to stdout
    #[command(
        after_help = "Example:\n  wavemill completions bash > ~/.local/share/bash-completion/completions/wavemill"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> u8 {
    silence_worker_panics();
    if cfg!(debug_assertions) {
        // Faults that the tests inject by the environment; a release build has them compiled in but never armed.
        let _ = std::env::var_os("FAILPOINTS").map(|_| std::mem::forget(fail::FailScenario::setup()));
    }
    match run(Cli::parse().command) {
        Ok(()) => 0,
        Err(error) if exit::is_broken_pipe(&error) => 0,
        Err(error) if error.is::<exit::Said>() => exit::code(&error),
        Err(error) => {
            eprintln!("wavemill: {}", exit::words(&error));
            exit::code(&error)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Extract(command) => command.run(),
        Command::Sql(command) => command.run(),
        Command::Info(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Recipe(command) => command.run(),
        Command::Features(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where its reader has gone.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wavemill", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
    }
}

/// A worker's panic becomes a reject with its message: printing it too would look like a crash.
fn silence_worker_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        if !name.starts_with(crate::pool::WORKER_NAME) {
            default(info);
        }
    }));
}

/// Writes `path` under a temporary name first: a command that fails leaves no half file behind, and an old file as it was.
fn write_whole<T>(path: &Path, write: impl FnOnce(BufWriter<File>) -> Result<T>) -> Result<T> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let file = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let written = write(BufWriter::new(file)).and_then(|value| {
        std::fs::rename(&part, path).map(|()| value).with_context(|| format!("cannot write {}", path.display()))
    });
    if written.is_err() {
        // What is left of it is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    written
}
