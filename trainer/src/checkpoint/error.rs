//! Why a checkpoint cannot be written or used.

use std::io;
use std::path::PathBuf;

use super::FORMAT_VERSION;

/// What helps where a checkpoint is damaged.
const REMEDY: &str = "restore it from a copy, or remove its folder: fit --resume then goes on from the one before it, \
                      and --checkpoint last takes that one";

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk's word.
    #[error("checkpoint {path}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Bytes that are not those that were written, or are gone.
    #[error("checkpoint {path}: damaged ({problem}): {REMEDY}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How it shows.
        problem: &'static str,
    },
    /// `state.json` is not what it should be.
    #[error("checkpoint {path}: damaged (not a state of wavemill-train): {REMEDY}")]
    State {
        /// Which file.
        path: PathBuf,
        /// The parser's words.
        source: serde_json::Error,
    },
    /// The tensors cannot be read.
    #[error("checkpoint {path}: damaged ({source}): {REMEDY}")]
    Tensors {
        /// Which file.
        path: PathBuf,
        /// libtorch's words.
        source: tch::TchError,
    },
    /// A tensor that the model has is not there, or has another shape.
    #[error(
        "checkpoint {path}: {name} is missing or of another shape; it is of another model or configuration"
    )]
    Mismatch {
        /// Which checkpoint.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// Written by a later wavemill.
    #[error(
        "checkpoint {path}: format version {found}; this wavemill-train reads up to {FORMAT_VERSION}: use a newer one"
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// Nothing to go on from.
    #[error(
        "no checkpoint in {path}: was the run stopped before its first? begin it again there with \
             --resume-or-start and its own flags"
    )]
    None {
        /// The folder that was searched.
        path: PathBuf,
    },
}
