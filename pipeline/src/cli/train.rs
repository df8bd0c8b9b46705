//! `wavemill train` and `wavemill predict`: the trainer's program under the same name. It is never linked here.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

const TRAIN_EXAMPLES: &str = "\
Examples:
  wavemill train fit --store store --model cnn2d
  wavemill train models
  wavemill train --help

The words go to `wavemill-train`, which lies beside this program or on PATH.";

const PREDICT_EXAMPLES: &str = "\
Examples:
  wavemill predict --run runs/cnn2d-1f2e3d4c-0 song.mp3
  wavemill predict --run runs/cnn2d-1f2e3d4c-0 album/*.mp3 > genres.jsonl

The same as: wavemill features CLIP… --recipe RUN/recipe.toml --feature NAME --format arrow --out - |
             wavemill-train predict --run RUN -";

/// Train, evaluate and use models (starts wavemill-train)
#[derive(Debug, Args)]
#[command(after_help = TRAIN_EXAMPLES, disable_help_flag = true)]
pub struct TrainCommand {
    /// A subcommand of wavemill-train and its words
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    words: Vec<OsString>,
}

impl TrainCommand {
    /// Becomes the trainer; returns only where that fails.
    ///
    /// # Errors
    /// The program is not there.
    pub fn run(&self) -> Result<()> {
        let program = trainer();
        Err(Command::new(&program).args(&self.words).exec()).with_context(|| not_there(&program))
    }
}

/// Tell the genre of audio files by a trained model
#[derive(Debug, Args)]
#[command(after_help = PREDICT_EXAMPLES)]
pub struct PredictCommand {
    /// Audio files
    #[arg(required = true, value_name = "CLIP")]
    clips: Vec<PathBuf>,
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
        let file = File::open(&input)
            .with_context(|| format!("no run of wavemill-train in {}: {}", self.run.display(), input.display()))?;
        let RunInput { feature } = serde_json::from_reader(file).with_context(|| input.display().to_string())?;
        let mut features = Command::new(std::env::current_exe()?)
            .arg("features")
            .args(&self.clips)
            .arg("--recipe")
            .arg(self.run.join("recipe.toml"))
            .args(["--feature", &feature, "--format", "arrow", "--out", "-"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stream = features.stdout.take().context("a piped child has a stdout")?;
        let program = trainer();
        let predicted =
            Command::new(&program).args(["predict", "--run"]).arg(&self.run).arg("-").stdin(stream).status();
        let computed = features.wait()?;
        if !predicted.with_context(|| not_there(&program))?.success() || !computed.success() {
            bail!("not every clip was predicted; the reasons are above");
        }
        Ok(())
    }
}

fn trainer() -> PathBuf {
    let beside = std::env::current_exe().unwrap_or_default().with_file_name("wavemill-train");
    if beside.exists() { beside } else { PathBuf::from("wavemill-train") }
}

fn not_there(program: &Path) -> String {
    format!("cannot start {}: build it with scripts/libtorch.sh && cargo build -p wavemill-trainer", program.display())
}
