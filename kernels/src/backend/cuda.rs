//! NVIDIA's GPUs: which of them, what kind they are, and their kernels.

use std::sync::{Arc, PoisonError};

use cudarc::driver::CudaModule;

use super::device::DevicePlan;
use super::{Backend, Clip, Plan};
use crate::args::FeatureArgs;
use crate::device::{CudaDevice, Gpu, Record, Versions, cubin, open_libraries, refused, unit};
use crate::error::KernelError;

/// Clips of a batch. A batch is about ten launches, some 50 µs of a driver thread's time: less than a hundredth of the
/// 6 ms in which PCIe 5 brings 64 clips (30 s, stereo, 16 bits: 5.3 MB each). Host memory for them stays at 0.34 GB a
/// stream.
const BATCH_CLIPS: usize = 64;

/// Streams of a device: one copies while the other computes.
const DEVICE_LANES: usize = 2;

/// Some GPUs of one kind, which give equal bits.
pub struct Cuda {
    gpus: Vec<(Gpu, Arc<CudaModule>)>,
    level: String,
}

impl Cuda {
    /// Opens `devices` by the driver's numbers; none: device 0. Kernels are compiled on the way, or found in
    /// `$XDG_CACHE_HOME/wavemill/kernels` (else `~/.cache`).
    ///
    /// Errors, each with its remedy: a missing or old driver, cuFFT or NVRTC; no GPU; a number that is not there, or
    /// there twice; GPUs of different kinds; NVRTC's log; the driver's words. Never panics where CUDA is absent.
    pub fn open(devices: &[usize]) -> Result<Self, KernelError> {
        let devices = if devices.is_empty() { &[0] } else { devices };
        let versions = open_libraries()?;
        check_ordinals(devices, Gpu::count()?)?;
        let gpus = devices.iter().map(|ordinal| Gpu::open(*ordinal)).collect::<Result<Vec<_>, _>>()?;
        let Some((first, others)) = gpus.split_first() else { return Err(refused("no device was asked for")) };
        for other in others {
            if (&other.name, other.capability) != (&first.name, first.capability) {
                let (first, other) = (first.described(), other.described());
                return Err(refused(format!("{first} and {other} are of different kinds: their bits may differ")));
            }
        }
        let architecture = first.architecture();
        let cubin = cubin(&unit(), &architecture, versions.nvrtc)?;
        let load = |gpu: Gpu| gpu.load(&cubin).map(|module| (gpu, module));
        let gpus = gpus.into_iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { gpus, level: level(&architecture, &versions) })
    }

    /// Runs `clips` twice on the first device and says what the second time took there, in the order of the work.
    /// Nothing else runs beside it, so that times add up. Errors: those of [`Plan::run`]; not a row's.
    pub fn profile(&self, features: &[FeatureArgs], clips: &[Clip<'_>]) -> Result<Vec<Work>, KernelError> {
        let record = Record::default();
        let mut plan = self.device_plan(0, features, Some(record.clone()))?;
        plan.run(clips)?;
        let pieces = || std::mem::take(&mut *record.lock().unwrap_or_else(PoisonError::into_inner));
        // Buffers have grown by now, and kernels were loaded.
        drop(pieces());
        plan.run(clips)?;
        let mut works: Vec<Work> = Vec::new();
        for piece in pieces() {
            let same = works.iter().position(|work| work.what == piece.what);
            let at = same.unwrap_or_else(|| {
                works.push(Work { what: piece.what, times: 0, bytes: 0, ms: 0.0 });
                works.len() - 1
            });
            works[at].times += 1;
            works[at].bytes += piece.bytes as u64;
            works[at].ms += piece.ms()?;
        }
        Ok(works)
    }

    fn device_plan(
        &self,
        lane: usize,
        features: &[FeatureArgs],
        record: Option<Record>,
    ) -> Result<DevicePlan<CudaDevice>, KernelError> {
        let (gpu, module) = &self.gpus[lane % self.gpus.len()];
        DevicePlan::new(CudaDevice::new(gpu, module.clone(), record)?, features)
    }

    /// The devices' numbers and names: `cuda:0 (NVIDIA H200), cuda:1 (NVIDIA H200)`.
    #[must_use]
    pub fn devices(&self) -> String {
        self.gpus.iter().map(|(gpu, _)| gpu.label()).collect::<Vec<_>>().join(", ")
    }
}

/// What one kind of work of a batch took on a device.
#[derive(Clone, Debug)]
pub struct Work {
    /// A kernel's name, or what else was done: `copy to the device`, `copy from the device`, `clear device memory`,
    /// `transform`.
    pub what: &'static str,
    /// How often.
    pub times: usize,
    /// Bytes that were copied or cleared; 0 for kernels and transforms.
    pub bytes: u64,
    /// Milliseconds between events on the stream.
    pub ms: f64,
}

impl Backend for Cuda {
    fn kind(&self) -> &'static str {
        "cuda"
    }

    fn level(&self) -> String {
        self.level.clone()
    }

    fn batch_clips(&self) -> usize {
        BATCH_CLIPS
    }

    fn lanes(&self) -> usize {
        DEVICE_LANES * self.gpus.len()
    }

    /// Neighbouring lanes are of different devices, so that all devices work from the first batches on.
    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(self.device_plan(lane, features, None)?))
    }
}

/// Errors: a number of none of `count` devices, or one twice.
fn check_ordinals(devices: &[usize], count: usize) -> Result<(), KernelError> {
    if let Some(device) = devices.iter().find(|device| **device >= count) {
        let allowed = match count {
            1 => "0: the driver sees one GPU".to_owned(),
            _ => format!("0 to {}: the driver sees {count} GPUs", count - 1),
        };
        return Err(KernelError::argument("device", device, allowed));
    }
    match devices.iter().enumerate().find(|(place, device)| devices[..*place].contains(device)) {
        Some((_, device)) => Err(KernelError::argument("device", device, "named once: a device has its two streams")),
        None => Ok(()),
    }
}

fn level(architecture: &str, versions: &Versions) -> String {
    format!("{architecture}, {versions}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_says_how_many_are() {
        let refusal = |devices: &[usize], count| check_ordinals(devices, count).unwrap_err().to_string();
        assert!(check_ordinals(&[0], 1).is_ok());
        assert!(check_ordinals(&[3, 0, 2], 4).is_ok());
        assert_eq!(refusal(&[1], 1), "device = 1: must be 0: the driver sees one GPU");
        assert_eq!(refusal(&[0, 4], 4), "device = 4: must be 0 to 3: the driver sees 4 GPUs");
        assert_eq!(refusal(&[2, 1, 2], 4), "device = 2: must be named once: a device has its two streams");
    }

    #[test]
    fn the_level_names_all_that_decides_bits() {
        let versions = Versions { driver: 13_000, module: None, cufft: [12, 0, 0], nvrtc: [13, 0] };
        assert_eq!(level("sm_90", &versions), "sm_90, cuFFT 12.0.0, NVRTC 13.0, driver 13.0");
    }
}
