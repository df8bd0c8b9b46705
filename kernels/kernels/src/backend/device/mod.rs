//! Computes a batch of clips on any device: one upload per clip, kernels, one download per feature.
//!
//! The code is generic over [`Device`], so that the tests without a GPU run the same code. Clips and rows of any length
//! are stored contiguously; nothing is padded, and no value depends on its neighbours in the batch.

mod clips;
mod feature;

use std::sync::Arc;

use clips::{ClipLoader, HostConversion};
use feature::FeatureDevice;
use wavemill_options::FeatureArgs;

use super::{Clip, Plan, Row, SpareTensors};
use crate::delta::WIDTH;
use crate::device::{Device, lending};
use crate::error::KernelError;
use crate::stft::SAMPLE_MAX;

/// Tables and buffers of all features of a plan on one stream of a device.
pub(crate) struct DevicePlan<D: Device> {
    device: D,
    loader: ClipLoader<D>,
    host: HostConversion,
    features: Vec<FeatureDevice<D>>,
    spare: Arc<SpareTensors>,
}

/// Position of a row's samples in the mono buffer, and the row's requested length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Index of the row's first sample in the mono buffer.
    pub pcm: usize,
    /// Number of samples of the clip within the row.
    pub n_pcm: usize,
    /// Requested number of samples of the row; zeros follow the clip's samples.
    pub len: usize,
}

impl<D: Device> DevicePlan<D> {
    /// Creates a plan. Errors: an invalid argument; [`KernelError::CpuOnly`]; features with different sample rates;
    /// those of the device.
    pub(crate) fn new(device: D, features: &[FeatureArgs]) -> Result<Self, KernelError> {
        let sample_rate_hz = features.first().map_or(0, |args| args.sample_rate_hz);
        for args in features {
            args.validate()?;
            if let Some(op) = args.cpu_only_op() {
                return Err(KernelError::CpuOnly { op: op.name() });
            }
            if args.sample_rate_hz != sample_rate_hz {
                let allowed = format!("{sample_rate_hz} Hz, like the plan's other features");
                return Err(KernelError::argument(
                    "sample_rate_hz",
                    args.sample_rate_hz,
                    allowed,
                ));
            }
        }

        let features = features
            .iter()
            .map(|args| FeatureDevice::new(&device, args))
            .collect::<Result<_, _>>()?;
        // Wait for the copies of the tables, because the next batch may overwrite their source in host memory.
        device.synchronize()?;
        Ok(Self {
            device,
            loader: ClipLoader::new(sample_rate_hz),
            host: HostConversion::new(sample_rate_hz),
            features,
            spare: Arc::default(),
        })
    }

    /// Waits for all queued work. Errors: those of the device, including those of queued work.
    pub(crate) fn synchronize(&self) -> Result<(), KernelError> {
        self.device.synchronize()
    }

    /// Queues all work up to and including the downloads, and waits for it.
    pub(super) fn compute(&mut self, clips: &[Clip<'_>]) -> Result<(), KernelError> {
        let Self {
            device,
            loader,
            host,
            features,
            ..
        } = self;
        host.convert(clips)?;

        // After an error, queued work may still read clips, and tables that the next batch overwrites. So wait in every
        // case.
        let computed = lending(device, |loans| {
            let pcm = loader.load(device, loans, clips, host)?;
            features
                .iter_mut()
                .try_for_each(|feature| feature.run(device, pcm, loader.spans()))
        });
        host.forget();
        computed
    }

    /// Returns the result of row `at` with largest magnitude `largest`. Call after the device has been synchronized.
    fn row(
        &mut self,
        clips: &[Clip<'_>],
        at: usize,
        span: Span,
        largest: f32,
    ) -> Result<Row, KernelError> {
        // If a row has several errors, report the same one as the CPU: of samples, else of frames, else of values.
        if largest.is_nan() || largest > SAMPLE_MAX {
            return Err(self.loader.unsound(clips, at, largest));
        }

        for feature in &self.features {
            if let Some(frames) = feature.too_few_frames(span.len) {
                return Err(KernelError::TooFewFrames {
                    frames,
                    needed: WIDTH,
                });
            }
        }

        for (place, feature) in self.features.iter_mut().enumerate() {
            if let Some(fault) = feature.take_fault(at) {
                return Err(KernelError::Feature {
                    place,
                    source: Box::new(fault),
                });
            }
        }

        let mut tensors = Vec::with_capacity(self.features.len());
        for feature in &self.features {
            let packed = feature.tensor(at);
            let mut tensor = self.spare.take(packed.len());
            tensor.extend_from_slice(packed);
            tensors.push(tensor);
        }
        Ok(Row {
            silent: largest == 0.0,
            tensors,
        })
    }
}

impl<D: Device> Plan for DevicePlan<D> {
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError> {
        self.compute(clips)?;
        // `compute` has waited for the device, so the packed values in host memory can be read.
        for feature in &mut self.features {
            feature.find_faults(&self.device)?;
        }

        let spans = self.loader.spans().to_vec();
        let largest = self.loader.largest();
        let mut rows = Vec::with_capacity(spans.len());
        for (at, (span, largest)) in spans.into_iter().zip(largest).enumerate() {
            rows.push(self.row(clips, at, span, largest));
        }
        Ok(rows)
    }

    fn reuse(&mut self, spare: &Arc<SpareTensors>) {
        self.spare = Arc::clone(spare);
    }

    fn forget_scratch(&mut self) {
        self.loader.forget_scratch();
        self.features
            .iter_mut()
            .for_each(FeatureDevice::forget_scratch);
    }
}

#[cfg(test)]
mod tests {
    use wavemill_options::FeatureSpec;
    use wavemill_signal::SampleBuffer;

    use super::*;
    use crate::backend::Samples;
    use crate::device::{EmulatedDevice, Order};

    const RATE_HZ: u32 = 22_050;

    fn plan() -> DevicePlan<EmulatedDevice> {
        let spec = FeatureSpec {
            n_mels: Some(8),
            ..FeatureSpec::default()
        };
        let mel = spec.resolve(&[], RATE_HZ).unwrap();
        DevicePlan::new(EmulatedDevice::new(Order::Ascending).unwrap(), &[mel]).unwrap()
    }

    fn decoded(n: usize) -> SampleBuffer {
        let mut samples = SampleBuffer::default();
        samples.extend((0..n).map(|x| (x as f32 * 0.37).sin() * 0.5));
        samples
    }

    fn clip<'a>(
        samples: &'a SampleBuffer,
        rate_hz: u32,
        row: &'a std::ops::Range<usize>,
    ) -> Clip<'a> {
        Clip {
            samples: Samples::F32(samples),
            channels: 1,
            sample_rate_hz: rate_hz,
            rows: std::slice::from_ref(row),
        }
    }

