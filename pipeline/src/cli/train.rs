//! `wavemill train` and `wavemill predict`: the trainer's program under the same name. It is never linked here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use wavemill_schemas::text::shown_lines;

use super::clips::ClipArgs;
use super::exit::{ChildFailure, UsageError};
use super::interrupt::ChildGuard;
use super::model_answers::ModelAnswers;
use super::output::{OutputArgs, Progress};
use super::{beside, not_there};

/// The trainer's program.
pub(super) const TRAINER: &str = "wavemill-train";
/// What makes it.
pub(super) const BUILD_TRAINER: &str =
    "`scripts/libtorch.sh && scripts/build.sh -p wavemill-trainer`";

const TRAIN_EXAMPLES: &str = "\
Examples:
  wavemill train fit --store store --model cnn2d
  wavemill train models
  wavemill train --help

The words go to `wavemill-train`, which lies beside this program or on PATH, and so does its exit code.";

const PREDICT_EXAMPLES: &str = "\
Examples:
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 song.mp3
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 album/*.mp3 > genres.jsonl
  wavemill predict --run runs/cnn2d-1f2e3d4c-1 archive/ @more.txt > genres.jsonl
  wavemill predict --run runs/plain --run runs/stretched --table *.mp3

Of several runs each line also has `run`, the name of its folder. --table is for people: a line for each song, a column \
for each run, with the class of most segments and the mean probability of the likeliest.

Exit codes: 0 ok, 1 failed, or a file cannot be read or gives no row (each is named on stderr; the others are answered), \
else those of `wavemill-train predict`.

The same as:
  wavemill features CLIP… --recipe RUN/recipe.toml --feature NAME \\
      --format arrow --out - | wavemill-train predict --run RUN -";

/// Train, evaluate and use models (starts wavemill-train)
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES, disable_help_flag = true)]
pub struct TrainCommand {
    /// A subcommand of wavemill-train and its words
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "WORDS"
    )]
    words: Vec<OsString>,
}

impl TrainCommand {
    /// Becomes the trainer; returns only where that fails.
    ///
    /// # Errors
    /// The program is not there.
    pub fn run(&self) -> Result<()> {
        // By `exec`: terminal, signals and exit code are the trainer's own then, and nothing is left between.
        Err(Command::new(beside(TRAINER))
            .args(output_words())
            .args(&self.words)
            .exec())
        .with_context(|| not_there(TRAINER, BUILD_TRAINER))
    }
}

/// Tell the genre of audio files by a trained model
#[derive(Debug, Args)]
#[command(after_help = PREDICT_EXAMPLES)]
pub struct PredictCommand {
    #[command(flatten)]
    clips: ClipArgs,
    /// The folder that `wavemill-train fit` wrote; may be given again, for several models side by side
    #[arg(long = "run", value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// A table instead of JSON lines: songs down, runs across
    #[arg(long)]
    table: bool,
}

/// What a run's folder says of its input.
#[derive(Deserialize)]
struct RunInput {
    feature: String,
}

impl PredictCommand {
    /// Computes features here and hands them to the trainer's program.
    ///
    /// # Errors
    /// Not a run's folder, no trainer, or as either program says.
    pub fn run(&self) -> Result<()> {
        // All of them, before the first has computed for an hour.
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
            // The first is the one that is told, and the other models still answer.
            failed = if failed == 0 { code } else { failed };
            if let Some(said) = said {
                answers.add(&name_among(&self.runs, run), &said)?;
            }
        }

        if self.table {
            write!(io::stdout(), "{}", shown_lines(&answers.table()))?;
        } else if is_collected {
            write!(io::stdout(), "{}", answers.lines())?;
        }
        match failed {
            0 => Ok(()),
            code => Err(ChildFailure { code }.into()),
        }
    }

    /// One model's answers: into `said`, or straight to stdout. Returns the exit code that they come to.
    fn answer(&self, run: &Path, feature: &str, said: Option<&mut String>) -> Result<u8> {
        // This very program, and not the one that PATH may have under its name.
        let mut features = Command::new(std::env::current_exe()?)
            .arg("features")
            .args(&self.clips.clips)
            .args(
                self.clips
                    .lists
                    .iter()
                    .flat_map(|list| [OsStr::new("--list"), list.as_os_str()]),
            )
            .arg("--recipe")
            .arg(run.join("recipe.toml"))
            .args(["--feature", feature, "--format", "arrow", "--out", "-"])
            .stdout(Stdio::piped())
            // A signal reaches this program alone, which ends its children itself.
            .process_group(0)
            .spawn()?;
        let mut stream = features
            .stdout
            .take()
            .context("a piped child has a stdout")?;
        let features = ChildGuard::new(features);

        // A stream that does not even begin is an error that was told: the trainer's would be of its absence.
        let mut first = [0];
        let begins = stream.read(&mut first)? > 0;
        let predicted = if begins {
            predict(run, first.as_slice().chain(stream), said)?
        } else {
            0
        };

        let computed = code_of(features.wait()?);
        // `features` ends with 1 where one clip gave no row, also if the trainer has answered all the others.
        let failed = [predicted, computed].into_iter().find(|code| *code != 0);
        Ok(failed.unwrap_or(0))
    }
}

/// What the model of a run sees.
///
/// # Errors
/// [`UsageError`] for a folder of something else.
pub(super) fn feature_of(run: &Path) -> Result<String> {
    let input = run.join("input.json");
    let file = File::open(&input).map_err(|error| {
        UsageError(format!(
            "--run {}: no run of wavemill-train: {}: {error}",
            run.display(),
            input.display()
        ))
    })?;
    let RunInput { feature } =
        serde_json::from_reader(file).with_context(|| input.display().to_string())?;
    Ok(feature)
}

/// The trainer's answers to a stream, into `said` or straight to stdout, and its exit code.
fn predict(run: &Path, mut stream: impl Read, said: Option<&mut String>) -> Result<u8> {
    let mut command = Command::new(beside(TRAINER));
    command
        .args(["predict", "--run"])
        .arg(run)
        .arg("-")
        .stdin(Stdio::piped())
        .process_group(0);
    if said.is_some() {
        command.stdout(Stdio::piped());
    }

    let mut child = command
        .spawn()
        .with_context(|| not_there(TRAINER, BUILD_TRAINER))?;
    let mut stdin = child.stdin.take().context("a piped child has a stdin")?;
    let stdout = child.stdout.take();
    let child = ChildGuard::new(child);

    std::thread::scope(|scope| {
        // Read while it is written to: a full pipe would stop it.
        let reader = scope.spawn(|| match (stdout, said) {
            (Some(mut stdout), Some(said)) => stdout.read_to_string(said).map(|_| ()),
            _ => Ok(()),
        });

        let sent = io::copy(&mut stream, &mut stdin);
        // Without the end of its input, the trainer would wait for more.
        drop(stdin);
        let code = code_of(child.wait()?);
        match reader.join() {
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic),
        }

        match sent {
            // It ended before its input did: its code says why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(code),
        }
    })
}

/// A folder's own name, as results and tables call a run; the whole path where another of `runs` has that name too.
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

/// The flags that all commands of both programs take, as given.
pub(super) fn output_words() -> Vec<String> {
    let output = OutputArgs::get();
    let mut words = Vec::new();
    if output.progress != Progress::Auto {
        let value = output.progress.to_possible_value().unwrap_or_default();
        words.push(format!("--progress={}", value.get_name()));
    }
    words.extend(output.quiet.then(|| "--quiet".to_owned()));
    words.extend(output.verbose.then(|| "--verbose".to_owned()));
    words
}

/// A child's exit code; 1 where a signal ended it.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| code.try_into().ok())
        .unwrap_or(1)
}
