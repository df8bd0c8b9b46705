//! Chooses how the ranks sum tensors: with NCCL if it can be used on the GPUs of all ranks, else in host memory.
//!
//! Every rank sends a description of its device to all other ranks, and all ranks choose the same method from the
//! descriptions.

use std::io;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::{Collective, RankError};
use crate::ffi;

/// Device and NCCL version of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Equipment {
    /// Kind of the device: `cpu` or `cuda`.
    kind: String,
    /// Name of the device for messages.
    name: String,
    /// UUID of the GPU, if the driver reported it.
    uuid: Option<String>,
    /// NCCL's version, or the reason why NCCL is not available. Not queried for a CPU.
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

        // Two ranks on one GPU can only be detected by the UUID of the GPU, so NCCL is not used without a UUID.
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

    /// Formats NCCL's version or the reason why NCCL is not available.
    fn nccl_text(&self) -> String {
        match &self.nccl {
            Ok(version) => ffi::version_text(*version),
            Err(reason) => reason.clone(),
        }
    }
}

/// Method by which the ranks sum tensors.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// The TCP ring, for tensors in host memory.
    Ring,
    /// NCCL, which requires a separate GPU for each rank.
    Nccl {
        /// Index of this rank's GPU.
        device: usize,
    },
    /// The TCP ring, with copies of the GPU tensors in host memory.
    Host {
        /// Reason why NCCL is not used, for messages.
        reason: String,
    },
}

/// Collects the devices of all ranks and chooses the method by which tensors are summed.
///
/// # Errors
/// [`RankError::Disagree`], on every rank, if the ranks have different kinds of devices or share a GPU, and the errors
/// of `group`.
pub(super) fn agree(group: &dyn Collective, device: Device) -> Result<Backend, RankError> {
    let own =
        serde_json::to_vec(&Equipment::from_device(device)).expect("text and numbers are JSON");

    // Gathers over the TCP ring, which already works for every kind of device.
    let mut all: Vec<Equipment> = Vec::new();
    for (rank, bytes) in group.gather(&own)?.iter().enumerate() {
        let equipment = serde_json::from_slice(bytes)
            .map_err(io::Error::from)
            .map_err(RankError::system(rank, "reading the devices of the ranks"))?;
        all.push(equipment);
    }
    decide(&all, device)
}

/// Chooses the summation method from the devices `all` and the kind of `device` only, so that all ranks choose the same
/// one.
fn decide(all: &[Equipment], device: Device) -> Result<Backend, RankError> {
    let first = &all[0];
    if let Some(rank) = all.iter().position(|other| other.kind != first.kind) {
        let found = &all[rank].kind;
        return Err(RankError::differs(rank, "device", found, &first.kind));
    }
    let Device::Cuda(device) = device else {
        return Ok(Backend::Ring);
    };

    // NCCL does not support two ranks on one GPU, and two ranks that share a GPU would be slower than one.
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

        // If each process sees only its own GPU, different GPUs have the same index.
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

        // Two ranks on one GPU are an error even if NCCL is not available.
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

        // GPUs without a known UUID are assumed to be different.
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
