//! What there is of CUDA on a machine, said in one piece: for a person who asks why no GPU is used.

use std::path::PathBuf;

use serde::Serialize;

use super::{Gpu, libraries};
use crate::error::KernelError;

/// Devices and libraries, found or missing.
#[derive(Clone, Debug, Serialize)]
pub struct CudaReport {
    /// Features can be computed on these devices.
    pub usable: bool,
    /// Why not: the first thing that is missing, with what helps.
    pub problem: Option<String>,
    /// GPUs that the driver shows to this process.
    pub devices: Vec<FoundDevice>,
    /// The driver, cuFFT, NVRTC and NCCL. The last is the trainer's alone: features need none.
    pub libraries: Vec<FoundLibrary>,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct FoundDevice {
    /// `cuda:0`.
    pub device: String,
    /// What its maker calls it.
    pub name: String,
    /// `sm_90` and its like.
    pub architecture: String,
    /// Its memory.
    pub memory_bytes: usize,
}

/// One of NVIDIA's libraries.
#[derive(Clone, Debug, Serialize)]
pub struct FoundLibrary {
    /// For people.
    pub name: &'static str,
    /// Its own answer.
    pub version: Option<String>,
    /// The file that was loaded.
    pub path: Option<PathBuf>,
    /// Why it cannot be used, with what helps.
    pub problem: Option<String>,
    /// Folders that were searched beside the loader's own, where it was not found.
    pub tried: Vec<PathBuf>,
}

impl CudaReport {
    /// Looks at this machine. Opens libraries, and no device.
    pub fn of_this_machine() -> Self {
        let libraries = libraries::inspect();
        // `open` does not ask for NCCL, because features can be computed without it.
        let listed = libraries::open().and_then(|_| Gpu::all());
        let (devices, problem) = match listed {
            Ok(devices) => (devices, None),
            // The report is about CUDA as a whole, so the detail alone is enough.
            Err(KernelError::Device { detail, .. }) => (Vec::new(), Some(detail)),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };

        Self {
            usable: problem.is_none(),
            problem,
            devices,
            libraries,
        }
    }
}
