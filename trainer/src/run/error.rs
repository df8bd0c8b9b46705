//! Why a run ends early.

use std::path::PathBuf;

use wavemill_scores::records::RecordError;

use crate::checkpoint::CheckpointError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluateError;
use crate::learner::LearnError;

use super::training_list::TrainingListError;

/// Why a run ends early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A step.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The run's folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The list of tracks that the run trains on.
    #[error(transparent)]
    TrainingList(#[from] TrainingListError),
    /// A split that training needs has no rows.
    #[error(
        "no rows in split {split} under rule {rule}: choose another with --split, or extract more clips"
    )]
    NoRows {
        /// Which side.
        split: &'static str,
        /// The rule.
        rule: String,
    },
    /// All that a split had was passed over as damaged.
    #[error(
        "no rows in split {split} under rule {rule}: of {lost} nothing can be read: `wavemill verify` names every such file, \
         `wavemill extract --new-version` makes them anew"
    )]
    LostRows {
        /// Which side.
        split: &'static str,
        /// The rule.
        rule: String,
        /// The damaged files, as the manifest calls them.
        lost: String,
    },
    /// Training rows that differ in nothing.
    #[error(
        "target {target}: {problem}: there is nothing to learn; choose another target (--target) or split (--split), or \
         extract clips of more classes"
    )]
    Unlearnable {
        /// As configured.
        target: String,
        /// What the training rows have, with the class.
        problem: String,
    },
    /// A side on which a target has no label.
    #[error(
        "target {target}: no {split} row has a label under rule {rule}: choose another target (--target) or split \
         (--split), or extract more clips"
    )]
    Unscorable {
        /// As configured.
        target: String,
        /// Which side.
        split: &'static str,
        /// The rule.
        rule: String,
    },
    /// `drop_last` leaves nothing.
    #[error(
        "data.batch_size = {batch_size} with data.drop_last leaves no batch of {rows} training rows: take a smaller one"
    )]
    NoBatch {
        /// Of training.
        rows: usize,
        /// As configured.
        batch_size: usize,
    },
    /// A checkpoint of another store or feature.
    #[error(
        "{path} was trained on another {what} ({}); this store has {}: give the store that it was trained on",
        short(theirs),
        short(ours)
    )]
    OtherStore {
        /// The run.
        path: PathBuf,
        /// `manifest` or `feature`.
        what: &'static str,
        /// Of the checkpoint.
        theirs: String,
        /// Of the store.
        ours: String,
    },
    /// A version of the store whose rows are other numbers than those that a model learned from.
    #[error(
        "{path} was trained on feature {name} with feature_id {}; version {version} of the store has {}: a model knows \
         no other numbers; name a version whose {name} was made with the options in the run's recipe.toml",
        short(theirs),
        ours.as_deref().map_or("no such feature", short)
    )]
    OtherFeature {
        /// The checkpoint.
        path: PathBuf,
        /// The feature.
        name: String,
        /// Of the checkpoint.
        theirs: String,
        /// Of the feature of that name there.
        ours: Option<String>,
        /// Which version.
        version: u64,
    },
    /// Other files are passed over than when a checkpoint within an epoch was written.
    #[error(
        "{path}: the checkpoint of step {step} lies within epoch {epoch}, whose order of rows is gone, since other files \
         can be read than then ({files}): bring them to that state; or, where checkpoints/ has one from the end of an \
         epoch, remove those after it, and --resume goes on from there"
    )]
    OtherFiles {
        /// The run.
        path: PathBuf,
        /// Optimiser steps of the checkpoint.
        step: u64,
        /// From 1.
        epoch: u64,
        /// Those that were lost or have come back, as the manifest calls them.
        files: String,
    },
    /// SIGINT or SIGTERM: a checkpoint was written.
    #[error("stopped at step {step}; go on with: wavemill-train fit --resume {path}")]
    Stopped {
        /// Optimiser steps done.
        step: u64,
        /// The run's folder.
        path: PathBuf,
    },
}

/// The first 16 digits of a hash: enough to tell two apart.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}
