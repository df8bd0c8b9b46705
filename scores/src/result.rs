//! What a run, or an evaluation of one, came to: `result.json`, and the table that people see.

use std::fmt;

use serde::{Deserialize, Serialize};
use wavemill_schemas::text::shown;

use crate::metrics::Evaluation;

/// The figures of a run's best checkpoint, with what they are figures of. Holds no time and no path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Architecture.
    pub model: String,
    /// Trainable parameters.
    pub parameters: u64,
    /// `from scratch`, or `from` the name of the file of weights, with how many tensors it gave.
    pub start: String,
    /// Name of the feature.
    pub feature: String,
    /// Its identity.
    pub feature_id: String,
    /// blake3 of the store's manifest.
    pub manifest_hash: String,
    /// blake3 of the configuration.
    pub config_hash: String,
    /// Ranks.
    pub world_size: usize,
    /// Whether batch norm saw each rank's rows only, so that figures depend on the number of ranks.
    pub batch_norm_per_rank: bool,
    /// Epochs that were trained.
    pub epochs: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// The epoch whose weights are evaluated, from 0; chosen on validation.
    pub best_epoch: Option<u64>,
    /// Rows of training.
    pub training_rows: u64,
    /// Rows that were left out because their row group is damaged.
    pub damaged_rows: u64,
    /// What a reader of the figures should know.
    pub warnings: Vec<String>,
    /// Scores on validation, by target.
    pub validation: Vec<Evaluation>,
    /// Scores on test, by target.
    pub test: Vec<Evaluation>,
    /// How often this run's test scores have been announced: 1, and one more each time it came to an end after it was
    /// resumed with more epochs; 0 for a trial of a sweep.
    #[serde(default = "once")]
    pub test_asked: u64,
}

/// Results of before the count was kept.
const fn once() -> u64 {
    1
}

impl RunResult {
    /// Counts these test scores, after the `earlier` result of the same run, and says so where they are not the first.
    pub fn count_test(&mut self, earlier: Option<&Self>) {
        self.test_asked = earlier.map_or(0, |result| result.test_asked) + 1;
        if let Some(earlier) = earlier.filter(|result| result.test_asked > 0) {
            self.warnings.push(format!(
                "the test split was asked {} times, before this after {} epochs: choose by validation, or the test split \
                 becomes a second one",
                self.test_asked, earlier.epochs
            ));
        }
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({} parameters, {}), {} epochs, {} steps; weights of epoch {}",
            self.model,
            self.parameters,
            self.start,
            self.epochs,
            self.steps,
            self.best_epoch
                .map_or("-".to_owned(), |epoch| (epoch + 1).to_string())
        )?;

        for warning in &self.warnings {
            writeln!(f, "note: {}", shown(warning))?;
        }
        for evaluation in &self.test {
            writeln!(f, "\n{evaluation}")?;
        }
        Ok(())
    }
}
