//! The CPU: one clip at a time, on the thread that calls.

use super::feature::FeaturePlan;
use super::{Backend, Plan};
use crate::args::FeatureArgs;
use crate::error::KernelError;
use crate::level::{Lanes, Level};
use crate::stft::{LANES, Signal, StftArgs, StftPlan, check_samples};

/// The CPU at a level.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Instructions that may be used.
    pub level: Level,
}

impl Backend for Cpu {
    fn name(&self) -> String {
        format!("cpu {}", self.level)
    }

    fn batch_clips(&self) -> usize {
        1
    }

    fn plan(&self, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(CpuPlan::new(features, self.level)?))
    }
}

/// Features of one clip after another, with everything that can be made beforehand.
pub struct CpuPlan {
    lanes: Lanes,
    n_features: usize,
    spectra: Vec<Spectrum>,
}

/// One spectrum and the features that are made of it.
struct Spectrum {
    stft: StftArgs,
    frames_min: Option<usize>,
    wide: bool,
    plan: StftPlan,
    /// Place among the outputs, and plan.
    features: Vec<(usize, FeaturePlan)>,
}

impl CpuPlan {
    /// Errors: an impossible argument; [`KernelError::Level`] where this machine lacks `level`.
    pub fn new(features: &[FeatureArgs], level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level)?;
        let mut spectra: Vec<Spectrum> = Vec::new();
        for (place, args) in features.iter().enumerate() {
            args.validate()?;
            let feature = (place, FeaturePlan::new(args, lanes));
            let wanted = (&args.stft, args.frames, args.is_wide());
            let same = |spectrum: &&mut Spectrum| (&spectrum.stft, spectrum.frames_min, spectrum.wide) == wanted;
            match spectra.iter_mut().find(same) {
                Some(spectrum) => spectrum.features.push(feature),
                None => spectra.push(Spectrum {
                    stft: args.stft.clone(),
                    frames_min: args.frames,
                    wide: args.is_wide(),
                    plan: StftPlan::new(&args.stft, args.is_wide(), lanes),
                    features: vec![feature],
                }),
            }
        }
        Ok(Self { lanes, n_features: features.len(), spectra })
    }

    /// Computes every feature of `pcm` (mono, full scale ±1): `out[feature]` becomes the tensor of
    /// [`FeatureArgs::shape`], row-major; it is empty where the clip is too short for one frame. Values are finite.
    ///
    /// Errors: [`KernelError::Sample`], [`KernelError::TooFewFrames`]. Panics if `out` has not one place a feature.
    pub fn run(&mut self, pcm: &[f32], out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        assert_eq!(out.len(), self.n_features, "one output a feature");
        check_samples(pcm, self.lanes)?;
        for spectrum in &mut self.spectra {
            spectrum.run(pcm, out)?;
        }
        Ok(())
    }
}

impl Plan for CpuPlan {
    fn run(&mut self, clips: &[&[f32]], out: &mut [Vec<Vec<f32>>]) -> Result<(), KernelError> {
        assert_eq!(out.len(), clips.len(), "one list of outputs a clip");
        clips.iter().zip(out).try_for_each(|(pcm, out)| self.run(pcm, out))
    }
}

impl Spectrum {
    fn run(&mut self, pcm: &[f32], out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        let signal = Signal::new(pcm, &self.stft, self.frames_min);
        let n_frames = self.stft.n_frames(signal.len);
        for (place, feature) in &mut self.features {
            feature.start(n_frames, &mut out[*place]);
        }
        for first in (0..n_frames).step_by(LANES) {
            let count = LANES.min(n_frames - first);
            let block = self.plan.block(signal, first, count);
            for (place, feature) in &mut self.features {
                feature.block(block, first, count, &mut out[*place]);
            }
        }
        for (place, feature) in &mut self.features {
            feature.finish(&mut out[*place])?;
        }
        Ok(())
    }
}
