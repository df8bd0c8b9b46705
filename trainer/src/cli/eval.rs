//! `wavemill-train eval`: a run's checkpoint on a split, by itself or beside another run's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use wavemill_schemas::text::shown_lines;

use super::{MachineArgs, input};
use crate::checkpoint::{self, Checkpoints, State};
use crate::dataset::{Dataset, LoaderPlan, Side};
use crate::evaluate;
use crate::learner::Learner;
use crate::metrics::{Predictions, paired, paired_table};
use crate::records::RunDir;
use crate::run;
use crate::strategy::{Ranks, Solo};

const EXAMPLES: &str = "\
Examples:
  wavemill-train eval runs/cnn2d-1f2e3d4c-1                         # best checkpoint on the test split
  wavemill-train eval runs/cnn2d-1f2e3d4c-1 --side validation --json
  wavemill-train eval runs/crnn-5a6b7c8d-1 --against runs/cnn2d-1f2e3d4c-1

`fit` has asked the test split once already (result.json). Choose between models by --side validation; a test split
that is asked again and again becomes a second validation split.";

/// Score a run's checkpoint on a split
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalCommand {
    /// The folder that `fit` wrote
    run: PathBuf,
    /// The store [default: the one that it was trained on]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Its version [default: the latest; of a recorded store, the one that was trained on]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Which rows
    #[arg(long, value_enum, default_value = "test")]
    side: SideArg,
    /// The best on validation, or the last one
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: CheckpointArg,
    /// Another run, whose predictions of the same tracks are compared with this one's (paired bootstrap)
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// The scores as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A side of the split.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideArg {
    Training,
    Validation,
    Test,
}

impl SideArg {
    const fn side(self) -> Side {
        match self {
            Self::Training => Side::Training,
            Self::Validation => Side::Validation,
            Self::Test => Side::Test,
        }
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckpointArg {
    /// The best on validation.
    Best,
    /// The last.
    Last,
}

impl CheckpointArg {
    /// Its folder.
    ///
    /// # Errors
    /// Not a run, or none there yet.
    pub fn find(self, run: &Path) -> Result<PathBuf> {
        let checkpoints = Checkpoints::open(RunDir::open(run)?.checkpoints(), 1)?;
        Ok(if self == Self::Best { checkpoints.best()? } else { checkpoints.last()? })
    }
}

impl EvalCommand {
    /// Evaluates and prints.
    ///
    /// # Errors
    /// Not a run, another store, no labelled row.
    pub fn run(&self) -> Result<u8> {
        let side = self.side.side();
        let (data, state, own) = self.predictions(&self.run)?;
        let scores = evaluate::scores(&own, &data, side, state.config.seed)?;
        data.lacking(side).iter().for_each(|warning| eprintln!("warning: {warning}"));
        if self.json {
            println!("{}", serde_json::to_string(&scores)?);
        } else {
            scores.iter().for_each(|evaluation| println!("{}", shown_lines(&evaluation.to_string())));
        }
        if let Some(other) = &self.against {
            let (_, _, theirs) = self.predictions(other)?;
            for (own, theirs) in own.iter().zip(&theirs) {
                self.compare(own, theirs, state.config.seed, other)?;
            }
        }
        Ok(0)
    }

    fn compare(&self, own: &Predictions, theirs: &Predictions, seed: u64, other: &Path) -> Result<()> {
        let compared = paired(&own.per_track_mean()?, &theirs.per_track_mean()?, seed)?;
        let Some(compared) = compared else { bail!("a single artist or track: nothing to draw from") };
        if self.json {
            println!("{}", serde_json::to_string(&compared)?);
        } else {
            let names = [&self.run, other].map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned());
            println!("{}", paired_table(&compared, [&names[0], &names[1]]));
        }
        Ok(())
    }

    /// What a run's checkpoint says of every row of the side.
    fn predictions(&self, run: &Path) -> Result<(Arc<Dataset>, State, Vec<Predictions>)> {
        let path = self.checkpoint.find(run)?;
        let state = checkpoint::read_state(&path)?;
        let recorded = RunDir::open(run).ok().and_then(|run| input::of(&run));
        let (store, version) = match (&self.store, recorded) {
            (Some(store), _) => (store.clone(), self.version),
            (None, Some((store, version))) => (store, self.version.or(Some(version))),
            (None, None) => bail!("--store: {} does not say where its store is", run.display()),
        };
        let data = self.machine.open(&store, version, &state.config)?;
        run::same_store(&state, &data, &path)?;
        run::require_rows(&data, self.side.side())?;
        let learner = Learner::new(&state.config, &data, &Solo, self.machine.device(&Ranks::solo(), None)?)?;
        learner.load_model(&checkpoint::read_tensors(&path)?, &path)?;
        let plan = LoaderPlan {
            side: self.side.side(),
            batch_size: state.config.data.batch_size,
            readers: usize::from(self.machine.readers),
            prefetch_batches: usize::from(self.machine.prefetch_batches),
            ..LoaderPlan::default()
        };
        let predictions = evaluate::predict(&learner, &data, &Solo, plan)?;
        Ok((data, state, predictions))
    }
}
