//! Trains and evaluates models on a wavemill feature store by streaming Parquet rows into libtorch.
//!
//! The overall flow is in [`run`]; docs/trainer.md describes formats and order. This crate reads no audio: the
//! `wavemill` program extracts the features.

mod augment;
pub mod checkpoint;
pub mod cli;
pub mod dataset;
mod error;
mod evaluate;
mod export;
mod ffi;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod learner;
pub mod loss;
pub mod mixup;
mod models;
pub mod optim;
mod part_file;
mod predict;
mod profile;
pub mod run;
mod safetensors;
pub mod strategy;
#[cfg(test)]
mod testing;
mod trained;

pub use error::TrainError;
pub use models::Dims;
pub use models::own::OwnModel;
