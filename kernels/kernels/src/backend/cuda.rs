//! The CUDA backend: selects and opens NVIDIA GPUs and loads their kernels.

use std::sync::Arc;

use cudarc::driver::CudaModule;
use wavemill_options::FeatureArgs;
use wavemill_signal::SampleBuffer;

use super::device::DevicePlan;
use super::timing::{median, warm_up};
use super::{Backend, Clip, Plan};
use crate::device::{
    Again, CudaDevice, Gpu, Plain, Record, Versions, cubin, open_libraries, page_locks, refused,
    unit,
};
use crate::error::KernelError;

/// Clips per batch. A batch takes about ten launches, some 50 µs of a driver thread's time: less than a hundredth of
/// the 6 ms that PCIe 5 needs to transfer 64 clips (30 s, stereo, 16 bits: 5.3 MB each). Host memory for the clips
/// stays at 0.34 GB per stream.
const BATCH_CLIPS: usize = 64;

/// Streams per device: one copies while the other computes.
const DEVICE_LANES: usize = 2;

/// Minimum compute capability: the oldest for which `scripts/cuda_check.sh` compiles the kernels. NVRTC of CUDA 12
/// would also compile them for GPUs on which nobody has checked them.
const CAPABILITY_MIN: (i32, i32) = (7, 5);

/// One or more GPUs of the same kind, which produce equal bits.
pub struct Cuda {
    gpus: Vec<(Gpu, Arc<CudaModule>)>,
    level: String,
}

impl Cuda {
    /// Opens the GPUs with the driver's numbers `devices`, or device 0 if the list is empty. Kernels are compiled on
    /// demand and cached in `$XDG_CACHE_HOME/wavemill/kernels` (default `~/.cache`).
    ///
    /// Errors, each with its remedy: a missing or old driver, cuFFT or NVRTC; no GPU; a number without a GPU or given
    /// twice; GPUs that are too old or of different kinds; NVRTC's log; the driver's message. Never panics if CUDA is
    /// not installed.
    pub fn open(devices: &[usize]) -> Result<Self, KernelError> {
        let devices = if devices.is_empty() { &[0] } else { devices };
        // Open the libraries first, because cudarc panics at the first call of a missing library.
        let versions = open_libraries()?;

        check_ordinals(devices, Gpu::count()?)?;
        let gpus = devices
            .iter()
            .map(|ordinal| Gpu::open(*ordinal))
            .collect::<Result<Vec<_>, _>>()?;

        let Some((first, others)) = gpus.split_first() else {
            return Err(refused("no device was selected"));
        };
        if first.capability < CAPABILITY_MIN {
            return Err(refused(format!(
                "{} is too old: sm_75 or later is required",
                first.described()
            )));
        }
        for other in others {
            if (&other.name, other.capability) != (&first.name, first.capability) {
                return Err(refused(format!(
                    "{} and {} are different models: their results may differ in the last bits",
                    first.described(),
                    other.described()
                )));
            }
        }

        // All GPUs are of one kind, so one compilation serves all of them.
        let architecture = first.architecture();
        let cubin = cubin(&unit(), &architecture, versions.nvrtc)?;
        let mut loaded = Vec::with_capacity(gpus.len());
        for gpu in gpus {
            let module = gpu.load(&cubin)?;
            loaded.push((gpu, module));
        }

        Ok(Self {
            gpus: loaded,
            level: level(&architecture, &versions),
        })
    }

