//! `wavemill train` and `wavemill predict`: the trainer's program under the same name. It is never linked here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::clips::ClipArgs;
use super::exit::{ChildFailure, UsageError};
use super::interrupt::ChildGuard;
use super::output::{OutputArgs, Progress};
use super::{beside, not_there};

const TRAINER: &str = "wavemill-train";
const BUILD_TRAINER: &str = "`scripts/libtorch.sh && scripts/build.sh -p wavemill-trainer`";

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
    /// The folder that `wavemill-train fit` wrote
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
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
        let input = self.run.join("input.json");
        let file = File::open(&input).map_err(|error| {
            UsageError(format!(
                "--run {}: no run of wavemill-train: {}: {error}",
                self.run.display(),
                input.display()
            ))
        })?;
        let RunInput { feature } =
            serde_json::from_reader(file).with_context(|| input.display().to_string())?;

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
            .arg(self.run.join("recipe.toml"))
            .args(["--feature", &feature, "--format", "arrow", "--out", "-"])
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
            self.predict(first, stream)?
        } else {
            0
        };

        let computed = code_of(features.wait()?);
        // `features` ends with 1 where one clip gave no row, also if the trainer has answered all the others.
        match [predicted, computed].into_iter().find(|code| *code != 0) {
            Some(code) => Err(ChildFailure { code }.into()),
            None => Ok(()),
        }
    }

    /// The trainer's answers to a stream that begins with `first`, and its exit code.
    fn predict(&self, first: [u8; 1], stream: impl Read) -> Result<u8> {
        let mut command = Command::new(beside(TRAINER));
        command
            .args(["predict", "--run"])
            .arg(&self.run)
            .arg("-")
            .stdin(Stdio::piped())
            .process_group(0);

        let mut child = command
            .spawn()
            .with_context(|| not_there(TRAINER, BUILD_TRAINER))?;
        let mut stdin = child.stdin.take().context("a piped child has a stdin")?;
        let child = ChildGuard::new(child);

        let sent = io::copy(&mut first.as_slice().chain(stream), &mut stdin);
        // Without the end of its input, the trainer would wait for more.
        drop(stdin);
        let code = code_of(child.wait()?);

        match sent {
            // It ended before its input did: its code says why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(code),
        }
    }
}

/// The flags that all commands of both programs take, as given.
fn output_words() -> Vec<String> {
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
fn code_of(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| code.try_into().ok())
        .unwrap_or(1)
}
