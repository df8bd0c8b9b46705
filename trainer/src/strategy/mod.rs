//! How several ranks train one model: how they find each other, what they sum, over what, and how all end when one does.
//!
//! Gradients travel after backward, in flat buckets; there is no overlap with it, since libtorch offers this crate no
//! hook on a gradient. A rank is a process: torchrun starts it, or `launch`. Nothing here reads a store or knows a
//! model.

mod buckets;
mod devices;
mod error;
mod launch;
mod links;
mod nccl;
mod rendezvous;
mod ring;
mod watchdog;
mod wire;

#[cfg(test)]
mod tests;

use tch::{Device, Tensor};

use self::devices::Backend;
use crate::ffi;

pub(crate) use buckets::Buckets;
pub use error::RankError;
pub(crate) use launch::{Ranks, launch};
pub(crate) use nccl::NcclGroup;
pub(crate) use rendezvous::Fingerprint;
pub(crate) use ring::RingGroup;
pub(crate) use watchdog::{LOST, OnLoss, exit_on_loss};
pub(crate) use wire::random;

/// The ranks of one job.
///
/// Every rank makes the same calls in the same order. After an error a group is of no more use.
pub trait Collective: ffi::SumOverRanks + Send + Sync + std::fmt::Debug {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// Σ over ranks of a contiguous f32 or f64 tensor, in place, on the CPU or the rank's own device; the same bits on
    /// every rank. On CPUs also in every run with as many ranks; on GPUs that is up to NCCL, which chooses its
    /// algorithm by what connects them.
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
pub(crate) fn sum_group(group: &'static dyn Collective) -> &'static ffi::Group {
    Box::leak(Box::new(group as ffi::Group))
}

/// Joins the ranks: [`Solo`] if there is one, a ring over TCP otherwise, with NCCL besides if all are on GPUs. The group
/// lives as long as the process, since the graph of autograd may point to it.
///
/// All wait here until every rank has come and agrees with rank 0 on `fingerprint`. They need the same kind of `device`,
/// and a GPU each; [`ffi::load_cuda`] was called before, if it is one. Where NCCL is not to be had, rank 0 says so in
/// one line on stderr, and GPUs sum in host memory.
///
/// # Errors
/// [`RankError`] with the reason, on every rank that came.
pub(crate) fn join(
    ranks: &Ranks,
    fingerprint: &Fingerprint,
    device: Device,
    on_loss: OnLoss,
) -> Result<&'static dyn Collective, RankError> {
    if ranks.world_size == 1 {
        return Ok(&Solo);
    }

    let ring = RingGroup::join(ranks, fingerprint, on_loss)?;
    match devices::agree(&ring, device) {
        Ok(Backend::Nccl { device }) => {
            let group = NcclGroup::begin(ring, device)?;
            return Ok(Box::leak(Box::new(group)));
        }
        Ok(Backend::Ring) => {}
        Ok(Backend::Host { reason }) => {
            if ranks.rank == 0 {
                eprintln!(
                    "wavemill-train: GPUs sum in host memory, which is slower, since NCCL is not to be had: {reason}"
                );
            }
        }
        Err(error @ (RankError::Disagree { .. } | RankError::SharedGpu { .. })) => {
            // All see the same error: they part in order, so that each gets to say it.
            let _ = ring.finish();
            return Err(error);
        }
        Err(error) => return Err(error),
    }

    Ok(Box::leak(Box::new(ring)))
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
