//! A group of ranks with one GPU each: NCCL sums tensors on GPUs, and the TCP ring sums tensors on CPUs and gathers
//! bytes.
//!
//! NCCL may wait forever for a lost rank. The watchdog of the TCP ring therefore monitors the ranks and also polls NCCL
//! for errors. If [`OnLoss`](super::OnLoss) does not end the process, the GPU keeps waiting.

use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Tensor};

use super::ring::RingGroup;
use super::{Collective, RankError};
use crate::ffi::{self, Communicator, FfiError, NcclRank};

/// Maximum duration of NCCL's initialization after all ranks have connected. With many nodes, it takes tens of seconds.
/// On a network that NCCL cannot use, NCCL would wait forever.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// A group of ranks on GPUs, connected by NCCL.
#[derive(Debug)]
pub(crate) struct NcclGroup {
    ring: RingGroup,
    communicator: Arc<Communicator>,
}

impl NcclGroup {
    /// Creates the NCCL communicator of GPU `device` and the GPUs of the other ranks. All ranks must call `begin`.
    /// Failures are reported to the other ranks over `ring`.
    ///
    /// # Errors
    /// [`RankError::Nccl`] if NCCL fails, [`RankError::Other`] if its initialization takes too long, and the errors of
    /// the ring.
    pub(super) fn begin(ring: RingGroup, device: usize) -> Result<Self, RankError> {
        match communicator(&ring, device) {
            Ok(communicator) => {
                let communicator = Arc::new(communicator);
                // NCCL reports a broken connection only when it is polled. The watchdog polls it every second.
                let watched = Arc::clone(&communicator);
                ring.watch(Box::new(move || {
                    watched.fault().map(|fault| fault.to_string())
                }));
                Ok(Self { ring, communicator })
            }

            Err(error) => {
                // Report only the cause: the other ranks add the number of this rank themselves.
                match &error {
                    RankError::Nccl { source, .. } => ring.fail(&source.to_string()),
                    _ => ring.fail(&error.to_string()),
                }
                Err(error)
            }
        }
    }

    /// Returns the loss of a rank that caused an error of NCCL, if there was one. A rejected tensor is never caused by
    /// a loss.
    fn explain(&self, source: FfiError) -> RankError {
        match source {
            FfiError::Tensor { found, .. } => RankError::Tensor {
                device: "this rank's GPU and CPU",
                found,
            },
            source => self.ring.explain(RankError::Nccl {
                rank: self.rank(),
                source,
            }),
        }
    }
}

/// Creates the communicator in a separate thread, since NCCL's initialization has no timeout of its own.
fn communicator(ring: &RingGroup, device: usize) -> Result<Communicator, RankError> {
    let own_rank = NcclRank {
        rank: ring.rank(),
        world_size: ring.world_size(),
        device,
    };
    let rank = own_rank.rank;

    // Rank 0 creates the id of the communicator and sends it to the other ranks.
    let own = if rank == 0 {
        ffi::nccl_id().map_err(|source| RankError::Nccl { rank, source })?
    } else {
        Vec::new()
    };
    let id = ring.gather(&own)?.swap_remove(0);

    let (done, begun) = crossbeam_channel::bounded(1);
    std::thread::Builder::new()
        .name("nccl-begin".to_owned())
        .spawn(move || drop(done.send(Communicator::join(&id, own_rank))))
        .map_err(RankError::system(rank, "starting NCCL"))?;
    match begun.recv_timeout(BEGIN_TIMEOUT) {
        Ok(joined) => joined.map_err(|source| RankError::Nccl { rank, source }),
        Err(_) => Err(RankError::Other(format!(
            "rank {rank}: NCCL did not initialise within {} s; set NCCL_SOCKET_IFNAME to the network interface that \
             connects the ranks",
            BEGIN_TIMEOUT.as_secs()
        ))),
    }
}

impl Collective for NcclGroup {
    fn rank(&self) -> usize {
        self.ring.rank()
    }

    fn world_size(&self) -> usize {
        self.ring.world_size()
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<(), RankError> {
        if tensor.defined() && tensor.device() != Device::Cpu {
            return self
                .communicator
                .sum(tensor)
                .map_err(|source| self.explain(source));
        }

        // Sums tensors on the CPU, for example counts of rows, over the TCP ring.
        self.ring.sum(tensor)
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        self.ring.gather(bytes)
    }

    fn finish(&self) -> Result<(), RankError> {
        // End NCCL's communicator before the watchdog stops, since NCCL waits here for all ranks.
        self.communicator
            .end()
            .map_err(|source| self.explain(source))?;

        self.ring.finish()
    }

    fn fail(&self, reason: &str) {
        self.ring.fail(reason);
    }
}
