//! Selects a backend by name, or the best one available.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wavemill_signal::Level;

#[cfg(feature = "emulated")]
use super::Emulation;
use super::{Backend, Cpu, Cuda};
use crate::error::KernelError;

/// Backend requested by the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// CUDA if a GPU can be opened, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU, even if there is a GPU.
    Cpu,
    /// NVIDIA GPUs, or an error if they cannot be used.
    Cuda,
    /// CUDA's kernels compiled as C++, for tests: as many devices as are listed, at least one.
    #[cfg(feature = "emulated")]
    Emulated,
}

impl BackendChoice {
    const ALL: &[Self] = &[
        Self::Auto,
        Self::Cpu,
        Self::Cuda,
        #[cfg(feature = "emulated")]
        Self::Emulated,
    ];

    /// Returns the backend's name: `auto`, `cpu` or `cuda`; in tests also `emulated`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            #[cfg(feature = "emulated")]
            Self::Emulated => "emulated",
        }
    }

    /// Opens the backend: the GPUs with the numbers `devices` (default: the first), or the CPU at `level`. If devices
    /// are listed, the CPU is never used. `cpu_only` is a requested operation that no GPU supports, if there is one.
    ///
    /// Errors: those of [`Cuda::open`] if CUDA is required; devices are listed for the CPU backend;
    /// [`KernelError::CpuOnly`] if a GPU is required.
    pub fn open(
        self,
        devices: &[usize],
        level: Level,
        cpu_only: Option<&'static str>,
    ) -> Result<ChosenBackend, KernelError> {
        if let Some(op) = cpu_only {
            match (self, devices.first()) {
                (Self::Cpu, _) => {}
                (Self::Auto, None) => {
                    let why = KernelError::CpuOnly { op };
                    return Ok(ChosenBackend::on_cpu(level, Some(fallback(&why))));
                }
                _ => return Err(KernelError::CpuOnly { op }),
            }
        }

        match (self, devices.first()) {
            (Self::Cpu, None) => Ok(ChosenBackend::on_cpu(level, None)),
            (Self::Cpu, Some(device)) => Err(KernelError::argument(
                "device",
                device,
                "omitted with backend cpu",
            )),

            // A user who lists a device wants a GPU, so the CPU does not replace it.
            (Self::Cuda, _) | (Self::Auto, Some(_)) => {
                Cuda::open(devices).map(ChosenBackend::on_cuda)
            }
            (Self::Auto, None) => match Cuda::open(&[]) {
                Ok(cuda) => Ok(ChosenBackend::on_cuda(cuda)),
                Err(error) => Ok(ChosenBackend::on_cpu(level, Some(fallback(&error)))),
            },

            #[cfg(feature = "emulated")]
            (Self::Emulated, _) => Ok(ChosenBackend {
                backend: Arc::new(Emulation::new(devices.len().max(1))),
                notice: None,
            }),
        }
    }
}

/// Returns the notice for the user that the CPU computes features, with the reason.
fn fallback(error: &KernelError) -> String {
    match error {
        // The error's device and action would not help the user, so show only the detail.
        KernelError::Device { detail, .. } => format!("features are computed on the CPU: {detail}"),
        other => format!("features are computed on the CPU: {other}"),
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendChoice {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let named = Self::ALL
            .iter()
            .copied()
            .find(|choice| choice.name() == name);
        named.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|choice| choice.name()).collect();
            KernelError::argument("backend", name, names.join(", "))
        })
    }
}

/// A backend and a notice for the user.
pub struct ChosenBackend {
    /// The opened backend.
    pub backend: Arc<dyn Backend>,
    /// One line that states where features are computed and why, unless this was requested explicitly.
    pub notice: Option<String>,
}

impl ChosenBackend {
    fn on_cpu(level: Level, notice: Option<String>) -> Self {
        Self {
            backend: Arc::new(Cpu { level }),
            notice,
        }
    }

    fn on_cuda(cuda: Cuda) -> Self {
        let notice = format!("features are computed on {}", cuda.devices());
        Self {
            backend: Arc::new(cuda),
            notice: Some(notice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_has_one_name() {
        for choice in BackendChoice::ALL {
            assert_eq!(
                choice.to_string().parse::<BackendChoice>().unwrap(),
                *choice
            );
        }

        let error = "CUDA".parse::<BackendChoice>().unwrap_err().to_string();
        assert!(
            error.starts_with("backend = CUDA: must be auto, cpu, cuda"),
            "{error}"
        );
    }

    #[test]
    fn the_cpu_has_no_numbered_devices() {
        let opened = BackendChoice::Cpu.open(&[], Level::Scalar, None).unwrap();
        assert_eq!((opened.backend.kind(), opened.notice), ("cpu", None));
        let error = BackendChoice::Cpu
            .open(&[1], Level::Scalar, None)
            .err()
            .unwrap()
            .to_string();
        assert_eq!(error, "device = 1: must be omitted with backend cpu");
    }
    #[test]
    fn unsupported_features_use_the_cpu_unless_a_device_is_requested() {
        fn open(choice: BackendChoice, devices: &[usize]) -> Result<ChosenBackend, KernelError> {
            choice.open(devices, Level::Scalar, Some("statistics"))
        }

        let chosen = open(BackendChoice::Auto, &[]).unwrap();
        assert_eq!(chosen.backend.kind(), "cpu");
        assert_eq!(
            chosen.notice.unwrap(),
            "features are computed on the CPU: op = \"statistics\" is computed only on the CPU"
        );
        assert!(open(BackendChoice::Cpu, &[]).unwrap().notice.is_none());

        let none: &[usize] = &[];
        let first: &[usize] = &[0];
        for (choice, devices) in [
            (BackendChoice::Cuda, none),
            (BackendChoice::Auto, first),
            #[cfg(feature = "emulated")]
            (BackendChoice::Emulated, none),
        ] {
            let error = open(choice, devices).err().unwrap();
            assert!(matches!(error, KernelError::CpuOnly { op: "statistics" }));
        }
    }
}
