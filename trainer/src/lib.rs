//! From a wavemill feature store to an evaluated model: a stream of Parquet rows into libtorch.
//!
//! The flow is in [`run`]; formats and order are docs/trainer.md. Knows stores and tensors, no audio: features come from
//! the `wavemill` program.

pub mod augment;
pub mod config;
pub mod dataset;
pub mod ffi;
pub mod loss;
pub mod mixup;
pub mod models;
pub mod optim;
pub mod rng;
pub mod schedule;
pub mod strategy;
