//! `wavemill train` and `wavemill predict`: start the trainer's program, which is never linked into this one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use wavemill_schemas::run::RunDir;
use wavemill_schemas::text::shown_lines;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::ChildGuard;
use wavemill_terminal::output::{OutputArgs, ProgressFormat, stdout};

use super::clips::ClipArgs;
use super::exit::ChildFailure;
use super::model_answers::ModelAnswers;
use super::program::{beside, not_there, this_program};

/// Name of the trainer's program.
pub(super) const TRAINER: &str = "wavemill-train";
/// Commands that build the trainer, for error messages.
pub(super) const BUILD_TRAINER: &str =
    "`scripts/libtorch.sh && scripts/build.sh -p wavemill-trainer`";
/// Message for a trainer that the system does not start, although it can be loaded.
pub(super) const CANNOT_START: &str = "cannot start wavemill-train";

const PREDICT_EXAMPLES: &str = "\
Examples:
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 song.mp3
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 album/*.mp3 > genres.jsonl
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 archive/ @more.txt > genres.jsonl
  wavemill predict --run runs/plain --run runs/stretched --table *.mp3

With several runs, each line also contains `run`, the name of the run's folder. --table prints one line per song and one \
column per run, with the class of most segments and the mean probability of the likeliest class.

Exit code 1 also if a file cannot be read or has no rows: stderr names each, and the others are predicted.";

/// Train and evaluate models (see `wavemill help train`)
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct TrainCommand {
    /// Subcommand of wavemill-train and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "WORDS"
    )]
    words: Vec<OsString>,
}

impl TrainCommand {
    /// Replaces this process by the trainer; returns only on failure.
    ///
    /// # Errors
    /// The trainer's program or a library that it needs is missing, or the program cannot be started.
    pub fn run(&self) -> Result<u8> {
        let mut command = trainer()?;
        command.args(output_args()).args(&self.words);
        // With `exec`, terminal, signals and exit code are the trainer's own, and no process remains in between.
        Err(command.exec()).context(CANNOT_START)
    }
}

/// Predict the genre of audio files with a trained model
#[derive(Debug, Args)]
#[command(after_help = PREDICT_EXAMPLES)]
pub struct PredictCommand {
    #[command(flatten)]
    clips: ClipArgs,
    /// Folder that `wavemill train fit` wrote; may be repeated, for several models side by side
    #[arg(long = "run", value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Print a table instead of JSON lines: one row per song, one column per run
    #[arg(long)]
    table: bool,
}

/// The keys of a run's `input.json` that this program reads.
#[derive(Deserialize)]
struct RunInput {
    feature: String,
}

impl PredictCommand {
    /// Computes features in this program and passes them to the trainer's program, which computes the predictions.
    ///
    /// # Errors
    /// A folder that is not a run, a missing trainer, or the exit code of either program.
    pub fn run(&self) -> Result<u8> {
        // All run folders are checked before the first model computes predictions, which may take an hour.
        let mut features = Vec::new();
        for run in &self.runs {
            features.push(feature_of(run)?);
        }

        let mut answers = ModelAnswers::default();
        let is_collected = self.table || self.runs.len() > 1;
        let mut failed = 0;
        for (run, feature) in self.runs.iter().zip(&features) {
            let mut said = is_collected.then(String::new);
            let code = self.answer(run, feature, said.as_mut())?;
            // The first failure determines the exit code, and the remaining models still predict.
            failed = if failed == 0 { code } else { failed };
            if let Some(said) = said {
                answers.add(&name_among(&self.runs, run), &said)?;
            }
        }

        if self.table && !answers.is_empty() {
            write!(stdout(), "{}", shown_lines(&answers.table()))?;
        } else if is_collected {
            write!(stdout(), "{}", answers.lines())?;
        }
        match failed {
            0 => Ok(0),
            code => Err(ChildFailure { code }.into()),
        }
    }

    /// Runs one model and writes its predictions to `said`, or to stdout if that is `None`. Returns the exit code.
    fn answer(&self, run: &Path, feature: &str, said: Option<&mut String>) -> Result<u8> {
        // The command is this very program, not another one of the same name on PATH.
        let mut features = this_program()
            .arg("features")
            .args(&self.clips.clips)
            .args(flags("--list", &self.clips.lists))
            .arg("--recipe")
            .arg(run.join("recipe.toml"))
            .args(["--feature", feature, "--format", "arrow", "--out", "-"])
            .stdout(Stdio::piped())
            // A signal from the terminal reaches only this program, which ends its child processes itself.
            .process_group(0)
            .spawn()?;
        let mut stream = features.stdout.take().expect("its stdout is a pipe");
        let features = ChildGuard::new(features);

        // If the stream is empty, `features` has already reported the error. The trainer would only report the missing
        // stream.
        let mut first = [0];
        let begins = stream.read(&mut first)? > 0;
        let predicted = if begins {
            predict(run, first.as_slice().chain(stream), said)?
        } else {
            0
        };

        let computed = code_of(features.wait()?);
        // `features` ends with exit code 1 if any clip has no rows, even if the trainer has predicted all others.
        let failed = [predicted, computed].into_iter().find(|code| *code != 0);
        Ok(failed.unwrap_or(0))
    }
}

/// Returns a command that starts the trainer's program, which is there with all of its libraries.
///
/// # Errors
/// [`UsageError`] if the program or one of its libraries is missing; the message states how to get it.
pub(super) fn trainer() -> Result<Command, UsageError> {
    let program = beside(TRAINER);
    // With this variable, the system's loader lists the libraries of a program instead of starting it.
    let listed = Command::new(&program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .output();
    let listed = listed.map_err(|_| UsageError(not_there(TRAINER, BUILD_TRAINER)))?;

    let listing = String::from_utf8_lossy(&listed.stdout);
    let mut lines = listing.lines().map(str::trim);
    match lines.find_map(|line| line.strip_suffix(" => not found")) {
        Some(library) => Err(UsageError(format!(
            "{CANNOT_START}: its library {library} is not found; put libtorch 2.11 in a folder `libtorch` beside \
             wavemill-train, or add the folder `torch/lib` of an installed torch 2.11 to LD_LIBRARY_PATH"
        ))),
        None => Ok(Command::new(program)),
    }
}

/// Returns the name of the feature that the model of a run reads.
///
/// # Errors
/// `RunFilesError` if the folder is not a run, or [`UsageError`] if the run has not recorded its input.
pub(super) fn feature_of(run: &Path) -> Result<String> {
    RunDir::open(run)?;
    let input = run.join("input.json");
    let file = File::open(&input).map_err(|error| {
        UsageError(format!(
            "--run {}: the run is not complete: {}: {error}",
            run.display(),
            input.display()
        ))
    })?;
    let RunInput { feature } =
        serde_json::from_reader(file).with_context(|| input.display().to_string())?;
    Ok(feature)
}

/// Runs the trainer on a stream and writes the predictions to `said`, or directly to stdout. Returns its exit code.
fn predict(run: &Path, mut stream: impl Read, said: Option<&mut String>) -> Result<u8> {
    let mut command = trainer()?;
    command
        .args(["predict", "--run"])
        .arg(run)
        .arg("-")
        .stdin(Stdio::piped())
        .process_group(0);
    if said.is_some() {
        command.stdout(Stdio::piped());
    }

    let mut child = command.spawn().context(CANNOT_START)?;
    let mut stdin = child.stdin.take().expect("its stdin is a pipe");
    let stdout = child.stdout.take();
    let child = ChildGuard::new(child);

    std::thread::scope(|scope| {
        // The trainer's output is read while its input is written: a full pipe would block the trainer.
        let reader = scope.spawn(|| match (stdout, said) {
            (Some(mut stdout), Some(said)) => stdout.read_to_string(said).map(|_| ()),
            _ => Ok(()),
        });

        let sent = io::copy(&mut stream, &mut stdin);
        // If the trainer's input remained open, the trainer would wait for more rows.
        drop(stdin);
        let code = code_of(child.wait()?);
        match reader.join() {
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic),
        }

        match sent {
            // A broken pipe: the trainer ended before its input did, and its exit code shows the reason.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(code),
        }
    })
}

/// Returns the name of a run for results and tables: its folder's name, or the whole path if another one of `runs` has
/// the same name.
pub(super) fn name_among(runs: &[PathBuf], run: &Path) -> String {
    let name = run_name(run);
    let same = runs.iter().filter(|other| run_name(other) == name);
    if same.count() > 1 {
        return run.display().to_string();
    }
    name
}

fn run_name(run: &Path) -> String {
    let path = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Returns the output flags (such as `--quiet`) to pass to another program, as the user gave them.
pub(super) fn output_args() -> Vec<String> {
    let output = OutputArgs::get();
    let mut arguments = Vec::new();
    if output.progress != ProgressFormat::Auto {
        let value = output.progress.to_possible_value().unwrap_or_default();
        arguments.push(format!("--progress={}", value.get_name()));
    }
    arguments.extend(output.quiet.then(|| "--quiet".to_owned()));
    arguments.extend(output.verbose.then(|| "--verbose".to_owned()));
    arguments
}

/// Returns `flag` before each of the values: the arguments for a flag that is given as often as there are values.
pub(super) fn flags<T: AsRef<OsStr>>(
    flag: &'static str,
    values: impl IntoIterator<Item = T>,
) -> impl Iterator<Item = OsString> {
    let values = values.into_iter();
    values.flat_map(move |value| [flag.into(), value.as_ref().to_owned()])
}

/// Returns a child's exit code, or 1 if a signal ended it.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| code.try_into().ok())
        .unwrap_or(1)
}
