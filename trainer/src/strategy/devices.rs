//! Chooses how tensors are summed from the devices of all ranks: with NCCL, or in host memory if NCCL is not available.
//!
//! Every rank sends a description of its device to all others, and each rank derives the same decision from them.

use std::io;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::{Collective, RankError};
use crate::ffi;

/// Device and NCCL version of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Equipment {
    /// `cpu` or `cuda`.
    kind: String,
    /// Device name for messages.
    name: String,
    /// UUID of the GPU, if the driver reported it.
    uuid: Option<String>,
    /// NCCL's version, or the reason why it is not available. Not queried on a CPU.
    nccl: Result<i32, String>,
}

impl Equipment {
    fn from_device(device: Device) -> Self {
        let Device::Cuda(index) = device else {
            let kind = format!("{device:?}").to_lowercase();
            return Self {
                name: kind.clone(),
                kind,
                uuid: None,
                nccl: Err("no GPU".to_owned()),
            };
        };

        // A shared GPU can only be detected by its UUID, so NCCL is not used without one.
        let uuid = ffi::gpu_uuid(index);
        let nccl = ffi::nccl_version();
        Self {
            kind: "cuda".to_owned(),
            name: format!("cuda:{index}"),
            nccl: uuid
                .as_ref()
                .map_err(ToString::to_string)
                .and(nccl.as_ref().map_err(ToString::to_string))
                .copied(),
            uuid: uuid.ok(),
        }
    }

    /// Formats NCCL's version or the reason why it is not available.
    fn nccl_text(&self) -> String {
        match &self.nccl {
            Ok(version) => ffi::version_text(*version),
            Err(reason) => reason.clone(),
        }
    }
}

/// Method that sums the tensors of a rank's device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// The ring, for tensors in host memory.
    Ring,
    /// NCCL, with one GPU per rank.
    Nccl {
        /// Index of this rank's GPU.
        device: usize,
    },
    /// The ring, with copies in host memory.
    Host {
        /// Reason why NCCL is not used, for messages.
        reason: String,
    },
}

/// Collects the devices of all ranks and chooses the backend.
///
/// # Errors
/// [`RankError::Disagree`], on every rank, and the errors of `group`.
pub(super) fn agree(group: &dyn Collective, device: Device) -> Result<Backend, RankError> {
    let own =
        serde_json::to_vec(&Equipment::from_device(device)).expect("text and numbers are JSON");

    // Uses the ring, which already works for every device.
    let mut all: Vec<Equipment> = Vec::new();
    for (rank, bytes) in group.gather(&own)?.iter().enumerate() {
        let equipment = serde_json::from_slice(bytes)
            .map_err(io::Error::from)
            .map_err(RankError::system(rank, "reading the devices of the ranks"))?;
        all.push(equipment);
    }
    decide(&all, device)
}

