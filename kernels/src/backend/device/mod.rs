//! A batch of clips on any device: one upload, kernels, one download a feature.
//!
//! Written once against [`Device`], so that what runs on a GPU is what the tests run without one. Clips and rows of any
//! length lie one behind the other; nothing is padded, and no value depends on its neighbours in the batch.

mod clips;
mod feature;

use clips::ClipLoader;
use feature::FeatureDevice;

use super::{Clip, Plan, Row};
use crate::args::FeatureArgs;
use crate::delta::WIDTH;
use crate::device::Device;
use crate::error::KernelError;
use crate::stft::SAMPLE_MAX;

/// Tables and buffers of all features on one stream of a device.
pub(crate) struct DevicePlan<D: Device> {
    device: D,
    loader: ClipLoader<D>,
    features: Vec<FeatureDevice<D>>,
}

/// A row's samples: in the mono buffer, and as long as they are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// First sample in the mono buffer.
    pub pcm: usize,
    /// Samples that are there.
    pub n_pcm: usize,
    /// Samples that were asked for; zeros follow.
    pub len: usize,
}

impl<D: Device> DevicePlan<D> {
    /// Errors: an impossible argument; features of different rates; what the device answers.
    pub(crate) fn new(device: D, features: &[FeatureArgs]) -> Result<Self, KernelError> {
        let sample_rate_hz = features.first().map_or(0, |args| args.sample_rate_hz);
        for args in features {
            args.validate()?;
            if args.sample_rate_hz != sample_rate_hz {
                let allowed = format!("{sample_rate_hz} Hz as the plan's other features");
                return Err(KernelError::argument("sample_rate_hz", args.sample_rate_hz, allowed));
            }
        }
        let plan = |args: &FeatureArgs| FeatureDevice::new(&device, args);
        let features = features.iter().map(plan).collect::<Result<_, _>>()?;
        let loader = ClipLoader::new(sample_rate_hz);
        // Tables are on their way from memory that the next batch may fill.
        device.synchronize()?;
        Ok(Self { device, loader, features })
    }

    /// Queues everything up to the copies back.
    fn queue(&mut self, clips: &[Clip<'_>]) -> Result<(), KernelError> {
        let device = &self.device;
        let pcm = self.loader.load(device, clips)?;
        self.features.iter_mut().try_for_each(|feature| feature.run(device, pcm, self.loader.spans()))
    }

    /// The row at `at`, once the device was waited for. `largest` is its largest magnitude.
    fn row(&mut self, clips: &[Clip<'_>], at: usize, span: Span, largest: f32) -> Result<Row, KernelError> {
        if largest.is_nan() || largest > SAMPLE_MAX {
            return Err(self.loader.unsound(clips, at, largest));
        }
        if let Some(frames) = self.features.iter().find_map(|feature| feature.too_few_frames(span.len)) {
            return Err(KernelError::TooFewFrames { frames, needed: WIDTH });
        }
        for (place, feature) in self.features.iter_mut().enumerate() {
            if let Some(fault) = feature.take_fault(at) {
                return Err(KernelError::Feature { place, source: Box::new(fault) });
            }
        }
        let tensors = self.features.iter().map(|feature| feature.tensor(at).to_vec()).collect();
        Ok(Row { silent: largest == 0.0, tensors })
    }
}

impl<D: Device> Plan for DevicePlan<D> {
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError> {
        let queued = self.queue(clips);
        // What was queued before an error still reads the tables that the next batch fills.
        let waited = self.device.synchronize();
        queued.and(waited)?;
        for feature in &mut self.features {
            feature.find_faults(&self.device)?;
        }
        let spans: Vec<(Span, f32)> = self.loader.spans().iter().copied().zip(self.loader.largest()).collect();
        let row = |(at, (span, largest))| self.row(clips, at, span, largest);
        Ok(spans.into_iter().enumerate().map(row).collect())
    }
}
