//! What others see of a run while it goes on, and how they stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::dataset::Side;

/// What others may look at while a run goes on, and the one thing that they may ask of it.
#[derive(Debug, Default)]
pub struct RunMonitor {
    /// Set to end the run after the step in progress.
    pub stop: Arc<AtomicBool>,
    /// Epoch in progress, from 0.
    pub epoch: AtomicU64,
    /// Global batches done of it, and all of them.
    pub batches: AtomicU64,
    /// Global batches of an epoch.
    pub batches_total: AtomicU64,
    /// Steps done by this process.
    pub steps: AtomicU64,
    /// Steps that were done before it.
    pub first_step: AtomicU64,
    /// Rows done in all, by all ranks.
    pub rows: AtomicU64,
    /// The last step's loss, as f64 bits.
    pub loss: AtomicU64,
    /// Nanoseconds spent waiting for data.
    pub wait_ns: AtomicU64,
    /// Nanoseconds spent on validation and test.
    pub evaluation_ns: AtomicU64,
    /// What is being done.
    pub phase: Arc<Phase>,
    /// Epochs that ended, until somebody takes them.
    pub ended: Mutex<Vec<EpochSummary>>,
}

/// What a run is busy with.
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

    /// One word, for programs.
    pub fn name(&self) -> &'static str {
        ["training", "validation", "test"][usize::from(self.0.load(Ordering::Relaxed).min(2))]
    }

    /// What a run that was asked to stop is waiting for, in words.
    pub fn words(&self) -> &'static str {
        match self.name() {
            "validation" => "the validation in progress, with a checkpoint",
            "test" => "the test in progress, which is the end",
            _ => "the step in progress, with a checkpoint",
        }
    }
}

/// What there is to say at the end of an epoch.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpochSummary {
    /// `epoch`.
    pub event: &'static str,
    /// Which one, from 1.
    pub epoch: u64,
    /// Of how many, at most.
    pub epochs: u64,
    /// Steps of the run so far.
    pub steps: u64,
    /// Mean over the epoch's rows.
    pub training_loss: f64,
    /// On validation.
    pub validation_loss: f64,
    /// On validation.
    pub accuracy: f64,
    /// On validation.
    pub macro_f1: f64,
    /// Whether its weights are the best so far.
    pub best: bool,
    /// Wall seconds that this process spent on it, validation included.
    pub seconds: f64,
}
