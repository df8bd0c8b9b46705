//! `--backend` and `--devices`: what computes features, opened before anything else is done.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use wavemill_kernels::{Backend, BackendChoice, ChosenBackend, KernelError, Level};
use wavemill_schemas::text::shown;

use super::exit::UsageError;

/// Flags that choose what computes features.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// What computes features: auto, cpu or cuda [default: auto, which is cuda where that works]; part of the engine
    #[arg(
        long,
        value_name = "NAME",
        env = "WAVEMILL_BACKEND",
        hide_env_values = true
    )]
    pub backend: Option<String>,
    /// GPUs to use, by number, all of one kind [default: 0]
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        env = "WAVEMILL_DEVICES",
        hide_env_values = true
    )]
    pub devices: Vec<usize>,
}

impl BackendArgs {
    /// Opens it; the CPU at `level`. A line on standard error says where features are computed, where that is not what
    /// was asked for or goes without saying.
    ///
    /// # Errors
    /// [`UsageError`] for a name or a device that is not there, or a library that CUDA lacks.
    pub fn open(&self, level: Level) -> Result<Arc<dyn Backend>> {
        let name = self
            .backend
            .as_deref()
            .unwrap_or(BackendChoice::Auto.name());
        let choice: BackendChoice = name.parse().map_err(|error| refused(name, error))?;
        let ChosenBackend { backend, notice } = choice
            .open(&self.devices, level)
            .map_err(|error| refused(name, error))?;

        // Nobody misses a GPU on a machine without one.
        let is_told = self.backend.is_some() || backend.kind() != "cpu" || has_nvidia_device();
        if let Some(notice) = notice.filter(|_| is_told) {
            eprintln!("note: {}", shown(&notice));
        }
        Ok(backend)
    }
}

fn refused(backend: &str, error: KernelError) -> UsageError {
    match error {
        KernelError::Argument {
            key,
            value,
            allowed,
        } => {
            // The kernels speak of one device, and the flag lists them.
            let flag = if key == "device" { "devices" } else { key };
            UsageError(format!("--{flag} {value}: must be {allowed}"))
        }
        other => UsageError(format!("--backend {backend}: {other}")),
    }
}

/// NVIDIA's kernel driver is there.
fn has_nvidia_device() -> bool {
    ["/dev/nvidia0", "/proc/driver/nvidia"]
        .iter()
        .any(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_flag_as_it_is_typed() {
        let refusal = |backend: &str, devices: &[usize]| {
            let args = BackendArgs {
                backend: Some(backend.to_owned()),
                devices: devices.to_vec(),
            };
            let error = args.open(Level::Scalar).err().expect("a refusal");
            error.to_string()
        };
        assert_eq!(
            refusal("cpu", &[0]),
            "--devices 0: must be left out with backend cpu"
        );
        assert!(refusal("gpu", &[]).starts_with("--backend gpu: must be auto, cpu, cuda"));
    }
}
