//! The result of a run: the file `result.json`.

use serde::{Deserialize, Serialize};

use super::Evaluation;

/// The scores of a run's best checkpoint, with information about the run. Contains no times and no paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The name of the model's architecture.
    pub model: String,
    /// Number of trainable parameters of the model.
    pub parameters: u64,
    /// The origin of the initial weights: `from scratch`, or `from` a weights file, with the number of tensors taken
    /// from it.
    pub start: String,
    /// The name of the feature that the model was trained on.
    pub feature: String,
    /// The `feature_id` of the feature that the model was trained on.
    pub feature_id: String,
    /// blake3 hash of the store's manifest.
    pub manifest_hash: String,
    /// blake3 hash of the run's configuration.
    pub config_hash: String,
    /// Number of ranks of the run.
    pub world_size: usize,
    /// True if batch norm used only the rows of each rank, so that the scores depend on the number of ranks.
    pub batch_norm_per_rank: bool,
    /// True if a sweep ended the run before its last epoch, because earlier trials were better.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_by_sweep: bool,
    /// Number of epochs that were trained.
    pub epochs: u64,
    /// Number of optimiser steps of the run.
    pub steps: u64,
    /// The epoch whose weights are evaluated, starting at 0. It has the best validation score.
    pub best_epoch: Option<u64>,
    /// Temperature of each target, by which logits were divided; empty without temperature scaling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temperatures: Vec<f64>,
    /// Number of training rows.
    pub training_rows: u64,
    /// Number of rows left out because their row group is damaged.
    pub damaged_rows: u64,
    /// Warnings that affect the interpretation of the scores.
    pub warnings: Vec<String>,
    /// Scores on the validation split, by target.
    pub validation: Vec<Evaluation>,
    /// Scores on the test split, by target.
    pub test: Vec<Evaluation>,
    /// Number of times that this run's test scores have been announced: 1, plus 1 for each time that the run was
    /// resumed with more epochs and ended again; 0 for a trial of a sweep.
    #[serde(default = "once")]
    pub test_asked: u64,
}

/// Default for results that were written before this count existed.
const fn once() -> u64 {
    1
}

impl RunResult {
    /// Counts the announcement of the test scores, based on the `earlier` result of the same run, and adds a warning if
    /// it is not the first announcement.
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