/// Chooses the backend. It depends only on `all` and the kind of device, so that every rank makes the same decision.
fn decide(all: &[Equipment], device: Device) -> Result<Backend, RankError> {
    let first = &all[0];
    if let Some(rank) = all.iter().position(|other| other.kind != first.kind) {
        let found = &all[rank].kind;
        return Err(RankError::differs(rank, "device", found, &first.kind));
    }
    let Device::Cuda(device) = device else {
        return Ok(Backend::Ring);
    };

    // NCCL does not support two ranks on one GPU, and they would be slower than one rank.
    for (rank, other) in all.iter().enumerate() {
        if let Some(earlier) = all[..rank]
            .iter()
            .position(|one| one.uuid.is_some() && one.uuid == other.uuid)
        {
            return Err(RankError::Disagree(format!(
                "ranks {earlier} and {rank} have the same GPU ({}): start at most as many ranks as there are GPUs",
                other.name
            )));
        }
    }

    for (rank, other) in all.iter().enumerate() {
        let found = other.nccl_text();
        if other.nccl.is_err() {
            return Ok(Backend::Host {
                reason: format!("rank {rank}: {found}"),
            });
        }
        if other.nccl != first.nccl {
            let wanted = first.nccl_text();
            return Ok(Backend::Host {
                reason: format!("rank {rank} has NCCL {found}, rank 0 has {wanted}"),
            });
        }
    }
    Ok(Backend::Nccl { device })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: usize, uuid: &str) -> Equipment {
        let name = format!("cuda:{index}");
        Equipment {
            kind: "cuda".to_owned(),
            name,
            uuid: Some(uuid.to_owned()),
            nccl: Ok(22_809),
        }
    }

    fn decided(all: &[Equipment]) -> Result<Backend, String> {
        let device = if all[0].kind == "cpu" {
            Device::Cpu
        } else {
            Device::Cuda(1)
        };
        decide(all, device).map_err(|error| error.to_string())
    }

    #[test]
    fn cpus_take_the_ring_and_a_gpu_for_each_takes_nccl() {
        assert_eq!(
            decided(&[
                Equipment::from_device(Device::Cpu),
                Equipment::from_device(Device::Cpu)
            ]),
            Ok(Backend::Ring)
        );
        assert_eq!(
            decided(&[gpu(0, "a"), gpu(1, "b")]),
            Ok(Backend::Nccl { device: 1 })
        );

        // Each process may see only its own GPU, under the same index.
        assert_eq!(
            decided(&[gpu(0, "a"), gpu(0, "b")]),
            Ok(Backend::Nccl { device: 1 })
        );
    }

    #[test]
    fn mixed_devices_and_a_shared_gpu_are_errors_with_ranks() {
        let cpu = Equipment::from_device(Device::Cpu);

        let mixed = decided(&[gpu(0, "a"), gpu(1, "b"), cpu.clone()]).expect_err("mixed");
        assert_eq!(
            mixed,
            "rank 2 has device cpu, rank 0 has cuda: it must be the same on all ranks"
        );

        let mixed = decided(&[cpu, gpu(0, "a")]).expect_err("mixed");
        assert_eq!(
            mixed,
            "rank 1 has device cuda, rank 0 has cpu: it must be the same on all ranks"
        );

        let shared = decided(&[gpu(0, "a"), gpu(1, "b"), gpu(1, "b")]).expect_err("shared");
        assert_eq!(
            shared,
            "ranks 1 and 2 have the same GPU (cuda:1): start at most as many ranks as there are GPUs"
        );

        // A shared GPU is also an error if NCCL is not available.
        let without = Equipment {
            nccl: Err("libnccl.so.2 was not found".to_owned()),
            ..gpu(0, "a")
        };
        assert!(
            decided(&[without.clone(), without])
                .expect_err("shared")
                .starts_with("ranks 0 and 1 have the same")
        );
    }

    #[test]
    fn where_nccl_is_missing_or_differs_gpus_sum_in_host_memory() {
        fn host(reason: &str) -> Result<Backend, String> {
            Ok(Backend::Host {
                reason: reason.to_owned(),
            })
        }

        let without = Equipment {
            nccl: Err("libnccl.so.2 was not found".to_owned()),
            ..gpu(1, "b")
        };
        assert_eq!(
            decided(&[gpu(0, "a"), without]),
            host("rank 1: libnccl.so.2 was not found")
        );

        let other = Equipment {
            nccl: Ok(22_703),
            ..gpu(1, "b")
        };
        assert_eq!(
            decided(&[gpu(0, "a"), other]),
            host("rank 1 has NCCL 2.27.3, rank 0 has 2.28.9")
        );

        // GPUs without a known UUID are not treated as the same GPU.
        let unknown = Equipment {
            uuid: None,
            nccl: Err("CUDA's cuInit: X".to_owned()),
            ..gpu(0, "")
        };
        assert_eq!(
            decided(&[unknown.clone(), unknown]),
            host("rank 0: CUDA's cuInit: X")
        );
    }
}
