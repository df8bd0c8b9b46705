//! A run at an MLflow server: its parameters, the figures of each epoch, its files, and how it ended.
//!
//! A thread of its own speaks to the server, so that training never waits for an answer. What the server did not take is
//! kept and sent again at the end of the next epoch. The run's folder says which run of MLflow it is, so that a resumed
//! run goes on there. Knows no model and no libtorch. Source: MLflow's REST API, version 2.0.

mod address;
mod client;
mod error;
mod limits;
mod memory;
mod tracker;
mod worker;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub(crate) use client::Server;
pub use error::TrackingError;
pub(crate) use memory::recorded;
pub use tracker::Tracker;
pub(crate) use tracker::{RunDescription, end_now};

/// How a run ended, as MLflow has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It came to its end.
    Finished,
    /// An error, or another rank that was lost.
    Failed,
    /// A signal asked it to stop.
    Killed,
}

impl Ending {
    /// MLflow's word.
    const fn word(self) -> &'static str {
        match self {
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }
}

/// The figures of one moment.
#[derive(Clone, Debug, PartialEq)]
struct Figures {
    /// Optimiser steps that were done.
    step: u64,
    /// Milliseconds since 1970.
    unix_ms: u64,
    /// By name, such as `validation/loss`.
    values: Vec<(String, f64)>,
}
