//! The result of a trial, which a sweep prints as a line and a trial's process sends to its parent as JSON.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Deserializer, Serialize};
use wavemill_scores::sweep::MedianRule;

use crate::cli::jobs::{Judge, Outcome};
use crate::cli::run_list::{self, PlannedRun};

/// The result of a trial of a sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trial {
    pub trial: usize,
    pub set: Vec<String>,
    /// Folder of the trial's run; empty if none was created.
    pub run: PathBuf,
    /// Values of the metric `train.select` on validation, one per epoch.
    #[serde(deserialize_with = "numbers")]
    pub values: Vec<f64>,
    pub best: Option<f64>,
    /// True if the trial ended before its last epoch, by median stopping or by `train.early_stop`.
    pub ended_early: bool,
    /// Error message, if the trial failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Deserializes a list of numbers in which null stands for NaN, since JSON has no NaN.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(from)?;
    Ok(values
        .into_iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect())
}

impl Trial {
    /// Converts the outcome of the process of trial `number` to the trial's result.
    ///
    /// # Errors
    /// The process printed something other than the result of a trial.
    pub(crate) fn from_outcome(
        number: usize,
        planned: &PlannedRun,
        outcome: Outcome,
    ) -> Result<Self> {
        match outcome {
            Outcome::Line(line) => run_list::parsed(planned, &line),
            Outcome::Killed(signal) => Ok(Self {
                trial: number,
                set: planned.set.clone(),
                run: PathBuf::new(),
                values: Vec::new(),
                best: None,
                ended_early: false,
                error: Some(format!("its process was killed by signal {signal}")),
            }),
        }
    }
}

/// Decides whether each of several simultaneous trials continues. Without the rule, no trial ends early.
impl Judge for Option<MedianRule> {
    fn asked(&mut self, trial: usize, values: Vec<f64>) {
        if let Some(rule) = self {
            rule.heard(trial, values);
        }
    }

    fn ended(&mut self, trial: usize, outcome: &Outcome) {
        let Some(rule) = self else { return };
        let values = match outcome {
            Outcome::Line(line) => serde_json::from_str(line)
                .map(|trial: Trial| trial.values)
                .unwrap_or_default(),
            Outcome::Killed(_) => Vec::new(),
        };
        rule.ended(trial, values);
    }

    fn goes_on(&self, trial: usize) -> Option<bool> {
        match self {
            Some(rule) => rule.should_end(trial).map(|ends| !ends),
            None => Some(true),
        }
    }
}
