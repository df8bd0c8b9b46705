//! `wavemill train predict`: applies a run's model to rows of `wavemill features`.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use wavemill_schemas::number::number;
use wavemill_schemas::run::RunDir;
use wavemill_terminal::exit::UsageError;

use super::eval::CheckpointArg;
use super::{ComputeArgs, input};
use crate::ffi;
use crate::predict::{self, AnswerOptions, ExpectedFeature, Rows};
use crate::strategy::Ranks;
use crate::trained::TrainedModel;

const EXAMPLES: &str = "\
Examples:
  wavemill features song.mp3 --recipe runs/cnn2d-1f2e3d4c-1/recipe.toml \\
      --feature log_mel --format arrow --out - \\
      | wavemill train predict --run runs/cnn2d-1f2e3d4c-1 -
  wavemill train predict --run runs/cnn2d-1f2e3d4c-1 --top 1 songs.arrow

Prints a JSON line for each row and target: clip_key, segment, offset_s, target, class, probability, top. Then one for \
each target and clip with several segments: clip_key, segments, target, majority (class of most segments), and class, \
probability and top by the mean probability. A multi-label target has labels (0.5 and above) instead of class. Rows of \
another feature are rejected with exit code 4.";

/// Classify audio from the feature rows of `wavemill features`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictCommand {
    /// An Arrow IPC stream of feature rows; `-` is standard input
    #[arg(default_value = "-", value_name = "FILE")]
    stream: PathBuf,
    /// Folder written by `fit`
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// The best checkpoint on validation (best), or the last one (last)
    #[arg(long, value_enum, default_value = "best", hide_possible_values = true)]
    checkpoint: CheckpointArg,
    /// Number of most likely classes to list per line
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = number::<usize>(0..))]
    top: usize,
    /// Rows per batch; with 1, each row is classified as soon as it arrives
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = number::<u16>(1..=4096))]
    batch_size: u16,
    /// Read several streams in succession: each is processed independently, and an empty line ends its output
    #[arg(long)]
    streams: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl PredictCommand {
    /// Classifies the rows of the input streams and prints the results.
    ///
    /// # Errors
    /// The folder is not a run's, the input is not a stream of rows, or its feature differs from the model's.
    pub(crate) fn run(&self) -> Result<u8> {
        ffi::keep_signals_away();
        let folder = RunDir::open(&self.run)?;
        let trained = TrainedModel::load(
            &self.checkpoint.find(&self.run)?,
            self.compute.device(&Ranks::solo(), None)?,
        )?;
        // Check the model's inputs before reading rows: a stream cannot provide metadata or ids of artist and album.
        predict::check(&trained)?;

        let recipe = input::recipe_of(&folder);
        let wanted = ExpectedFeature {
            feature: &trained.state.input.feature,
            recipe: &recipe,
        };
        let options = AnswerOptions {
            top: self.top,
            batch_rows: usize::from(self.batch_size),
        };
        if self.streams {
            let input = self.open()?;
            predict::answer_each(&trained, input, wanted, options, &mut io::stdout().lock())?;
            return Ok(0);
        }

        let rows = Rows::open(self.open()?, wanted)?;
        let answered = predict::answer(&trained, rows, options, &mut io::stdout().lock())?;
        // The program that writes a pipe has reported why it has no rows.
        if answered == 0 && self.stream != Path::new("-") {
            wavemill_terminal::say!("the stream has no rows");
        }
        Ok(0)
    }

    fn open(&self) -> Result<Box<dyn Read>> {
        if self.stream == Path::new("-") {
            if io::stdin().is_terminal() {
                let message = "standard input is a terminal: pipe a stream of features into it";
                bail!(UsageError(message.to_owned()));
            }
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file = File::open(&self.stream)
            .with_context(|| format!("cannot read {}", self.stream.display()))?;
        Ok(Box::new(BufReader::new(file)))
    }
}
