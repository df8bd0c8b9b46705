//! How several ranks train one model: how they find each other, what they sum, over what, and how all end when one does.
//!
//! Gradients travel after backward, in flat buckets; there is no overlap with it, since libtorch offers this crate no
//! hook on a gradient. A rank is a process: torchrun starts it, or [`launch()`]. Nothing here reads a store or knows a
//! model.

mod buckets;
mod error;
mod launch;
mod links;
mod rendezvous;
mod ring;
mod watchdog;
mod wire;

#[cfg(test)]
mod tests;

use tch::Tensor;

use crate::ffi;

pub use buckets::Buckets;
pub use error::RankError;
pub use launch::{Ranks, launch};
pub use rendezvous::Fingerprint;
pub use ring::RingGroup;
pub use watchdog::{OnLoss, exit_on_loss};

/// The ranks of one job.
///
/// Every rank makes the same calls in the same order. After an error a group is of no more use.
pub trait Collective: ffi::SumOverRanks + Send + Sync + std::fmt::Debug {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// Σ over ranks of a contiguous f32 or f64 tensor, in place; the same bits on every rank, and in every run with as
    /// many ranks.
    ///
    /// # Errors
    /// [`RankError`].
    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError>;

    /// Bytes of every rank, by rank; all wait for all.
    ///
    /// # Errors
    /// [`RankError`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// [`RankError`].
    fn barrier(&self) -> Result<(), RankError> {
        self.gather(&[]).map(drop)
    }

    /// The good end: waits until every rank calls it; from then on, ranks that go are not missed.
    ///
    /// # Errors
    /// [`RankError::Lost`].
    fn finish(&self) -> Result<(), RankError>;

    /// Tells the other ranks that this one ends and why, so that they end with these words.
    fn fail(&self, reason: &str);
}

impl<T: Collective> ffi::SumOverRanks for T {
    fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String> {
        self.sum(tensor).map_err(|error| error.to_string())
    }
}

/// The group as [`ffi::sum_over_ranks`] wants it. Leaks a pointer: one call a process.
#[must_use]
pub fn sum_group(group: &'static dyn Collective) -> &'static ffi::Group {
    Box::leak(Box::new(group as ffi::Group))
}

/// Joins the ranks: [`Solo`] if there is one, a ring over TCP otherwise. The group lives as long as the process, since
/// the graph of autograd may point to it.
///
/// All wait here until every rank has come and agrees with rank 0 on `fingerprint`.
///
/// # Errors
/// [`RankError`] with the reason, on every rank that came.
pub fn join(ranks: &Ranks, fingerprint: &Fingerprint, on_loss: OnLoss) -> Result<&'static dyn Collective, RankError> {
    if ranks.world_size == 1 {
        return Ok(&Solo);
    }
    Ok(Box::leak(Box::new(RingGroup::join(ranks, fingerprint, on_loss)?)))
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

    fn finish(&self) -> Result<(), RankError> {
        Ok(())
    }

    fn fail(&self, _reason: &str) {}
}
