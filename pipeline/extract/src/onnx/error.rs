//! Errors of models, and of the tensors that models or kernels compute.

use wavemill_kernels::KernelError;
use wavemill_schemas::recipe::Fault;

/// The error type for models.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// ONNX Runtime is not installed, or is too old.
    #[error(
        "ONNX Runtime 1.{oldest} or later is not found ({problem}): pip install onnxruntime, or set ORT_DYLIB_PATH to \
         the path of libonnxruntime.so"
    )]
    Library {
        /// The last candidate, and why it is unusable.
        problem: String,
        /// Minor version of the oldest library that is usable.
        oldest: u32,
    },
    /// The file is not a model, or one that ONNX Runtime does not support.
    #[error("ONNX Runtime cannot load the model: {0}")]
    Load(String),
    /// The model does not fit the feature's options.
    #[error(transparent)]
    Options(#[from] Fault),
    /// The model failed on its input.
    #[error("ONNX Runtime cannot run the model: {0}")]
    Run(String),
    /// The model's output contains a number that cannot be stored.
    #[error("the model's output {index} is {value}")]
    NotFinite {
        /// Index of the value in the output for the row.
        index: usize,
        /// The value: NaN or infinite.
        value: f32,
    },
}

/// Error while computing the tensor of one feature of a row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TensorError {
    /// The row is too short, or the stored type cannot represent a value.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}