    /// The host copies only tables to staging memory, and their size is independent of the clips' lengths. Samples are
    /// uploaded from the memory to which they were decoded.
    #[test]
    fn no_sample_is_copied_between_the_decoder_and_the_device() {
        let mut plan = plan();
        let mut staged_bytes = Vec::new();
        for seconds in [1, 1, 3] {
            let n_row = seconds * RATE_HZ as usize;
            let row = 0..n_row;
            let same_rate = decoded(n_row);
            let double_rate = decoded(2 * n_row);
            let clips = [
                clip(&same_rate, RATE_HZ, &row),
                clip(&double_rate, 2 * RATE_HZ, &row),
            ];

            plan.device.take_uploads();
            assert!(plan.run(&clips).unwrap().iter().all(Result::is_ok));

            let uploads = plan.device.take_uploads();
            let lain =
                [&same_rate, &double_rate].map(|pcm| (pcm.as_ptr().addr(), size_of_val(&pcm[..])));
            assert_eq!(
                uploads.lent, lain,
                "one copy a clip, from its decoder's memory"
            );
            staged_bytes.push(uploads.staged_bytes);
        }

        // The first batch copies the filter table of its sample rate; later batches copy only a few numbers per row.
        assert_eq!(
            staged_bytes[1], staged_bytes[2],
            "no matter how long the clips are"
        );
        assert!(staged_bytes[2] < 1_000, "{staged_bytes:?}");
    }

    #[test]
    fn rows_are_written_to_the_memory_of_earlier_rows() {
        let mut plan = plan();
        let spare = Arc::new(SpareTensors::new(1 << 20));
        plan.reuse(&spare);
        let row = 0..RATE_HZ as usize;
        let pcm = decoded(RATE_HZ as usize);
        let clips = [clip(&pcm, RATE_HZ, &row); 3];

        let mut places = Vec::new();
        for _ in 0..2 {
            let rows = plan.run(&clips).unwrap().into_iter();
            let tensors: Vec<_> = rows.flat_map(|row| row.unwrap().tensors).collect();
            let mut of_batch: Vec<_> = tensors
                .iter()
                .map(|tensor| tensor.as_ptr().addr())
                .collect();
            of_batch.sort_unstable();
            places.push(of_batch);
            tensors
                .into_iter()
                .for_each(|tensor| spare.give_back(tensor));
        }
        assert_eq!(places[0], places[1]);
    }

    #[test]
    fn the_memory_of_a_long_clip_can_be_freed() {
        let mut plan = plan();
        let mut run = |n_samples: usize, is_last_long: bool| {
            let pcm = decoded(n_samples);
            let row = 0..n_samples;
            let rows = plan.run(&[clip(&pcm, RATE_HZ, &row)]).unwrap();
            if is_last_long {
                plan.forget_scratch();
            }
            (rows, plan.device.held_bytes())
        };

        let short = RATE_HZ as usize;
        let (rows, held_bytes) = run(short, false);
        let (_, after_long) = run(20 * short, true);
        let (again, held_again) = run(short, false);
        assert!(after_long < held_bytes, "{after_long}");
        assert_eq!(held_again, held_bytes);
        assert!(again[0].as_ref().unwrap() == rows[0].as_ref().unwrap());
    }

    /// If the table of a rate would be too large, the CPU converts the clip, and the device copies the converted
    /// samples.
    #[test]
    fn host_conversions_are_uploaded_once() {
        let mut plan = plan();
        let row = 0..RATE_HZ as usize;
        let pcm = decoded(44_101);
        assert!(plan.run(&[clip(&pcm, 44_101, &row)]).unwrap()[0].is_ok());
        let lent = plan.device.take_uploads().lent;
        assert_eq!(lent.len(), 1);
        assert_eq!(lent[0].1, RATE_HZ as usize * size_of::<f32>());
    }
}