    /// Measures each kind of work in a batch on the first device, in execution order: medians of `rounds` rounds, after
    /// [`crate::WARM_UP`]. No other work runs on the device, so that the durations add up.
    ///
    /// Errors: those of [`Plan::run`] for the batch; errors of single rows are ignored.
    pub fn profile(
        &self,
        features: &[FeatureArgs],
        clips: &[Clip<'_>],
        rounds: usize,
    ) -> Result<Vec<Work>, KernelError> {
        let record = Record::default();
        let mut plan = self.device_plan(0, features, Some(record.clone()))?;
        warm_up(|| plan.run(clips).map(drop))?;
        // The warm-up has allocated the buffers and loaded the kernels.
        drop(record.take());

        let mut profile = Profile {
            rounds,
            works: Vec::new(),
        };
        for round in 0..rounds {
            plan.run(clips)?;
            for piece in record.take() {
                let ms = piece.ms()?;
                profile.note(round, piece.what, piece.bytes, ms);
            }
        }

        let mut works = profile.medians();
        for work in &mut works {
            work.blocks = record.blocks(work.what);
        }
        Ok(works)
    }

    /// Creates a batch whose samples remain in the memory of the first device. Errors: those of [`Plan::run`] for the
    /// batch; errors of single rows are ignored.
    pub fn resident(
        &self,
        features: &[FeatureArgs],
        clips: &[Clip<'_>],
    ) -> Result<ResidentBatch, KernelError> {
        let record = Record::default();
        let mut plan = self.device_plan(0, features, Some(record.clone()))?;
        // The first batch allocates buffers and loads kernels, so discard its record and keep that of the second.
        plan.run(clips)?;
        drop(record.take_again());

        plan.run(clips)?;
        Ok(ResidentBatch {
            again: record.take_again(),
            plan,
        })
    }

    /// Creates the plan of a lane whose results remain in page-locked memory. Errors: those of [`Backend::plan`].
    pub fn without_rows(
        &self,
        lane: usize,
        features: &[FeatureArgs],
    ) -> Result<BatchWithoutRows, KernelError> {
        Ok(BatchWithoutRows(self.device_plan(lane, features, None)?))
    }

    /// Creates the stream of a lane without a plan, for tests.
    #[cfg(test)]
    pub(crate) fn lane(&self, lane: usize) -> Result<CudaDevice, KernelError> {
        let (gpu, module) = &self.gpus[lane % self.gpus.len()];
        CudaDevice::new(gpu, module.clone(), None)
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

    /// Creates an empty buffer of samples in page-locked memory, with one of the sample types of [`crate::Samples`].
    pub fn sample_buffer_of<T: Plain>(&self) -> SampleBuffer<T> {
        match self.gpus.first() {
            Some((gpu, _)) => SampleBuffer::page_locked(page_locks(gpu.context())),
            None => SampleBuffer::default(),
        }
    }

    /// Returns the memory bandwidth in bytes per second that the devices' properties state; `None` if they state none.
    /// Errors: the driver's.
    pub fn memory_bytes_per_s(&self) -> Result<Option<f64>, KernelError> {
        match self.gpus.first() {
            Some((gpu, _)) => gpu.memory_bytes_per_s(),
            None => Err(refused("no device was selected")),
        }
    }

    /// Returns the devices' numbers and names, for example `cuda:0 (NVIDIA H200), cuda:1 (NVIDIA H200)`.
    pub fn devices(&self) -> String {
        self.gpus
            .iter()
            .map(|(gpu, _)| gpu.label())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A batch on a device that can be computed repeatedly without copies.
pub struct ResidentBatch {
    again: Vec<Again>,
    /// Owns the device memory and transforms that the recorded work in `again` uses.
    plan: DevicePlan<CudaDevice>,
}

impl ResidentBatch {
    /// Computes all features again and waits for the device. Errors: those of the device.
    pub fn run(&mut self) -> Result<(), KernelError> {
        self.again.iter().try_for_each(|again| again())?;
        self.plan.synchronize()
    }
}

/// A plan that copies results to page-locked memory, and creates no rows of them.
pub struct BatchWithoutRows(DevicePlan<CudaDevice>);

impl BatchWithoutRows {
    /// Copies and computes a batch. Errors: those of the device.
    pub fn run(&mut self, clips: &[Clip<'_>]) -> Result<(), KernelError> {
        self.0.compute(clips)
    }
}

/// Measurements of one kind of work of a batch on a device.
#[derive(Clone, Debug)]
pub struct Work {
    /// A kernel's name, or one of `copy to the device`, `copy from the device`, `clear device memory`, `transform`.
    pub what: &'static str,
    /// Number of times that the work was queued.
    pub times: usize,
    /// Bytes copied or cleared; 0 for kernels and transforms.
    pub bytes: u64,
    /// Number of a kernel's blocks that a multiprocessor holds at once, according to the driver; `None` for copies,
    /// clearing and transforms.
    pub blocks: Option<u32>,
    /// Median over all rounds of the milliseconds that the device spent on this work.
    pub ms: f64,
}

/// Measurements of each kind of work, in the order of the first round.
struct Profile {
    rounds: usize,
    works: Vec<WorkTimes>,
}

/// A kind of work, and its milliseconds in each round.
struct WorkTimes {
    work: Work,
    round_ms: Vec<f64>,
}

impl Profile {
    /// Adds the duration of one recorded item of work to its kind of work in a round.
    fn note(&mut self, round: usize, what: &'static str, bytes: usize, ms: f64) {
        let known = self.works.iter().position(|times| times.work.what == what);
        let at = known.unwrap_or(self.works.len());
        if known.is_none() {
            self.works.push(WorkTimes {
                work: Work {
                    what,
                    times: 0,
                    bytes: 0,
                    blocks: None,
                    ms: 0.0,
                },
                round_ms: vec![0.0; self.rounds],
            });
        }

        let WorkTimes { work, round_ms } = &mut self.works[at];
        round_ms[round] += ms;
        // Work is the same in all rounds, so calls and bytes are counted only in the first round.
        if round == 0 {
            work.times += 1;
            work.bytes += bytes as u64;
        }
    }

    fn medians(self) -> Vec<Work> {
        let mut works = Vec::with_capacity(self.works.len());
        for mut times in self.works {
            times.work.ms = median(&mut times.round_ms);
            works.push(times.work);
        }
        works
    }
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

    fn sample_buffer(&self) -> SampleBuffer {
        self.sample_buffer_of()
    }

    /// Neighbouring lanes use different devices, so that all devices work from the first batches on.
    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(self.device_plan(lane, features, None)?))
    }
}

/// Checks device numbers. Errors: a number that is not below `count`, or a number that occurs twice.
fn check_ordinals(devices: &[usize], count: usize) -> Result<(), KernelError> {
    if let Some(device) = devices.iter().find(|device| **device >= count) {
        let allowed = match count {
            1 => "0: the driver sees one GPU".to_owned(),
            _ => format!("0 to {}: the driver sees {count} GPUs", count - 1),
        };
        return Err(KernelError::argument("device", device, allowed));
    }

    for (place, device) in devices.iter().enumerate() {
        if devices[..place].contains(device) {
            return Err(KernelError::argument(
                "device",
                device,
                "listed only once: a device already has two streams",
            ));
        }
    }
    Ok(())
}

fn level(architecture: &str, versions: &Versions) -> String {
    format!("{architecture}, {versions}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_device_error_states_the_device_count() {
        fn refusal(devices: &[usize], count: usize) -> String {
            check_ordinals(devices, count).unwrap_err().to_string()
        }

        assert!(check_ordinals(&[0], 1).is_ok());
        assert!(check_ordinals(&[3, 0, 2], 4).is_ok());

        assert_eq!(
            refusal(&[1], 1),
            "device = 1: must be 0: the driver sees one GPU"
        );
        assert_eq!(
            refusal(&[0, 4], 4),
            "device = 4: must be 0 to 3: the driver sees 4 GPUs"
        );
        assert_eq!(
            refusal(&[2, 1, 2], 4),
            "device = 2: must be listed only once: a device already has two streams"
        );
    }

    #[test]
    fn level_names_everything_that_affects_results() {
        let versions = Versions {
            driver: 13_000,
            module: None,
            cufft: [12, 0, 0],
            nvrtc: [13, 0],
        };

        assert_eq!(
            level("sm_90", &versions),
            "sm_90, cuFFT 12.0.0, NVRTC 13.0, driver 13.0"
        );
    }
}
