//! What predictions are worth, what that decides, and what a run leaves behind of it.
//!
//! [`metrics`] scores predictions. [`schedule`] and [`sweep`] decide by such scores: the learning rate, when a run ends,
//! which runs are tried and which of them end early. [`records`] is the folder of a run with its log, and [`result`] the
//! scores in it. [`map`] gives a model's vectors places in the plane. Knows neither tensors nor devices, and trains
//! nothing.

pub mod map;
pub mod metrics;
pub mod records;
pub mod result;
pub mod schedule;
pub mod sweep;
