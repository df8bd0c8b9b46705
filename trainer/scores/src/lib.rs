//! Scores of predictions, decisions based on scores, and the log of a run.
//!
//! [`metrics`] scores predictions. [`schedule`] uses scores to choose learning rates and the end of a run; [`sweep`]
//! finds finished runs of a sweep and ends bad ones early, and [`cross`] summarizes runs over folds and seeds.
//! [`records`] reads and writes a run's log. [`map`] places a model's vectors in the plane. This crate uses no tensors
//! and trains no models. Results are stored in the form of [`wavemill_schemas::run`].

pub mod cross;
pub mod map;
pub mod metrics;
pub mod records;
pub mod schedule;
pub mod sweep;
