//! A report on the state of CUDA on a machine, for users who ask why no GPU is used.

use std::path::PathBuf;

use serde::Serialize;

use super::{Gpu, libraries};
use crate::error::KernelError;

/// CUDA devices and libraries of a machine, found or missing.
#[derive(Clone, Debug, Serialize)]
pub struct CudaReport {
    /// Whether features can be computed on the machine's GPUs.
    pub usable: bool,
    /// Reason why CUDA cannot be used: the first missing component, with the remedy.
    pub problem: Option<String>,
    /// GPUs that the driver shows to this process.
    pub devices: Vec<FoundDevice>,
    /// The driver, cuFFT, NVRTC and NCCL. NCCL is used only by the trainer; features do not need it.
    pub libraries: Vec<FoundLibrary>,
}

/// A GPU of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct FoundDevice {
    /// Name of the GPU in command line options, for example `cuda:0`.
    pub device: String,
    /// The vendor's name of the GPU.
    pub name: String,
    /// Architecture of the GPU, for example `sm_90`.
    pub architecture: String,
    /// Total memory of the GPU in bytes.
    pub memory_bytes: usize,
}

/// One of NVIDIA's libraries, found or missing.
#[derive(Clone, Debug, Serialize)]
pub struct FoundLibrary {
    /// Human-readable name of the library.
    pub name: &'static str,
    /// Version reported by the library.
    pub version: Option<String>,
    /// Path of the loaded library file.
    pub path: Option<PathBuf>,
    /// Reason why the library cannot be used, with the remedy.
    pub problem: Option<String>,
    /// Folders that were searched without success, in addition to the loader's own.
    pub tried: Vec<PathBuf>,
}

impl CudaReport {
    /// Examines this machine: opens the libraries, but no GPU.
    pub fn detect() -> Self {
        let libraries = libraries::inspect();
        // `open` does not look for NCCL, because features can be computed without it.
        let listed = libraries::open().and_then(|_| Gpu::all());
        let (devices, problem) = match listed {
            Ok(devices) => (devices, None),
            // The report is about CUDA as a whole, so the detail of the error is sufficient.
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
