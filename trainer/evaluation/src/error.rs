//! The error of this crate.

use std::fmt::Display;

use wavemill_loader::DatasetError;
use wavemill_schemas::exit::{Classified, Kind, PlainError};
use wavemill_schemas::run::RunFilesError;

/// The reason why predictions cannot be evaluated, or why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The store cannot be read, or it lacks the target, the feature or the split rule.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The folder contains no run, or the log or result in it is damaged.
    #[error(transparent)]
    RunFiles(#[from] RunFilesError),
    /// A setting does not fit the store, the predictions do not fit the rows, or a file cannot be used.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for EvaluationError {
    fn kind(&self) -> Kind {
        match self {
            Self::Dataset(error) => error.kind(),
            Self::RunFiles(error) => error.kind(),
            Self::Other(error) => error.kind(),
        }
    }
}

impl EvaluationError {
    /// Creates the error for predictions that do not fit the rows.
    pub(crate) fn predictions(problem: impl Display) -> Self {
        PlainError::usage(format!("predictions: {problem}")).into()
    }
}
