//! The error of this crate.

use std::error::Error;
use std::path::Path;

use tch::TchError;
use wavemill_loader::DatasetError;
use wavemill_schemas::exit::{Classified, Kind, PlainError};
use wavemill_schemas::run::RunFilesError;

use crate::ffi::FfiError;
use crate::models::ModelError;
use crate::strategy::RankError;

/// The reason why a model cannot be trained, evaluated, exported or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum TrainError {
    /// The store cannot be read, or does not fit the configuration.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A file in the run's folder cannot be used.
    #[error(transparent)]
    RunFiles(#[from] RunFilesError),
    /// The architecture cannot be built for this store, or the model cannot compute its outputs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The ranks cannot start or continue together.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// A global setting of libtorch cannot be changed.
    #[error(transparent)]
    Ffi(#[from] FfiError),
    /// An operation of libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The training loss is NaN or infinite. All ranks return this error.
    #[error(
        "the loss is {loss} at step {step}: lower optimizer.lr (now {lr:e}), or set optimizer.clip_norm=1.0"
    )]
    Diverged { loss: f64, step: u64, lr: f64 },
    /// A trial failed in a way that ended the whole sweep, for example because the disk is full. The sweep exits with the
    /// exit code of the trial's process.
    #[error("{trial} ended all runs with exit code {code}: see its output above")]
    FatalTrial { trial: String, code: u8 },
    /// Any other error.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for TrainError {
    fn kind(&self) -> Kind {
        match self {
            Self::Dataset(error) => error.kind(),
            Self::RunFiles(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::Rank(error) => error.kind(),
            Self::Other(error) => error.kind(),
            Self::Ffi(_) | Self::Torch(_) | Self::Diverged { .. } | Self::FatalTrial { .. } => {
                Kind::Failed
            }
        }
    }
}

impl TrainError {
    /// Returns an error of the model as an error that the other ranks may not have: a sweep does not continue after it.
    pub(crate) fn of_one_rank(self) -> Self {
        match self {
            Self::Model(error) => PlainError::new(error.kind(), error.to_string())
                .caused_by(error)
                .into(),
            error => error,
        }
    }
}

/// Returns a function for `map_err` that adds the path of a file to an error of writing it.
pub(crate) fn cannot_write<E: Into<Box<dyn Error + Send + Sync>>>(
    path: &Path,
) -> impl FnOnce(E) -> PlainError {
    let message = format!("cannot write {}", path.display());
    move |error| PlainError::failed(message).caused_by(error)
}
