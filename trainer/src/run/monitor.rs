//! Lets other threads observe a run in progress and stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::dataset::Side;

/// Progress figures of a run, readable from other threads, and a flag that stops the run.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Set to end the run after the step in progress.
    pub stop: Arc<AtomicBool>,
    /// Epoch in progress, from 0.
    pub epoch: AtomicU64,
    /// Number of global batches of that epoch that are done.
    pub batches: AtomicU64,
    /// Number of global batches in an epoch.
    pub batches_total: AtomicU64,
    /// Number of steps done by this process.
    pub steps: AtomicU64,
    /// Number of steps done before this process started.
    pub first_step: AtomicU64,
    /// Number of rows processed by all ranks.
    pub rows: AtomicU64,
    /// Loss of the last step, as f64 bits.
    pub loss: AtomicU64,
    /// Nanoseconds spent waiting for data.
    pub wait_ns: AtomicU64,
    /// Nanoseconds spent on validation and test.
    pub evaluation_ns: AtomicU64,
    /// Current phase of the run.
    pub phase: Arc<Phase>,
    /// Summaries of completed epochs, until a reader takes them.
    pub ended: Mutex<Vec<EpochSummary>>,
}

/// The phase of a run: training, validation or test.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    pub(super) fn set(&self, side: Side) {
        let number = match side {
            Side::Training => 0,
            Side::Validation => 1,
            Side::Test => 2,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    /// Returns the phase as one word, for machine-readable output.
    pub fn name(&self) -> &'static str {
        ["training", "validation", "test"][usize::from(self.0.load(Ordering::Relaxed).min(2))]
    }

    /// Describes, for people, the operation that must complete before a run stops.
    pub fn describe(&self) -> &'static str {
        match self.name() {
            "validation" => "the current validation, with a checkpoint",
            "test" => "the current test, which completes the run",
            _ => "the current step, with a checkpoint",
        }
    }
}

/// Summary of a completed epoch.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpochSummary {
    /// Always `epoch`.
    pub event: &'static str,
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Maximum number of epochs.
    pub epochs: u64,
    /// Steps of the run so far.
    pub steps: u64,
    /// Mean loss over the epoch's training rows.
    pub training_loss: f64,
    /// Loss on validation.
    pub validation_loss: f64,
    /// Accuracy on validation.
    pub accuracy: f64,
    /// Macro F1 on validation.
    pub macro_f1: f64,
    /// Whether the weights after this epoch are the best so far.
    pub best: bool,
    /// Wall-clock seconds that this process spent on the epoch, including validation.
    pub seconds: f64,
}
