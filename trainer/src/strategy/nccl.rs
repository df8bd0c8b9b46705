//! Ranks on GPUs, one each: tensors there are summed by NCCL, all else by the ring over TCP.
//!
//! NCCL alone could wait for ever for a rank that is gone. The ring's watchdog therefore watches here, too, and asks
//! NCCL for errors besides. An [`OnLoss`](super::OnLoss) that does not end the process leaves the GPU waiting.

use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Tensor};

use super::ring::RingGroup;
use super::{Collective, RankError};
use crate::ffi::{self, Communicator, NcclError, NcclRank};

/// How long NCCL may take to begin, once all ranks have met: many nodes need tens of seconds, and a network that it
/// cannot use lets it wait for ever.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Ranks on GPUs, joined by NCCL.
#[derive(Debug)]
pub(crate) struct NcclGroup {
    ring: RingGroup,
    communicator: Arc<Communicator>,
}

impl NcclGroup {
    /// Joins the GPU of this number with those of the ring's other ranks; all call it. `ring` is told of a failure.
    ///
    /// # Errors
    /// [`RankError::Nccl`], [`RankError::NcclSlow`], those of the ring.
    pub(super) fn begin(ring: RingGroup, device: usize) -> Result<Self, RankError> {
        match communicator(&ring, device) {
            Ok(communicator) => {
                let communicator = Arc::new(communicator);
                // NCCL reports a broken connection only if it is asked. The watchdog asks every second.
                let watched = Arc::clone(&communicator);
                ring.watch(Box::new(move || {
                    watched.fault().map(|fault| fault.to_string())
                }));
                Ok(Self { ring, communicator })
            }

            Err(error) => {
                // The others hear whose words they are anyway.
                match &error {
                    RankError::Nccl { source, .. } => ring.fail(&source.to_string()),
                    _ => ring.fail(&error.to_string()),
                }
                Err(error)
            }
        }
    }

    /// The loss that explains an error, if there was one; a tensor that does not fit has no other cause.
    fn explain(&self, source: NcclError) -> RankError {
        match source {
            NcclError::Tensor { found, .. } => RankError::Tensor {
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

/// In a thread, since NCCL's beginning has no limit of its own.
fn communicator(ring: &RingGroup, device: usize) -> Result<Communicator, RankError> {
    let own_rank = NcclRank {
        rank: ring.rank(),
        world_size: ring.world_size(),
        device,
    };
    let rank = own_rank.rank;

    // Rank 0 makes the id of the communicator, the others hear it.
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
        .map_err(RankError::system(rank, "beginning with NCCL"))?;
    match begun.recv_timeout(BEGIN_TIMEOUT) {
        Ok(joined) => joined.map_err(|source| RankError::Nccl { rank, source }),
        Err(_) => Err(RankError::NcclSlow {
            rank,
            seconds: BEGIN_TIMEOUT.as_secs(),
        }),
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

        // What lies on the CPU, such as counts.
        self.ring.sum(tensor)
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
        self.ring.gather(bytes)
    }

    fn finish(&self) -> Result<(), RankError> {
        // Before the watch is over, since NCCL waits here for all ranks.
        self.communicator
            .end()
            .map_err(|source| self.explain(source))?;

        self.ring.finish()
    }

    fn fail(&self, reason: &str) {
        self.ring.fail(reason);
    }
}
