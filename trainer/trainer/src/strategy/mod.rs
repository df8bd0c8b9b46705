//! Distributed training: how the ranks of a job connect, exchange sums, and shut down together when one of them fails.
//!
//! Gradients are reduced after the backward pass, in flat buckets. The reduction does not overlap with the backward
//! pass, since libtorch offers this crate no hook on gradients. A rank is a process, started by torchrun or by
//! `launch`. This module reads no stores and does not depend on models.

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
pub(crate) use watchdog::{OnLoss, exit_on_loss};
pub(crate) use wire::random;

/// The ranks of one training job, and the operations in which all ranks take part.
///
/// All ranks must call the same operations of a group in the same order. After an error, the group cannot be used any
/// more.
pub trait Collective: ffi::SumOverRanks + Send + Sync + std::fmt::Debug {
    /// Returns the rank of this process, counted from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks of the job.
    fn world_size(&self) -> usize;

    /// Sums a contiguous f32 or f64 tensor over the ranks, in place. The tensor is on the CPU or on the rank's own
    /// device.
    ///
    /// The sum has the same bits on every rank. On CPUs, it also has the same bits in every run with the same number of
    /// ranks. On GPUs, this depends on the algorithm that NCCL chooses.
    ///
    /// # Errors
    /// [`RankError`] if a rank is lost or the tensor cannot be summed.
    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError>;

    /// Returns the bytes that each rank passed, in rank order. Blocks until all ranks have called `gather`.
    ///
    /// # Errors
    /// [`RankError`] if a rank is lost or the ranks call different operations.
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError>;

    /// Blocks until every rank has called `barrier`.
    ///
    /// # Errors
    /// [`RankError`] if a rank is lost or the ranks call different operations.
    fn barrier(&self) -> Result<(), RankError> {
        self.gather(&[]).map(drop)
    }

    /// Ends the job successfully: blocks until every rank has called `finish`. Ranks that exit afterwards are not
    /// reported as lost.
    ///
    /// # Errors
    /// [`RankError::Lost`] if a rank is lost before all ranks have called `finish`.
    fn finish(&self) -> Result<(), RankError>;

    /// Reports to the other ranks that this rank is ending, and the reason. The other ranks then end with the same
    /// reason.
    fn fail(&self, reason: &str);
}

impl<T: Collective> ffi::SumOverRanks for T {
    fn sum_in_place(&self, tensor: &mut Tensor) -> Result<(), String> {
        self.sum(tensor).map_err(|error| error.to_string())
    }
}

/// Converts the group to the type that [`ffi::sum_over_ranks`] takes. Leaks memory: call this once per process.
pub(crate) fn sum_group(group: &'static dyn Collective) -> &'static ffi::Group {
    Box::leak(Box::new(group as ffi::Group))
}

/// Joins the ranks into a group: [`Solo`] for one rank, a ring over TCP for several, with NCCL in addition if all ranks
/// use GPUs. The group is never freed, since the autograd graph may point to it.
///
/// Blocks until every rank has connected and has the same `fingerprint` (versions and hashes) as rank 0. All ranks need
/// the same kind of `device`, and each rank needs a GPU of its own if they use GPUs. In that case [`ffi::load_cuda`]
/// must have been called before. Without NCCL, rank 0 passes one line to `say` and tensors on GPUs are summed in host
/// memory.
///
/// # Errors
/// [`RankError`] with the same reason on every rank that connected, for example if a rank is missing or has other
/// settings.
pub(crate) fn join(
    ranks: &Ranks,
    fingerprint: &Fingerprint,
    device: Device,
    on_loss: OnLoss,
    say: fn(&str),
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
                say(&format!(
                    "gradients of GPUs are summed in host memory, which is slower, because NCCL is not available: \
                     {reason}"
                ));
            }
        }
        Err(error @ RankError::Disagree(_)) => {
            // All ranks return the same error. `finish` keeps the connections open until every rank has received the
            // error.
            let _ = ring.finish();
            return Err(error);
        }
        Err(error) => return Err(error),
    }

    Ok(Box::leak(Box::new(ring)))
}

/// The group of a job that has a single process.
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
