//! On which devices checks run, and what follows where a GPU is not there.
//!
//! A check that needs a GPU and finds none must not look as if it had passed. It shows as ignored; where a GPU is
//! required it fails with what the driver, or a library, answered. Tests, and the bench of CUDA, ask here.
//!
//! `WAVEMILL_REQUIRE_CUDA=1` requires a GPU. `WAVEMILL_PARITY_DEVICES` names the devices, `emulated` or `cuda` or both
//! with a comma between them; naming `cuda` requires it. `cuda` alone leaves the emulated devices out, which need a C++
//! compiler and time.

use crate::backend::Cuda;
use crate::error::KernelError;

/// Devices beside the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedDevices {
    /// The kernels as C++.
    pub emulated: bool,
    /// A GPU must be there. If not, checks that need one show as ignored where none is.
    pub cuda_required: bool,
}

impl CheckedDevices {
    /// As the environment has it. Errors: a name that is no device's.
    pub fn of_environment() -> Result<Self, KernelError> {
        let required = variable("WAVEMILL_REQUIRE_CUDA").is_some_and(|value| value == "1");
        Self::named(variable("WAVEMILL_PARITY_DEVICES").as_deref(), required)
    }

    /// Errors: a name that is no device's.
    fn named(names: Option<&str>, required: bool) -> Result<Self, KernelError> {
        let Some(names) = names else {
            return Ok(Self {
                emulated: true,
                cuda_required: required,
            });
        };

        // If devices are named, only they are checked.
        let mut devices = Self {
            emulated: false,
            cuda_required: required,
        };
        for name in names.split(',') {
            match name {
                "emulated" => devices.emulated = true,
                "cuda" => devices.cuda_required = true,
                other => {
                    return Err(KernelError::argument(
                        "WAVEMILL_PARITY_DEVICES",
                        other,
                        "emulated or cuda",
                    ));
                }
            }
        }
        Ok(devices)
    }

    /// The first GPU, for a check. `None`: none can be used, and none is required.
    ///
    /// Errors: those of [`Cuda::open`], where a GPU is required.
    pub fn cuda(self) -> Result<Option<Cuda>, KernelError> {
        match Cuda::open(&[]) {
            Ok(cuda) => Ok(Some(cuda)),
            Err(error) if self.cuda_required => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// An empty variable counts as none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_required_by_either_variable() {
        let named = |names, required| CheckedDevices::named(names, required).unwrap();
        let usual = CheckedDevices {
            emulated: true,
            cuda_required: false,
        };
        assert_eq!(named(None, false), usual);
        assert_eq!(
            named(None, true),
            CheckedDevices {
                cuda_required: true,
                ..usual
            }
        );
        assert_eq!(
            named(Some("cuda"), false),
            CheckedDevices {
                emulated: false,
                cuda_required: true
            }
        );
        assert_eq!(
            named(Some("emulated,cuda"), false),
            CheckedDevices {
                emulated: true,
                cuda_required: true
            }
        );
        assert_eq!(
            named(Some("emulated"), true),
            CheckedDevices {
                emulated: true,
                cuda_required: true
            }
        );
        let error = CheckedDevices::named(Some("gpu"), false)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "WAVEMILL_PARITY_DEVICES = gpu: must be emulated or cuda"
        );
    }
}
