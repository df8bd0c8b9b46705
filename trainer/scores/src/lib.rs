//! Scores of predictions, decisions based on scores, and the files of a run.
//!
//! [`metrics`] scores predictions. [`schedule`] uses scores to choose learning rates and the end of a run; [`sweep`]
//! generates the runs of a sweep and ends bad ones early, and [`cross`] summarizes runs over folds and seeds.
//! [`records`] reads and writes the folder of a run with its log, and [`result`] describes the scores in it. [`map`]
//! places a model's vectors in the plane. This crate uses no tensors and trains no models.

pub mod cross;
mod error;
pub mod map;
pub mod metrics;
pub mod records;
pub mod result;
pub mod schedule;
pub mod sweep;

pub use error::ScoresError;
