//! Errors that end a run early.

use std::path::PathBuf;

use parquet::errors::ParquetError;
use wavemill_schemas::exit;
use wavemill_scores::records::RecordError;

use crate::checkpoint::CheckpointError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::learner::LearnError;

/// Error that ends a training run early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Error reading the store.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Error in a training step.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// Error reading or writing a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Error evaluating the model on validation or test.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Error writing or reading a file in the run's folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The list of tracks in the training split cannot be encoded as Parquet.
    #[error("cannot encode the list of the tracks that the run trains on")]
    TrainingList(#[from] ParquetError),
    /// The configuration and the store leave no rows or labels to train on or to score.
    #[error("{0}")]
    Unfit(String),
    /// The store's version or feature differs from the one that the model was trained on.
    #[error("{0}")]
    OtherStore(String),
    /// The run needs files of the store that are damaged, or that were damaged when the run was stopped.
    #[error("{0}")]
    DamagedFiles(String),
    /// The run was stopped by SIGINT or SIGTERM and wrote a checkpoint.
    #[error("stopped at step {step}; resume with: wavemill-train fit --resume {path}")]
    Stopped {
        /// Number of optimizer steps done before the stop.
        step: u64,
        /// Path of the run's folder.
        path: PathBuf,
    },
}

impl RunError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unfit(_) => exit::USAGE,
            Self::OtherStore(_) => exit::OTHER_PLAN,
            Self::DamagedFiles(_) => exit::DAMAGED,
            Self::Stopped { .. } => exit::INTERRUPTED,
            Self::Dataset(error) => error.exit_code(),
            Self::Learn(error) => error.exit_code(),
            Self::Checkpoint(error) => error.exit_code(),
            Self::Evaluate(error) => error.exit_code(),
            Self::Record(error) => error.exit_code(),
            Self::TrainingList(_) => exit::FAILED,
        }
    }
}
