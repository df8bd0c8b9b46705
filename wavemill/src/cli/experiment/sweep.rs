//! Runs the sweep of an experiment: `wavemill-train sweep` on the honest store of the base variant.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use wavemill_schemas::config::{Config, ShippedConfig};
use wavemill_schemas::experiment::{BASE, Experiment, ExperimentSource, SplitKind, SweepSpec};
use wavemill_scores::sweep::{Sweep, Values};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::write_text;

use super::trainer;
use super::work::{Selection, Work};

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
#[derive(Clone, Debug, Serialize)]
pub(super) struct TrialOutcome {
    /// Changes to the configuration in this trial.
    pub set: Value,
    /// Values of the selection metric after each epoch.
    pub values: Value,
    /// Best value of the selection metric.
    pub best: Value,
    /// True if the trial ended before its last epoch.
    pub ended_early: Value,
}

impl TrialOutcome {
    /// Returns the best value of the trial, or `None` if it has none.
    pub(super) fn best_value(&self) -> Option<f64> {
        self.best.as_f64()
    }

    /// Formats the changes of the trial as `optimizer.lr=0.01 train.epochs=3`.
    pub(super) fn format_sets(&self) -> String {
        let set = self.set.as_array().into_iter().flatten();
        let set: Vec<&str> = set.filter_map(Value::as_str).collect();
        set.join(" ")
    }
}

/// Checks that `wavemill-train sweep` can read the experiment's sweep.
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
        let words = "sweep.search.parameters: at least one key of the configuration is needed";
        return Err(UsageError(words.to_owned()));
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
    /// An error of `wavemill-train sweep`, which trains the trials.
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
        command.arg(&file).arg("--store").arg(store);
        if let Some(like) = &self.spec.like {
            command.arg("--like").arg(like);
        }
        for set in &self.sets {
            command.arg("--set").arg(set);
        }
        command.arg("--runs").arg(out.join("sweep"));
        command.args([
            "--threads",
            &threads.to_string(),
            "--device",
            device,
            "--json",
        ]);

        let mut trials = Vec::new();
        for line in trainer::run(command)?.lines() {
            let mut trial: Value = serde_json::from_str(line)?;
            trials.push(TrialOutcome {
                set: take(&mut trial, "set"),
                values: take(&mut trial, "values"),
                best: take(&mut trial, "best"),
                ended_early: take(&mut trial, "ended_early"),
            });
        }
        Ok(trials)
    }
}

/// Takes a value out of a trial without copying it; null if the trial has none.
fn take(trial: &mut Value, key: &str) -> Value {
    trial.get_mut(key).map_or(Value::Null, Value::take)
}
