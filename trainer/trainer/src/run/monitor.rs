//! Lets other threads observe a run in progress and stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::dataset::Split;

/// Progress figures of a run, readable from other threads, and a flag that stops the run.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Set to true by another thread to end the run after the step in progress.
    pub stop: Arc<AtomicBool>,
    /// Epoch in progress, from 0.
    pub epoch: AtomicU64,
    /// Number of completed global batches (batches over all ranks) of the epoch in progress.
    pub batches: AtomicU64,
    /// Number of global batches (batches over all ranks) in an epoch.
    pub batches_total: AtomicU64,
    /// Number of optimizer steps done by this process.
    pub steps: AtomicU64,
    /// Number of optimizer steps done before this process started.
    pub first_step: AtomicU64,
    /// Number of training rows processed by all ranks since this process started.
    pub rows: AtomicU64,
    /// Training loss of the last step, as the bits of an f64.
    pub loss: AtomicU64,
    /// Nanoseconds that training has waited for batches.
    pub wait_ns: AtomicU64,
    /// Nanoseconds that this process spent on validation and test.
    pub evaluation_ns: AtomicU64,
    /// Current phase of the run: training, validation or test.
    pub phase: Arc<Phase>,
    /// Summaries of completed epochs that no reader has taken yet.
    pub ended: Mutex<Vec<EpochSummary>>,
    /// Called with each warning that the user should see during the run.
    pub on_warning: Option<fn(&str)>,
}

impl RunMonitor {
    pub(super) fn warn(&self, warning: &str) {
        if let Some(warn) = self.on_warning {
            warn(warning);
        }
    }
}

/// The phase of a run: training, validation or test.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    pub(super) fn set(&self, split: Split) {
        self.0.store(split as u8, Ordering::Relaxed);
    }

    /// Returns the split whose rows the run reads.
    pub fn split(&self) -> Split {
        Split::ALL[usize::from(self.0.load(Ordering::Relaxed)).min(2)]
    }

    /// Describes the operation that must complete before a stopped run ends, for messages to the user.
    pub fn describe(&self) -> &'static str {
        match self.split() {
            Split::Training => "the current step, with a checkpoint",
            Split::Validation => "the current validation, with a checkpoint",
            Split::Test => "the current test, which completes the run",
        }
    }
}

/// Summary of a completed epoch.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpochSummary {
    /// Kind of the JSON record, always `epoch`.
    pub event: &'static str,
    /// Number of the completed epoch, from 1.
    pub epoch: u64,
    /// Maximum number of epochs of the run.
    pub epochs: u64,
    /// Number of optimizer steps of the run so far.
    pub steps: u64,
    /// Mean training loss over the rows of the epoch.
    pub training_loss: f64,
    /// Loss on the validation split.
    pub validation_loss: f64,
    /// Accuracy on the validation split.
    pub accuracy: f64,
    /// Macro F1 on the validation split.
    pub macro_f1: f64,
    /// Name of the score that `train.select` and `train.select_target` name.
    pub select: String,
    /// Value of that score on the validation split.
    pub selected: f64,
    /// True if the weights after this epoch are the best so far.
    pub best: bool,
    /// Wall-clock seconds that this process spent on the epoch, including validation.
    pub seconds: f64,
}
