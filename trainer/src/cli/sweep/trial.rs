//! The result of a trial, which a sweep prints as a line and a trial's process sends to its parent as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer, Serialize};
use wavemill_scores::sweep::{SideBySide, Sweep};

use super::PlannedTrial;
use crate::cli::jobs::{Judge, Outcome};

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
    /// Converts the outcome of a trial's process to the trial's result.
    ///
    /// # Errors
    /// The process printed something other than the result of a trial.
    pub(crate) fn from_outcome(planned: &PlannedTrial, outcome: Outcome) -> Result<Self> {
        match outcome {
            Outcome::Line(line) => serde_json::from_str(&line).with_context(|| {
                format!(
                    "trial {} printed something other than its result",
                    planned.number
                )
            }),
            Outcome::Killed(signal) => Ok(Self {
                trial: planned.number,
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

/// Decides by the sweep's median rule whether each of several simultaneous trials continues.
pub(super) struct MedianJudge {
    /// State of the median rule; `None` if the sweep ends no trial early.
    medians: Option<SideBySide>,
}

impl MedianJudge {
    pub(crate) fn new(planned: &[PlannedTrial], sweep: &Sweep) -> Self {
        let after = sweep.median_stopping_after.zip(planned.first());
        Self {
            medians: after.map(|(after, first)| {
                SideBySide::new(planned.len(), first.config.train.select, after)
            }),
        }
    }
}

impl Judge for MedianJudge {
    fn asked(&mut self, trial: usize, values: Vec<f64>) {
        if let Some(medians) = &mut self.medians {
            medians.heard(trial, values);
        }
    }

    fn ended(&mut self, trial: usize, outcome: &Outcome) {
        let values = match outcome {
            Outcome::Line(line) => serde_json::from_str(line)
                .map(|trial: Trial| trial.values)
                .unwrap_or_default(),
            Outcome::Killed(_) => Vec::new(),
        };
        if let Some(medians) = &mut self.medians {
            medians.ended(trial, values);
        }
    }

    fn goes_on(&self, trial: usize) -> Option<bool> {
        let ends = self
            .medians
            .as_ref()
            .map_or(Some(false), |medians| medians.should_end(trial));
        ends.map(|ends| !ends)
    }
}
