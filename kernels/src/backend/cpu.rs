//! The CPU: one clip at a time, on the thread that calls.

use wavemill_options::{DimOrder, FeatureArgs, Packing, StftArgs};

use super::feature::FeaturePlan;
use super::{Backend, Clip, Plan, Row, Samples};
use crate::error::KernelError;
use crate::lane::LANES;
use crate::level::{Lanes, Level};
use crate::pack::pack_into;
use crate::resample::Resamplers;
use crate::samples::SampleBuffer;
use crate::stft::{Signal, StftPlan, check_samples};

/// The CPU at a level.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Instructions that may be used.
    pub level: Level,
}

impl Cpu {
    /// Bytes that a plan holds while it computes a clip of `n_samples` samples, beside the samples and what comes out:
    /// values before they are packed, bands that a cosine transform is made of, and a copy where axes change places.
    #[must_use]
    pub fn scratch_bytes(args: &FeatureArgs, n_samples: usize) -> usize {
        let n_frames = args.n_computed_frames(n_samples);
        let values = args.n_bands() * n_frames;
        let bands = if args.mfcc.is_some() {
            args.mel.as_ref().map_or(0, |mel| mel.n_mels) * n_frames
        } else {
            0
        };
        let swapped = if args.dim_order == DimOrder::FrameBand {
            values
        } else {
            0
        };
        (values + bands.max(swapped)) * size_of::<f32>()
    }

    /// Bytes of the tables and buffers of one feature's plan, whatever the clips are: about right, and never much less.
    #[must_use]
    pub fn plan_bytes(args: &FeatureArgs) -> usize {
        // Window, twiddles, transform and its scratch in double precision, and eight frames of every bin.
        let spectrum = 96 * args.stft.n_fft;
        let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
        // Each bin lies under two bands; the cosine transform is made in f64 and kept in f32.
        let bands = 16 * args.stft.n_fft + 64 * n_mels;
        let matrix = args
            .mfcc
            .as_ref()
            .map_or(0, |mfcc| 12 * mfcc.n_mfcc * n_mels);
        spectrum + bands + matrix
    }
}

impl Backend for Cpu {
    fn kind(&self) -> &'static str {
        "cpu"
    }

    fn level(&self) -> String {
        self.level.to_string()
    }

    fn batch_clips(&self) -> usize {
        1
    }

    fn lanes(&self) -> usize {
        1
    }

    fn plan(&self, _lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(ClipPlan::new(features, self.level)?))
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
    features: Vec<OutputFeature>,
}

/// A feature, and its place among the outputs.
struct OutputFeature {
    place: usize,
    plan: FeaturePlan,
}

