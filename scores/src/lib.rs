//! Scores of predictions, decisions based on scores, and the records of a run.
//!
//! [`metrics`] scores predictions. [`schedule`] and [`sweep`] use such scores to decide the learning rate, the end of a
//! run, the runs of a sweep and which of them end early. [`records`] is the folder of a run with its log, and
//! [`result`] contains the scores in it. [`map`] places a model's vectors in the plane. This crate uses neither tensors
//! nor devices, and trains nothing.

pub mod map;
pub mod metrics;
pub mod records;
pub mod result;
pub mod schedule;
pub mod sweep;
