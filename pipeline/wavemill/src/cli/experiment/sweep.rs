//! Runs the sweep of an experiment: `wavemill train sweep` on the honest store of the base variant.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wavemill_schemas::config::{Config, ShippedConfig};
use wavemill_schemas::experiment::{BASE, Experiment, ExperimentSource, SplitKind, SweepSpec};
use wavemill_schemas::run::{Sweep, Values};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::write_text;

use super::trainer;
use super::work::{Selection, Work};
use crate::cli::train::flags;

/// A sweep over training configurations to run.
#[derive(Clone, Debug)]
pub(super) struct SweepWork {
    /// Index of the sweep's store in `Work::stores`.
    pub store: usize,
    spec: SweepSpec,
    /// Changes to the configuration of every trial, as `key=value`.
    sets: Vec<String>,
}

/// File in the results folder with the sweep that the trainer reads.
pub(super) const SWEEP_FILE: &str = "sweep.toml";

/// A trial of a sweep, as written to `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TrialOutcome {
    /// Changes to the configuration in this trial.
    pub set: Vec<String>,
    /// Values of the selection metric after each epoch.
    #[serde(default)]
    pub values: Value,
    /// Best value of the selection metric.
    #[serde(default)]
    pub best: Value,
    /// True if the trial ended before its last epoch.
    #[serde(default)]
    pub ended_early: Value,
}

impl TrialOutcome {
    /// Formats the best value of the trial; a dash if it has none.
    pub(super) fn format_best(&self) -> String {
        let best = self.best.as_f64();
        best.map_or("-".to_owned(), |best| format!("{best:.4}"))
    }

    /// Formats the changes of the trial as `optimizer.lr=0.01 train.epochs=3`.
    pub(super) fn format_sets(&self) -> String {
        self.set.join(" ")
    }
}

/// Checks that `wavemill train sweep` can read the experiment's sweep.
///
/// # Errors
/// [`UsageError`] if a key of the sweep is invalid; the message names the key.
pub(super) fn check(experiment: &Experiment) -> Result<(), UsageError> {
    let Some(sweep) = &experiment.sweep else {
        return Ok(());
    };
    let search = Sweep::parse(&sweep.search.to_string(), "sweep.search")
        .map_err(|error| UsageError(error.to_string()))?;
    if search.parameters.is_empty() {
        let message = "sweep.search.parameters: at least one key of the configuration is needed";
        return Err(UsageError(message.to_owned()));
    }

    // Each value of a parameter is checked here, so that an error is not found only after all training runs.
    let like = sweep.like.as_deref().map(ShippedConfig::find).transpose();
    let like = like.map_err(|error| UsageError(format!("sweep.like: {error}")))?;
    for (key, values) in &search.parameters {
        let tried: Vec<String> = match values {
            Values::Choice(values) => values.iter().map(ToString::to_string).collect(),
            Values::Range { min, max, .. } => vec![min.to_string(), max.to_string()],
        };
        for value in tried {
            let mut sets = sweep.set.clone();
            sets.push(format!("{key}={value}"));
            Config::layered(like, "", "sweep.search", &sets)
                .map_err(|error| UsageError(error.to_string()))?;
        }
    }
    Ok(())
}

impl SweepWork {
    /// Creates the experiment's sweep, and adds its store to `work` if it is new.
    ///
    /// # Errors
    /// [`UsageError`] if the experiment has no sweep, or an invalid one.
    pub(super) fn new(
        source: &ExperimentSource,
        work: &mut Work,
        selection: &Selection,
    ) -> Result<Self> {
        let experiment = &source.experiment;
        check(experiment)?;
        let Some(spec) = experiment.sweep.clone() else {
            let name = &experiment.name;
            return Err(UsageError(format!("--sweep: {name} has no [sweep]")).into());
        };

        let recipe = source.recipe(BASE, SplitKind::Recipe, &selection.sets)?;
        let sets = spec.set.iter().chain(&selection.train_sets);
        Ok(Self {
            store: work.store(experiment, recipe, selection.limit)?,
            sets: sets.cloned().collect(),
            spec,
        })
    }

    /// Trains the trials that are not trained yet. Their runs are stored in `out/sweep`.
    ///
    /// # Errors
    /// An error of `wavemill train sweep`, which trains the trials.
    pub(super) fn run(
        &self,
        out: &Path,
        store: &Path,
        threads: u16,
        device: &str,
    ) -> Result<Vec<TrialOutcome>> {
        let file = out.join(SWEEP_FILE);
        write_text("--out", &file, &self.spec.search.to_string())?;

        let mut command = trainer::command("sweep");
        command.arg(&file);
        command.args(flags("--store", [store]));
        command.args(flags("--like", &self.spec.like));
        command.args(flags("--set", &self.sets));
        command.args(flags("--runs", [out.join("sweep")]));
        command.args(["--threads", &threads.to_string(), "--device", device]);
        command.arg("--json");

        let said = trainer::run(command)?;
        let trials = said.lines().map(serde_json::from_str);
        Ok(trials.collect::<Result<_, _>>()?)
    }
}
