//! The error type of tensors that models or kernels compute.

use wavemill_kernels::KernelError;
use wavemill_schemas::recipe::Fault;

/// The error type for loading a model, and for computing the tensor of one feature of a row.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum TensorError {
    /// The row is too short, or the stored type cannot represent a value.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The model does not fit the feature's options.
    #[error(transparent)]
    Options(#[from] Fault),
    /// The model's output for the row contains a number that cannot be stored.
    #[error("the model's output {index} is {value}")]
    NotFinite { index: usize, value: f32 },
    /// ONNX Runtime is missing, or cannot load or run the model.
    #[error("{0}")]
    Model(String),
}

impl TensorError {
    /// Creates the error for a library that is not installed, or is too old. `problem` is about the last candidate.
    pub(super) fn no_library(problem: &str) -> Self {
        Self::Model(format!(
            "ONNX Runtime 1.{} or later is not found ({problem}): pip install onnxruntime, or set ORT_DYLIB_PATH to the \
             path of libonnxruntime.so",
            ort::MINOR_VERSION
        ))
    }

    /// Creates the error for a file that is not a model, or one that ONNX Runtime does not support.
    pub(super) fn not_loaded(problem: &str) -> Self {
        Self::Model(format!("ONNX Runtime cannot load the model: {problem}"))
    }

    /// Creates the error for a model that failed on its input.
    pub(super) fn not_run(problem: &str) -> Self {
        Self::Model(format!("ONNX Runtime cannot run the model: {problem}"))
    }
}
