//! `wavemill-train sweep`: many runs, compared on validation; the best one meets the test split.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tch::Device;

use super::fit::{new_folder, watched};
use super::{MachineArgs, fit};
use crate::config::{Config, Metric};
use crate::dataset::Dataset;
use crate::models::registry::{self, Entry};
use crate::run::{Job, KeepGoing};
use crate::strategy::{Collective, Ranks};
use crate::sweep::{Medians, Sweep, config_of};

const EXAMPLES: &str = "\
Examples:
  wavemill-train sweep sweep.toml --store store
  wavemill-train sweep sweep.toml --store store --config base.toml --set train.epochs=10 --json

sweep.toml:
  method = \"random\"                  # or grid: every combination of lists
  trials = 20
  median_stopping_after = 3          # epochs; a trial worse than the others' median then ends
  [parameters]
  \"optimizer.lr\" = { min = 1e-4, max = 1e-2, log = true }
  \"model.name\" = [\"cnn2d\", \"crnn\"]

Trials are compared by train.select on validation; none sees the test split. Evaluate the best one with
`wavemill-train eval`, once.";

/// Try many configurations, compared on validation
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepCommand {
    /// What to try (TOML)
    file: PathBuf,
    /// A feature store of `wavemill extract`
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Its version [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// What all trials share (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of what they share
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder in which each trial makes its own
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// A JSON line a trial on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// What a trial came to.
#[derive(Debug, Clone, Serialize)]
struct Trial {
    trial: usize,
    set: Vec<String>,
    run: PathBuf,
    /// The selecting metric after each epoch.
    values: Vec<f64>,
    best: Option<f64>,
    /// By the median of the others.
    ended_early: bool,
}

impl SweepCommand {
    /// Runs all trials, one after another.
    ///
    /// # Errors
    /// A key that is not there, or whatever stopped a trial.
    pub fn run(&self) -> Result<u8> {
        let place = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("cannot read {place}"))?;
        let sweep = Sweep::parse(&text, &place)?;
        let base = fit::read_config(self.config.as_deref(), &self.sets)?;
        let words = sweep.trials();
        // Every trial's configuration is checked before the first one starts.
        let configs: Vec<Config> = words.iter().map(|w| config_of(&base, w, &place)).collect::<Result<_, _>>()?;
        let ranks = Ranks::from_env()?.unwrap_or_else(Ranks::solo);
        let device = self.machine.device(&ranks)?;
        let first = self.machine.open(&self.store, self.version, &base)?;
        let group = fit::join(&ranks, &first, &base, device)?;
        let medians = Arc::new(Mutex::new(Medians::default()));
        let mut trials = Vec::new();
        for (number, (config, set)) in configs.into_iter().zip(words).enumerate() {
            let joined = |config: &Config| registry::find(&config.model.name).map(Entry::joined);
            let as_first = config.data == base.data && joined(&config)? == joined(&base)?;
            let data =
                if as_first { Arc::clone(&first) } else { self.machine.open(&self.store, self.version, &config)? };
            let stopping = sweep.median_stopping_after.map(|after| judge(&medians, config.train.select, after));
            let trial =
                Trial { trial: number, set, run: PathBuf::new(), values: Vec::new(), best: None, ended_early: false };
            let trial = self.trial(trial, config, &data, group, device, stopping)?;
            medians.lock().unwrap_or_else(PoisonError::into_inner).add(trial.values.clone());
            if group.rank() == 0 {
                self.show(&trial)?;
            }
            trials.push(trial);
        }
        group.finish()?;
        match best_of(&trials, base.train.select) {
            Some(best) if group.rank() == 0 => {
                eprintln!("best: trial {} ({})", best.trial, best.set.join(" "));
                eprintln!("its test scores: wavemill-train eval {}", best.run.display());
            }
            Some(_) => {}
            None => bail!("no trial came to the end of an epoch"),
        }
        Ok(0)
    }

    fn trial(
        &self,
        trial: Trial,
        config: Config,
        data: &Arc<Dataset>,
        group: &'static dyn Collective,
        device: Device,
        keep_going: Option<KeepGoing>,
    ) -> Result<Trial> {
        let folder = new_folder(&self.runs, &config, group, &self.store, data)?;
        let (epochs, select) = (config.train.epochs, config.train.select);
        let job = Job {
            config,
            folder: folder.clone(),
            resume: false,
            device,
            readers: usize::from(self.machine.readers),
            prefetch_batches: usize::from(self.machine.prefetch_batches),
            test: false,
            keep_going,
        };
        let fitted =
            watched(&job, data, group).with_context(|| format!("trial {} ({})", trial.trial, trial.set.join(" ")))?;
        let best = fitted.values.iter().copied().reduce(|a, b| if select.is_better(b, a) { b } else { a });
        let ended_early = (fitted.values.len() as u64) < epochs;
        Ok(Trial { run: folder, values: fitted.values, best, ended_early, ..trial })
    }

    fn show(&self, trial: &Trial) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(trial)?);
        } else {
            let best = trial.best.map_or("-".to_owned(), |b| format!("{b:.4}"));
            println!(
                "{:>3}  {best:>8}  {:>3} epochs  {}  {}",
                trial.trial,
                trial.values.len(),
                trial.set.join(" "),
                trial.run.display()
            );
        }
        Ok(())
    }
}

fn judge(medians: &Arc<Mutex<Medians>>, metric: Metric, after: u64) -> KeepGoing {
    let medians = Arc::clone(medians);
    Box::new(move |values| !medians.lock().unwrap_or_else(PoisonError::into_inner).should_end(values, metric, after))
}

fn best_of(trials: &[Trial], metric: Metric) -> Option<&Trial> {
    let better = |a: &Trial, b: &Trial| match (a.best, b.best) {
        (Some(a), Some(b)) => metric.is_better(a, b),
        (a, _) => a.is_some(),
    };
    trials.iter().filter(|t| t.best.is_some()).reduce(|a, b| if better(b, a) { b } else { a })
}
