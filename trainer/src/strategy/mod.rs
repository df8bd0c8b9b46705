//! Distributed training: how the ranks of a job connect, exchange sums, and shut down together when one of them fails.
//!
//! Gradients are reduced after the backward pass, in flat buckets. The reduction does not overlap with the backward
//! pass, since libtorch offers this crate no hook on gradients. A rank is a process, started by torchrun or by
//! `launch`. This module does not read stores and does not depend on the model.

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
/// Every rank must make the same calls in the same order. A group cannot be used any more after an error.
pub trait Collective: ffi::SumOverRanks + Send + Sync + std::fmt::Debug {
    /// Returns the number of this process, counted from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks.
    fn world_size(&self) -> usize;

    /// Sums a contiguous f32 or f64 tensor over the ranks, in place. The tensor is on the CPU or on the rank's own
    /// device.
    ///
    /// The result has the same bits on every rank. On CPUs, it also has the same bits in every run with the same number
    /// of ranks. On GPUs that depends on NCCL, which chooses its algorithm by the hardware that connects the GPUs.
    ///
    /// # Errors
    /// [`RankError`].
    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError>;

    /// Collects the bytes of every rank, in rank order. Blocks until all ranks have called it.
    ///
    /// # Errors
    /// [`RankError`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError>;

    /// Blocks until every rank has called it.
    ///
    /// # Errors
    /// [`RankError`].
    fn barrier(&self) -> Result<(), RankError> {
        self.gather(&[]).map(drop)
    }

    /// Ends the job successfully: waits until every rank has called it. Ranks that exit afterwards are not reported as
    /// lost.
    ///
    /// # Errors
    /// [`RankError::Lost`].
    fn finish(&self) -> Result<(), RankError>;

    /// Tells the other ranks that this rank is ending and why. They end with the same reason.
    fn fail(&self, reason: &str);
}

impl<T: Collective> ffi::SumOverRanks for T {
    fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String> {
        self.sum(tensor).map_err(|error| error.to_string())
    }
}

/// Converts the group to the type that [`ffi::sum_over_ranks`] takes. Leaks a pointer: call it once per process.
pub(crate) fn sum_group(group: &'static dyn Collective) -> &'static ffi::Group {
    Box::leak(Box::new(group as ffi::Group))
}

/// Joins the ranks into a group: [`Solo`] for one rank, a ring over TCP for several, with NCCL in addition if all ranks
/// use GPUs. The group lives as long as the process, since the autograd graph may point to it.
///
/// Blocks until every rank has connected and its `fingerprint` has been compared with that of rank 0. All ranks need
/// the same kind of `device`, and each rank needs a GPU of its own if they use GPUs. In that case [`ffi::load_cuda`]
/// must have been called before. If NCCL is not available, rank 0 prints one line to stderr and tensors on GPUs are
/// summed in host memory.
///
/// # Errors
/// [`RankError`] with the same reason on every rank that connected.
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
                    "wavemill-train: gradients of GPUs are summed in host memory, which is slower, because NCCL is not \
                     available: {reason}"
                );
            }
        }
        Err(error @ RankError::Disagree(_)) => {
            // All ranks got the same error. `finish` keeps each connection open until every rank has got that far, so
            // that each of them can report the error.
            let _ = ring.finish();
            return Err(error);
        }
        Err(error) => return Err(error),
    }

    Ok(Box::leak(Box::new(ring)))
}

/// The group of a job with a single process.
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
