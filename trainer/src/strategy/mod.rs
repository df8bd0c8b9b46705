//! How several ranks train one model: what they sum, and over what.
//!
//! Gradients travel after backward, in flat buckets; there is no overlap with it, since libtorch offers this crate no
//! hook on a gradient.

use tch::Tensor;

/// Why ranks cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// A rank is gone, or says so.
    #[error("rank {rank} ended: {reason}")]
    Lost {
        /// Which.
        rank: usize,
        /// As it, or the connection, said.
        reason: String,
    },
}

/// The ranks of one job.
pub trait Collective: Send + Sync + std::fmt::Debug {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// Σ over ranks of a contiguous f32 or f64 tensor, in place; the same bits on every rank.
    ///
    /// # Errors
    /// [`RankError`].
    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError>;

    /// Bytes of every rank, by rank; all wait for all.
    ///
    /// # Errors
    /// [`RankError`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError>;
}

/// One process, all by itself.
#[derive(Debug)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn sum(&self, _tensor: &mut Tensor) -> Result<(), RankError> {
        Ok(())
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        Ok(vec![bytes.to_vec()])
    }
}
