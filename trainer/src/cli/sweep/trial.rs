//! What a trial came to: a line of a sweep, for people and programs, and between its processes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer, Serialize};
use wavemill_scores::sweep::{SideBySide, Sweep};

use super::PlannedTrial;
use crate::cli::jobs::{Judge, Outcome};

/// What a trial came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trial {
    pub trial: usize,
    pub set: Vec<String>,
    /// Empty where it came to no folder.
    pub run: PathBuf,
    /// The selecting metric after each epoch.
    #[serde(deserialize_with = "numbers")]
    pub values: Vec<f64>,
    pub best: Option<f64>,
    /// Before the last epoch: by the median of the others, or as `train.early_stop` says.
    pub ended_early: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// JSON has no NaN: it is null there.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(from)?;
    Ok(values
        .into_iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect())
}

impl Trial {
    /// What a trial's process came to.
    ///
    /// # Errors
    /// It printed something else than a trial.
    pub(crate) fn of(planned: &PlannedTrial, outcome: Outcome) -> Result<Self> {
        match outcome {
            Outcome::Line(line) => serde_json::from_str(&line)
                .with_context(|| format!("trial {} printed something else", planned.number)),
            Outcome::Killed(signal) => Ok(Self {
                trial: planned.number,
                set: planned.set.clone(),
                run: PathBuf::new(),
                values: Vec::new(),
                best: None,
                ended_early: false,
                error: Some(format!("its process was ended by signal {signal}")),
            }),
        }
    }
}

/// Whether trials that run side by side go on, as the sweep has it.
pub(super) struct MedianJudge {
    /// `None`: none ends early.
    medians: Option<SideBySide>,
}

impl MedianJudge {
    pub(crate) fn new(planned: &[PlannedTrial], sweep: &Sweep) -> Self {
        let metrics = planned
            .iter()
            .map(|planned| planned.config.train.select)
            .collect();
        Self {
            medians: sweep
                .median_stopping_after
                .map(|after| SideBySide::new(metrics, after)),
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
