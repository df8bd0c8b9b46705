//! From a wavemill feature store to an evaluated model: a stream of Parquet rows into libtorch.
//!
//! The flow is in [`run`]; formats and order are docs/trainer.md. Knows stores and tensors, no audio: features come from
//! the `wavemill` program.

pub mod config;
pub mod ffi;
pub mod metrics;
pub mod models;
pub mod records;
pub mod rng;
pub mod strategy;
