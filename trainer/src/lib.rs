//! From a wavemill feature store to an evaluated model: a stream of Parquet rows into libtorch.
//!
//! The flow is in [`run`]; formats and order are docs/trainer.md. Knows stores and tensors, no audio: features come from
//! the `wavemill` program.

pub mod augment;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod evaluate;
pub mod export;
pub mod ffi;
pub mod learner;
pub mod loss;
pub mod metrics;
pub mod mixup;
pub mod models;
pub mod numbers;
pub mod optim;
pub mod predict;
pub mod records;
pub mod result;
pub mod rng;
pub mod run;
pub mod safetensors;
pub mod schedule;
pub mod strategy;
pub mod sweep;
#[cfg(test)]
mod testing;
pub mod trained;
