//! Errors of distributed training: which rank failed, why, and how to fix it.

use std::io;

use wavemill_schemas::exit;

use super::LOST;
use crate::ffi;

/// Errors that prevent ranks from starting or continuing together.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// The ranks differ in a setting that must be equal, or two ranks use the same GPU. All ranks return this error.
    #[error("{0}")]
    Disagree(String),
    /// A rank ended, stopped responding, or reported a failure.
    #[error("rank {rank} ended: {reason}; the last checkpoint is intact")]
    Lost {
        /// Rank that was lost.
        rank: usize,
        /// Reason given by the lost rank, or derived from the state of its connection.
        reason: String,
    },
    /// The connection to the next or previous rank in the ring broke.
    #[error(
        "rank {rank} lost its connection to rank {neighbour}: {source}; the last checkpoint is intact"
    )]
    Neighbour {
        /// Rank that reports the error.
        rank: usize,
        /// Rank on the other side of the connection.
        neighbour: usize,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The tensor is of a kind or on a device that the ranks cannot sum.
    #[error("ranks can sum only contiguous f32 and f64 tensors on {device}, not {found}")]
    Tensor {
        /// Devices on which tensors can be summed.
        device: &'static str,
        /// Description of the rejected tensor.
        found: String,
    },
    /// NCCL or CUDA returned an error.
    #[error("rank {rank}: {source}")]
    Nccl {
        /// Rank that reports the error.
        rank: usize,
        /// Error returned by NCCL or CUDA.
        source: ffi::NcclError,
    },
    /// Any other error of distributed training. The message names the rank and the cause.
    #[error("{0}")]
    Other(String),
}

impl RankError {
    /// Returns the exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Lost { .. } | Self::Neighbour { .. } => LOST,
            _ => exit::FAILED,
        }
    }

    /// Creates the error for a rank that differs from rank 0, for example in its configuration, version or device.
    pub(crate) fn differs(rank: usize, field: &str, found: &str, wanted: &str) -> Self {
        Self::Disagree(format!(
            "rank {rank} has {field} {found}, rank 0 has {wanted}: it must be the same on all ranks"
        ))
    }

    /// Returns a function for `map_err` that adds the rank and the failed action `what` to an operating system error.
    pub(super) fn system(rank: usize, what: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Other(format!("rank {rank}: {what}: {source}"))
    }

    /// Returns a function for `map_err` that reports that the process of rank `rank` cannot be started or waited for.
    pub(super) fn launch(rank: usize) -> impl Fn(io::Error) -> Self {
        move |source| Self::Other(format!("rank {rank} cannot be started: {source}"))
    }

    /// Returns a function for `map_err` that adds the number of the rank to an error of libtorch.
    pub(super) fn torch(rank: usize) -> impl Fn(tch::TchError) -> Self {
        move |source| Self::Other(format!("rank {rank}: {source}"))
    }
}
