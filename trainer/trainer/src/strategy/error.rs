//! Errors of distributed training: which rank failed, why, and how to fix it.

use std::io;

use wavemill_schemas::exit::{Classified, Kind};

use crate::ffi::FfiError;

/// Errors that prevent ranks from starting or continuing together.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum RankError {
    /// The ranks differ in a setting that must be equal, or two ranks use the same GPU. All ranks return this error.
    #[error("{0}")]
    Disagree(String),
    /// A rank ended, stopped responding, or reported a failure.
    #[error("rank {rank} ended: {reason}; the last checkpoint is intact")]
    Lost { rank: usize, reason: String },
    /// The connection to the next or previous rank in the ring broke.
    #[error(
        "rank {rank} lost its connection to rank {neighbour}: {source}; the last checkpoint is intact"
    )]
    Neighbour {
        rank: usize,
        neighbour: usize,
        source: io::Error,
    },
    /// The tensor is of a kind or on a device that the ranks cannot sum.
    #[error("ranks can sum only contiguous f32 and f64 tensors on {device}, not {found}")]
    Tensor { device: &'static str, found: String },
    /// NCCL or CUDA returned an error.
    #[error("rank {rank}: {source}")]
    Nccl { rank: usize, source: FfiError },
    /// Any other error of distributed training. The message names the rank and the cause.
    #[error("{0}")]
    Other(String),
}

impl Classified for RankError {
    fn kind(&self) -> Kind {
        match self {
            Self::Lost { .. } | Self::Neighbour { .. } => Kind::LostRank,
            Self::Disagree(_) | Self::Tensor { .. } | Self::Nccl { .. } | Self::Other(_) => {
                Kind::Failed
            }
        }
    }
}

impl RankError {
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