impl CpuPlan {
    /// Errors: an impossible argument; [`KernelError::Level`] where this machine lacks `level`.
    pub fn new(features: &[FeatureArgs], level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;

        // The spectrum takes most of the time, so features that want the same one share it.
        let mut spectra: Vec<Spectrum> = Vec::new();
        for (place, args) in features.iter().enumerate() {
            args.validate()?;
            let feature = OutputFeature {
                place,
                plan: FeaturePlan::new(args, lanes),
            };

            match spectra
                .iter_mut()
                .find(|spectrum| spectrum.is_that_of(args))
            {
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

        Ok(Self {
            lanes,
            n_features: features.len(),
            spectra,
        })
    }

    /// Gives up the memory that grew with a clip.
    fn forget_scratch(&mut self) {
        for spectrum in &mut self.spectra {
            for feature in &mut spectrum.features {
                feature.plan.forget_scratch();
            }
        }
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

/// A [`CpuPlan`] between whole clips and packed bytes.
struct ClipPlan {
    plan: CpuPlan,
    sample_rate_hz: u32,
    packings: Vec<Packing>,
    /// From rates that are not the features'.
    resamplers: Resamplers,
    mono: Vec<f32>,
    pcm: SampleBuffer,
    values: Vec<Vec<f32>>,
}

impl ClipPlan {
    fn new(features: &[FeatureArgs], level: Level) -> Result<Self, KernelError> {
        let sample_rate_hz = features.first().map_or(0, |args| args.sample_rate_hz);
        let plan = CpuPlan::new(features, level)?;
        let packings = features
            .iter()
            .map(FeatureArgs::packing)
            .collect::<Result<_, _>>()?;

        Ok(Self {
            plan,
            sample_rate_hz,
            packings,
            resamplers: Resamplers::new(sample_rate_hz, level),
            mono: Vec::new(),
            pcm: SampleBuffer::default(),
            values: vec![Vec::new(); features.len()],
        })
    }

    /// `clip` as mono at the features' rate, in `self.pcm`, with zeros up to the end of its last row.
    fn load(&mut self, clip: &Clip<'_>, end: usize) -> Result<(), KernelError> {
        downmix(clip, &mut self.mono);
        self.pcm.clear();

        if clip.sample_rate_hz == self.sample_rate_hz {
            self.pcm.extend_from_slice(&self.mono);
        } else {
            let resampler = self.resamplers.get(clip.sample_rate_hz)?;
            resampler.push(&self.mono, &mut self.pcm);
            resampler.finish(&mut self.pcm);
        }

        self.pcm.pad_to(end, 0.0);
        Ok(())
    }

    /// Whether the samples are what features take: mono, at their rate.
    fn is_ready(&self, clip: &Clip<'_>) -> bool {
        clip.channels == 1 && clip.sample_rate_hz == self.sample_rate_hz
    }

    fn row(&mut self, pcm: &[f32]) -> Result<Row, KernelError> {
        self.plan.run(pcm, &mut self.values)?;
        let silent = pcm.iter().all(|&x| x == 0.0);

        let mut tensors = Vec::with_capacity(self.values.len());
        for (place, (values, packing)) in self.values.iter().zip(&self.packings).enumerate() {
            let mut bytes = Vec::new();
            pack_into(values, *packing, &mut bytes).map_err(|source| KernelError::Feature {
                place,
                source: Box::new(source),
            })?;
            tensors.push(bytes);
        }
        Ok(Row { silent, tensors })
    }
}

impl Plan for ClipPlan {
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError> {
        let mut rows = Vec::with_capacity(clips.iter().map(|clip| clip.rows.len()).sum());
        for clip in clips {
            let end = clip.rows.iter().map(|row| row.end).max().unwrap_or(0);
            match clip.samples {
                // As decoding leaves it: nothing to copy.
                Samples::F32(pcm) if self.is_ready(clip) && end <= pcm.len() => {
                    rows.extend(clip.rows.iter().map(|row| self.row(&pcm[row.clone()])));
                }

                _ => {
                    self.load(clip, end)?;
                    // The samples are taken out for the moment, because `row` borrows all of `self`.
                    let pcm = std::mem::take(&mut self.pcm);
                    rows.extend(clip.rows.iter().map(|row| self.row(&pcm[row.clone()])));
                    self.pcm = pcm;
                }
            }
        }
        Ok(rows)
    }

    fn forget_scratch(&mut self) {
        self.plan.forget_scratch();
        self.values
            .iter_mut()
            .for_each(|values| *values = Vec::new());
        self.mono = Vec::new();
        self.pcm = SampleBuffer::default();
    }
}

/// The mean of a clip's channels, full scale ±1.
pub(crate) fn downmix(clip: &Clip<'_>, out: &mut Vec<f32>) {
    out.clear();
    match (clip.samples, clip.channels) {
        (Samples::F32(samples), 1) => out.extend_from_slice(samples),
        (Samples::F32(samples), _) => out.extend(
            samples
                .chunks_exact(2)
                .map(|pair| (pair[0] + pair[1]) * 0.5),
        ),
        (Samples::S16(samples), 1) => out.extend(samples.iter().map(|x| f32::from(*x) * S16_SCALE)),
        (Samples::S16(samples), _) => {
            let pairs = samples.chunks_exact(2);
            out.extend(
                pairs.map(|pair| (f32::from(pair[0]) + f32::from(pair[1])) * (0.5 * S16_SCALE)),
            );
        }
    }
}

/// One step of 16 bits.
const S16_SCALE: f32 = 1.0 / 32_768.0;

impl Spectrum {
    /// Whether a feature's spectrum has these values. `frames` counts too: it decides how much a short clip is padded.
    fn is_that_of(&self, args: &FeatureArgs) -> bool {
        self.stft == args.stft && self.frames_min == args.frames && self.wide == args.is_wide()
    }

    fn run(&mut self, pcm: &[f32], out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        let signal = Signal::new(pcm, &self.stft, self.frames_min);
        let n_frames = self.stft.n_frames(signal.len);
        for feature in &mut self.features {
            feature.plan.start(n_frames, &mut out[feature.place]);
        }

        // Each block goes through all features while it is still in the cache.
        for first in (0..n_frames).step_by(LANES) {
            let count = LANES.min(n_frames - first);
            let block = self.plan.block(signal, first, count);
            for feature in &mut self.features {
                feature
                    .plan
                    .block(block, first, count, &mut out[feature.place]);
            }
        }

        for feature in &mut self.features {
            feature.plan.finish(&mut out[feature.place])?;
        }
        Ok(())
    }
}
