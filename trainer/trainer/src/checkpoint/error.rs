//! Errors of writing and reading checkpoints.

use std::io;
use std::path::PathBuf;

use wavemill_schemas::exit;

use super::FORMAT_VERSION;

/// Advice in the message about a damaged checkpoint.
const REMEDY: &str = "restore it from a copy, or remove its folder: fit --resume and --checkpoint last then use the \
                      previous one";

/// Error that occurs when a checkpoint is written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder of a checkpoint cannot be read or written.
    #[error("checkpoint {path}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A file of a checkpoint is missing or has other contents than were written.
    #[error("checkpoint {path}: damaged ({problem}): {REMEDY}")]
    Damaged {
        /// Path of the missing or damaged file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
    },
    /// A tensor of the model is missing in the checkpoint, or has another shape in the checkpoint.
    #[error(
        "checkpoint {path}: {name} is missing or has another shape: the checkpoint belongs to another model or \
         configuration"
    )]
    Mismatch {
        /// Path of the checkpoint's folder.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// The checkpoint was written by a newer version of wavemill.
    #[error(
        "checkpoint {path}: format version {found}; this wavemill-train reads up to {FORMAT_VERSION}: use a newer one"
    )]
    Version {
        /// Path of the checkpoint's `state.json`.
        path: PathBuf,
        /// Format version found in `state.json`.
        found: u32,
    },
    /// The folder contains no checkpoint to resume from.
    #[error(
        "no checkpoint in {path}: was the run stopped before its first one? restart it there with --resume-or-start \
         and its original flags"
    )]
    None {
        /// Path of the folder that was searched for checkpoints.
        path: PathBuf,
    },
}

impl CheckpointError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Damaged { .. } => exit::DAMAGED,
            Self::Mismatch { .. } => exit::OTHER_PLAN,
            Self::None { .. } => exit::USAGE,
            Self::Io { .. } | Self::Version { .. } => exit::FAILED,
        }
    }
}
