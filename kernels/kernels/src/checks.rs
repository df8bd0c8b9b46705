//! Selection of the devices on which checks run, and the handling of a missing GPU.
//!
//! A check that needs a GPU and finds none must not appear to have passed. It is ignored; if a GPU is required, it
//! fails with the error of the driver or library. Tests and the CUDA benchmark use this module.
//!
//! `WAVEMILL_REQUIRE_CUDA=1` requires a GPU. `WAVEMILL_PARITY_DEVICES` lists the devices, `emulated` or `cuda` or both
//! separated by a comma; listing `cuda` requires a GPU. Listing only `cuda` excludes the emulated devices, which need a
//! C++ compiler and time.

use crate::backend::Cuda;
use crate::error::KernelError;

/// Devices on which checks run, in addition to the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedDevices {
    /// Whether the emulated device is checked, which runs the kernels compiled as C++.
    pub emulated: bool,
    /// Whether a missing GPU is an error. Otherwise checks that need a GPU are ignored if there is none.
    pub cuda_required: bool,
}

impl CheckedDevices {
    /// Reads the selected devices from environment variables. Errors: an unknown device name.
    pub fn from_environment() -> Result<Self, KernelError> {
        let required = variable("WAVEMILL_REQUIRE_CUDA").is_some_and(|value| value == "1");
        Self::named(variable("WAVEMILL_PARITY_DEVICES").as_deref(), required)
    }

    /// Parses a list of device names. Errors: an unknown device name.
    fn named(names: Option<&str>, required: bool) -> Result<Self, KernelError> {
        let Some(names) = names else {
            return Ok(Self {
                emulated: true,
                cuda_required: required,
            });
        };

        // If devices are listed, checks run only on these.
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

    /// Opens the first GPU for a check. Returns `None` if no GPU can be used and none is required.
    ///
    /// Errors: those of [`Cuda::open`], if a GPU is required.
    pub fn cuda(self) -> Result<Option<Cuda>, KernelError> {
        match Cuda::open(&[]) {
            Ok(cuda) => Ok(Some(cuda)),
            Err(error) if self.cuda_required => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// Reads an environment variable; an empty value counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_required_by_either_variable() {
        fn named(names: Option<&str>, required: bool) -> CheckedDevices {
            CheckedDevices::named(names, required).unwrap()
        }

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
