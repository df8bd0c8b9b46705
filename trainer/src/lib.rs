//! From a wavemill feature store to an evaluated model: a stream of Parquet rows into libtorch.
//!
//! The flow is in [`run`]; formats and order are docs/trainer.md. Knows stores and tensors, no audio: features come from
//! the `wavemill` program.

mod augment;
pub mod checkpoint;
pub mod cli;
pub mod dataset;
mod evaluate;
mod export;
mod ffi;
mod forward;
mod learner;
pub mod loss;
pub mod mixup;
mod models;
pub mod optim;
mod part_file;
mod predict;
mod report;
pub mod run;
mod safetensors;
pub mod strategy;
#[cfg(test)]
mod testing;
pub mod tracking;
mod trained;
