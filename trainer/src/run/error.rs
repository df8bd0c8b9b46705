//! Errors that end a run early.

use std::path::PathBuf;

use wavemill_schemas::exit;
use wavemill_scores::records::RecordError;

use crate::checkpoint::CheckpointError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::learner::LearnError;

use super::training_list::TrainingListError;

/// Error that ends a run early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Error of the store.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Error in a training step.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// Error of a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Error in an evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Error writing or reading the run's folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Error of the list of training tracks.
    #[error(transparent)]
    TrainingList(#[from] TrainingListError),
    /// A split that training needs has no rows.
    #[error(
        "no rows in split {split} under rule {rule}: choose another with --split, or extract more clips"
    )]
    NoRows {
        /// Name of the split.
        split: &'static str,
        /// Rule of the split.
        rule: String,
    },
    /// All files with rows of a split were skipped as damaged.
    #[error(
        "no rows in split {split} under rule {rule}: {lost} cannot be read: `wavemill verify` lists every such file, \
         `wavemill extract --new-version` computes them again"
    )]
    LostRows {
        /// Name of the split.
        split: &'static str,
        /// Rule of the split.
        rule: String,
        /// Paths of the damaged files, as in the manifest.
        lost: String,
    },
    /// All training rows have the same label.
    #[error(
        "target {target}: {problem}: there is nothing to learn; choose another target (--target) or split (--split), or \
         extract clips of more classes"
    )]
    Unlearnable {
        /// Name of the target, as configured.
        target: String,
        /// Description of the labels of the training rows, with the class.
        problem: String,
    },
    /// A side has no row with a label of the target.
    #[error(
        "target {target}: no {split} row has a label under rule {rule}: choose another target (--target) or split \
         (--split), or extract more clips"
    )]
    Unscorable {
        /// Name of the target, as configured.
        target: String,
        /// Name of the split.
        split: &'static str,
        /// Rule of the split.
        rule: String,
    },
    /// `drop_last` leaves no batch.
    #[error(
        "data.batch_size = {batch_size} with data.drop_last leaves no batch of {rows} training rows: use a smaller \
         batch size"
    )]
    NoBatch {
        /// Number of training rows.
        rows: usize,
        /// Batch size, as configured.
        batch_size: usize,
    },
    /// The checkpoint was trained on another store or feature.
    #[error(
        "{path} was trained on another {what} ({}); this store has {}: use the store that it was trained on",
        short(theirs),
        short(ours)
    )]
    OtherStore {
        /// Path of the run.
        path: PathBuf,
        /// `manifest` or `feature`.
        what: &'static str,
        /// Hash or id in the checkpoint.
        theirs: String,
        /// Hash or id in the store.
        ours: String,
    },
    /// A version of the store has no feature with the feature_id that the model was trained on.
    #[error(
        "{path} was trained on feature {name} with feature_id {}; version {version} of the store has {}: a model \
         cannot process another feature; use a version whose {name} was computed with the options in the run's \
         recipe.toml",
        short(theirs),
        ours.as_deref().map_or("no such feature", short)
    )]
    OtherFeature {
        /// Path of the checkpoint.
        path: PathBuf,
        /// Name of the feature.
        name: String,
        /// feature_id in the checkpoint.
        theirs: String,
        /// feature_id of the version's feature of that name, if any.
        ours: Option<String>,
        /// Number of the version.
        version: u64,
    },
    /// The set of skipped files differs from when a checkpoint within an epoch was written.
    #[error(
        "{path}: the checkpoint of step {step} is from the middle of epoch {epoch}, whose order of rows cannot be \
         reproduced because the set of readable files has changed ({files}): restore their earlier state; or, if \
         checkpoints/ contains one from the end of an epoch, remove those after it, and --resume continues from there"
    )]
    OtherFiles {
        /// Path of the run.
        path: PathBuf,
        /// Number of optimizer steps of the checkpoint.
        step: u64,
        /// Number of the epoch, from 1.
        epoch: u64,
        /// Paths of the files that were lost or restored, as in the manifest.
        files: String,
    },
    /// The run was stopped by SIGINT or SIGTERM and wrote a checkpoint.
    #[error("stopped at step {step}; resume with: wavemill-train fit --resume {path}")]
    Stopped {
        /// Number of optimizer steps done.
        step: u64,
        /// Path of the run's folder.
        path: PathBuf,
    },
}

impl RunError {
    /// Returns the exit code of a command that ends with this error.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NoRows { .. }
            | Self::NoBatch { .. }
            | Self::Unlearnable { .. }
            | Self::Unscorable { .. } => exit::USAGE,
            Self::OtherStore { .. } | Self::OtherFeature { .. } => exit::OTHER_PLAN,
            Self::OtherFiles { .. } | Self::LostRows { .. } => exit::DAMAGED,
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

/// Returns the first 16 digits of a hash, which suffice to distinguish two hashes.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
