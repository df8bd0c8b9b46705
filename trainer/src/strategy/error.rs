//! Errors of distributed training: which rank failed, why, and how to fix it.

use std::io;

use wavemill_schemas::exit;

use super::LOST;
use crate::ffi;

/// Errors that prevent ranks from starting or continuing together.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// Some of the launcher's environment variables are set, but one is missing or has an invalid value.
    #[error("{name} {problem}, although {set} is set: torchrun and --nproc set all of them")]
    Variable {
        /// Name of the missing or invalid variable.
        name: &'static str,
        /// "is not set", or the value and a description of valid values.
        problem: String,
        /// A variable that is set, which shows that a launcher started this process.
        set: &'static str,
    },
    /// Rank 0 cannot listen on its address.
    #[error("rank 0 cannot listen on {address}: {source}; set another port with WAVEMILL_PORT")]
    Listen {
        /// Address and port of rank 0.
        address: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A rank could not reach rank 0 of its job.
    #[error("rank {rank} cannot reach rank 0 at {address} within {seconds} s: {reason}")]
    Unreachable {
        /// Rank that tried to connect.
        rank: usize,
        /// Address and port of rank 0.
        address: String,
        /// Time for which the rank tried to connect.
        seconds: u64,
        /// Error of the last attempt.
        reason: String,
    },
    /// Some ranks did not connect to rank 0 in time.
    #[error(
        "ranks that did not connect to rank 0 within {seconds} s: {ranks}; were all of them started with the same job \
         token?"
    )]
    Missing {
        /// Comma-separated numbers of the missing ranks.
        ranks: String,
        /// Time for which rank 0 waited.
        seconds: u64,
    },
    /// A rank differs from rank 0, for example in its configuration, store, version or device.
    #[error(
        "rank {rank} has {field} {found}, rank 0 has {wanted}: it must be the same on all ranks"
    )]
    Disagree {
        /// Rank that differs from rank 0.
        rank: usize,
        /// Name of the field that differs.
        field: &'static str,
        /// Value of this rank.
        found: String,
        /// Value of rank 0.
        wanted: String,
    },
    /// Two ranks use the same GPU. NCCL does not support this, and it would be slower than a single rank.
    #[error(
        "ranks {earlier} and {rank} have the same GPU ({gpu}): start at most as many ranks as there are GPUs"
    )]
    SharedGpu {
        /// Rank with the lower number.
        earlier: usize,
        /// Rank with the higher number.
        rank: usize,
        /// Device name of the GPU on the rank with the higher number.
        gpu: String,
    },
    /// Two processes have the same rank number.
    #[error("two processes claim to be rank {rank}")]
    Duplicate {
        /// Number that both processes claim.
        rank: usize,
    },
    /// Rank 0 refused to start the job.
    #[error("rank 0 cancelled the start: {reason}")]
    Refused {
        /// Reason given by rank 0.
        reason: String,
    },
    /// A rank ended or stopped responding, or reported a failure.
    #[error("rank {rank} ended: {reason}; the last checkpoint is intact")]
    Lost {
        /// Rank that was lost.
        rank: usize,
        /// Reason given by the lost rank, or derived from the state of its connection.
        reason: String,
    },
    /// The connection to a neighbour in the ring broke.
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
    /// Two ranks called different operations.
    #[error(
        "rank {rank} is at {here}, rank {neighbour} at {there}: all ranks must call the same operations in the same \
         order"
    )]
    OutOfStep {
        /// Rank that reports the error.
        rank: usize,
        /// Previous rank in the ring.
        neighbour: usize,
        /// Operation called by this rank.
        here: String,
        /// Operation called by the neighbour.
        there: String,
    },
    /// The group cannot sum this tensor.
    #[error("ranks can sum only contiguous f32 and f64 tensors on {device}, not {found}")]
    Tensor {
        /// Devices on which this group sums tensors.
        device: &'static str,
        /// Description of the tensor.
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
    /// NCCL did not finish its initialization in time.
    #[error(
        "rank {rank}: NCCL did not initialise within {seconds} s; set NCCL_SOCKET_IFNAME to the network interface that \
         connects the ranks"
    )]
    NcclSlow {
        /// Rank that reports the error.
        rank: usize,
        /// Time for which the rank waited.
        seconds: u64,
    },
    /// libtorch returned an error.
    #[error("rank {rank}: {source}")]
    Torch {
        /// Rank that reports the error.
        rank: usize,
        /// Error returned by libtorch.
        source: tch::TchError,
    },
    /// The operating system reported an error while the ranks were being set up.
    #[error("rank {rank}: {what}: {source}")]
    System {
        /// Rank that reports the error.
        rank: usize,
        /// Action that failed.
        what: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The launcher could not start or watch the process of a rank.
    #[error("rank {rank} cannot be started: {source}")]
    Launch {
        /// Rank whose process failed to start.
        rank: usize,
        /// Error of the operating system.
        source: io::Error,
    },
}

impl RankError {
    /// Returns the exit code of a command that ends with this error.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Lost { .. } | Self::Neighbour { .. } => LOST,
            _ => exit::FAILED,
        }
    }

    /// Returns a function for `map_err` that reports an error of the operating system on `rank` during the action
    /// `what`.
    pub(super) fn system(rank: usize, what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { rank, what, source }
    }

    /// Returns a function for `map_err` that reports an error of libtorch on `rank`.
    pub(super) fn torch(rank: usize) -> impl Fn(tch::TchError) -> Self {
        move |source| Self::Torch { rank, source }
    }
}
