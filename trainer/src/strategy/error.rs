//! Why ranks cannot start or go on: which rank, what, and what to do.

use std::io;

use crate::ffi;

/// Why ranks cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// Some of the launcher's variables are set, one is not, or is no such value.
    #[error("{name} {problem}, although {set} is set: torchrun and --nproc set all of them")]
    Variable {
        /// Which.
        name: &'static str,
        /// "is not set", or the value and what it should be.
        problem: String,
        /// The variable that says there are ranks.
        set: &'static str,
    },
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen on {address}: {source}; WAVEMILL_PORT names another port")]
    Listen {
        /// Where.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// No rank 0 of this job was found.
    #[error("rank {rank} found no rank 0 at {address} within {seconds} s: {reason}")]
    Unreachable {
        /// Who searched.
        rank: usize,
        /// Where.
        address: String,
        /// How long.
        seconds: u64,
        /// What the last attempt met.
        reason: String,
    },
    /// Some ranks did not come.
    #[error(
        "after {seconds} s these ranks have not come to rank 0: {ranks}; were all started, with one job token?"
    )]
    Missing {
        /// Comma-separated.
        ranks: String,
        /// How long rank 0 waited.
        seconds: u64,
    },
    /// Two ranks are not of one mind about what is trained; seen by rank 0.
    #[error("rank {rank} has {field} {found}, rank 0 has {wanted}: all ranks need the same")]
    Disagree {
        /// Who differs from rank 0.
        rank: usize,
        /// What differs.
        field: &'static str,
        /// The rank's.
        found: String,
        /// Rank 0's.
        wanted: String,
    },
    /// Two ranks compute on one GPU, which NCCL does not do and which would be slower than one rank.
    #[error(
        "ranks {earlier} and {rank} have the same GPU ({gpu}): start at most as many ranks as there are GPUs"
    )]
    SharedGpu {
        /// The first.
        earlier: usize,
        /// The second.
        rank: usize,
        /// As the second counts its GPUs.
        gpu: String,
    },
    /// Two processes claim one number.
    #[error("two processes say that they are rank {rank}")]
    Duplicate {
        /// The number.
        rank: usize,
    },
    /// Rank 0 refused to begin, and said why.
    #[error("rank 0 ends the start: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// A rank is gone, or says so.
    #[error("rank {rank} ended: {reason}; the last checkpoint is intact")]
    Lost {
        /// Which.
        rank: usize,
        /// As it, or the connection, said.
        reason: String,
    },
    /// The connection to a neighbour in the ring broke.
    #[error(
        "rank {rank} lost its connection to rank {neighbour}: {source}; the last checkpoint is intact"
    )]
    Neighbour {
        /// Who says so.
        rank: usize,
        /// Whose connection.
        neighbour: usize,
        /// The system's words.
        source: io::Error,
    },
    /// Two ranks are at different places of the program.
    #[error(
        "rank {rank} is at {here}, rank {neighbour} at {there}: all ranks must do the same, in one order"
    )]
    OutOfStep {
        /// Who says so.
        rank: usize,
        /// The one before it in the ring.
        neighbour: usize,
        /// Own operation.
        here: String,
        /// The neighbour's.
        there: String,
    },
    /// A tensor that ranks cannot sum.
    #[error("ranks sum contiguous f32 and f64 on {device} only, not {found}")]
    Tensor {
        /// Where this group sums.
        device: &'static str,
        /// What was given.
        found: String,
    },
    /// NCCL, or CUDA below it, refused.
    #[error("rank {rank}: {source}")]
    Nccl {
        /// Whose.
        rank: usize,
        /// What it met.
        source: ffi::NcclError,
    },
    /// NCCL does not come to an end with its beginning.
    #[error(
        "rank {rank}: NCCL has not begun within {seconds} s; NCCL_SOCKET_IFNAME names the network that joins ranks"
    )]
    NcclSlow {
        /// Who says so.
        rank: usize,
        /// How long it waited.
        seconds: u64,
    },
    /// libtorch refused.
    #[error("rank {rank}: {source}")]
    Torch {
        /// Whose.
        rank: usize,
        /// libtorch's words.
        source: tch::TchError,
    },
    /// Something the system refused while ranks were set up.
    #[error("rank {rank}: {what}: {source}")]
    System {
        /// Whose.
        rank: usize,
        /// What was tried.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The parent of ranks could not start or watch one.
    #[error("rank {rank} cannot be started: {source}")]
    Launch {
        /// Which.
        rank: usize,
        /// The system's words.
        source: io::Error,
    },
}

impl RankError {
    /// For `map_err`: what the system refused to `rank` while it did `what`.
    pub(super) fn system(rank: usize, what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { rank, what, source }
    }

    /// For `map_err`: what libtorch refused to `rank`.
    pub(super) fn torch(rank: usize) -> impl Fn(tch::TchError) -> Self {
        move |source| Self::Torch { rank, source }
    }
}
