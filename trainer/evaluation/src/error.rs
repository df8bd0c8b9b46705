//! The error of an evaluation.

use std::io;
use std::path::PathBuf;

use wavemill_loader::DatasetError;
use wavemill_schemas::exit;
use wavemill_scores::metrics::MetricsError;

/// The reason why predictions cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The store cannot be read, or it lacks the target, the feature or the split rule.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The scores cannot be computed from the predictions.
    #[error("predictions: {0}")]
    Metrics(#[from] MetricsError),
    /// A setting does not fit the store, or the predictions do not fit the rows.
    #[error("{setting}: {problem}")]
    Unfit {
        /// The setting, or `predictions`.
        setting: &'static str,
        /// Description of the problem, and a remedy.
        problem: String,
    },
    /// A file with predictions cannot be opened.
    #[error("predictions: cannot read {path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

impl EvaluationError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Dataset(error) => error.exit_code(),
            Self::Metrics(_) | Self::Unfit { .. } => exit::USAGE,
            Self::Read { .. } => exit::FAILED,
        }
    }

    /// Creates the error for predictions that do not fit the rows.
    pub(crate) fn predictions(problem: impl Into<String>) -> Self {
        Self::Unfit {
            setting: "predictions",
            problem: problem.into(),
        }
    }
}
