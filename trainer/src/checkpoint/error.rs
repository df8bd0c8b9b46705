//! Errors of writing and reading checkpoints.

use std::io;
use std::path::PathBuf;

use wavemill_schemas::exit;

use super::FORMAT_VERSION;

/// Advice for damaged checkpoints.
const REMEDY: &str = "restore it from a copy, or remove its folder: fit --resume and --checkpoint last then use the \
                      previous one";

/// Error writing or reading a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder cannot be read or written.
    #[error("checkpoint {path}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A file is missing or differs from what was written.
    #[error("checkpoint {path}: damaged ({problem}): {REMEDY}")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Description of the damage.
        problem: String,
    },
    /// A tensor of the model is missing in the checkpoint or has another shape there.
    #[error(
        "checkpoint {path}: {name} is missing or has another shape: the checkpoint belongs to another model or \
         configuration"
    )]
    Mismatch {
        /// Path of the checkpoint.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// The checkpoint was written by a newer version of wavemill.
    #[error(
        "checkpoint {path}: format version {found}; this wavemill-train reads up to {FORMAT_VERSION}: use a newer one"
    )]
    Version {
        /// Path of the state.
        path: PathBuf,
        /// Format version in the state.
        found: u32,
    },
    /// There is no checkpoint to resume from.
    #[error(
        "no checkpoint in {path}: was the run stopped before its first one? restart it there with --resume-or-start \
         and its original flags"
    )]
    None {
        /// The folder that was searched.
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
