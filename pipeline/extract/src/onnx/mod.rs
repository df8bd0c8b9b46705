//! Features that a model in ONNX format computes from samples or from another feature, by ONNX Runtime on the CPU.
//!
//! A `Model` is loaded once per process and shared by all workers. A `ModelPlan` belongs to one worker: it cuts a
//! row into windows, runs the model on them and pools its output.

mod error;
mod external;
mod library;
mod model;
mod plan;
mod pooling;

pub use error::TensorError;
pub(crate) use library::engine;
pub use library::{OnnxRuntime, find_onnx_runtime};
pub(crate) use model::Model;
pub(crate) use plan::ModelPlan;
