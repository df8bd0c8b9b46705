//! The CPU backend: computes one clip at a time, on the calling thread.

use std::sync::Arc;

use wavemill_options::{ConstantQArgs, DimOrder, FeatureArgs, FrameValues, Packing, StftArgs};
use wavemill_signal::{LANES, Lane, Lanes, Level, SampleBuffer};

use super::derived::DerivedPlan;
use super::feature::FeaturePlan;
use super::{Backend, Clip, Plan, Row, Samples, SpareTensors};
use crate::beats::BeatPlan;
use crate::chroma::TuningPlan;
use crate::constant_q::ConstantQPlan;
use crate::error::KernelError;
use crate::frames::FramesPlan;
use crate::pack::pack_into;
use crate::resample::Resamplers;
use crate::stft::{Signal, StftPlan, check_samples};
use crate::tempogram::AutocorrelationPlan;

/// The CPU as a backend, at one instruction set level.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Instruction set level of the compiled code that is used.
    pub level: Level,
}

impl Cpu {
    /// Returns the bytes that a plan needs to compute a clip of `n_samples` samples, in addition to samples and output:
    /// values before packing, bands that a cosine transform or chroma reads, peaks of spectra, paths of beats, and a
    /// copy if axes are swapped. For a derived feature it includes the memory of its source, as if no other feature
    /// shared it, and of the derived values.
    pub fn scratch_bytes(args: &FeatureArgs, n_samples: usize) -> usize {
        let n_frames = args.n_computed_frames(n_samples);
        let derived = match &args.derived {
            Some(_) => args.n_values(n_samples) + DerivedPlan::n_scratch_values(args, n_samples),
            None => 0,
        };

        let values = args.n_bands() * n_frames;
        let bands = if args.is_reduced() {
            args.n_spectrum_bands() * n_frames.next_multiple_of(LANES)
        } else {
            0
        };

        // The tuning is estimated from the peaks of all frames.
        let peaks = match args.chroma() {
            Some(_) => TuningPlan::peak_bytes(args.sample_rate_hz, args.stft.n_fft) * n_frames,
            None => 0,
        };
        let swapped = if args.dim_order == DimOrder::FrameBand {
            values
        } else {
            0
        };
        let constant_q = args.constant_q().map_or(0, |constant_q| {
            let n_signal = args.stft.n_signal(n_samples, args.frames);
            ConstantQPlan::scratch_bytes(constant_q, args.sample_rate_hz, n_signal)
        });
        // CENS are smoothed from one buffer to another, before they become values.
        let smoothed = match args.smoothed_frames() {
            Some(_) => bands + n_frames,
            None => 0,
        };
        let rhythm = args
            .n_lags()
            .map_or(0, |n_lags| BeatPlan::scratch_bytes(n_lags, n_frames));
        let floats = values + bands.max(swapped) + derived + smoothed;
        floats * size_of::<f32>() + peaks + constant_q + rhythm
    }

    /// Returns the approximate bytes of the tables and buffers of one feature's plan, independent of the clips. The
    /// estimate is never much too low.
    pub fn plan_bytes(args: &FeatureArgs) -> usize {
        // Window, twiddle factors, transform and its scratch in double precision, and eight frames of all bins. Samples
        // of eight frames, if some are padding. Frames that share no samples, as with pre-emphasis, need more, which
        // the estimate for bands includes.
        let samples = 32 * args.stft.hop_length.min(args.stft.n_fft);
        let spectrum = 96 * args.stft.n_fft + samples;

        let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
        // Each bin belongs to two bands; the cosine transform is computed in f64 and stored in f32.
        let bands = 16 * args.stft.n_fft + 64 * n_mels;
        let matrix = args
            .mfcc
            .as_ref()
            .map_or(0, |mfcc| 12 * mfcc.n_mfcc * n_mels);

        let constant_q = args.constant_q().map_or(0, |constant_q| {
            ConstantQPlan::plan_bytes(constant_q, args.sample_rate_hz, args.stft.hop_length)
        });
        let weights = args
            .chroma()
            .map_or(0, |chroma| 4 * chroma.n_chroma * args.stft.n_bins());
        let lags = args.n_lags().map_or(0, AutocorrelationPlan::plan_bytes);
        spectrum + bands + matrix + constant_q + weights + lags
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

/// Computes features of one clip after another, with precomputed tables.
pub struct CpuPlan {
    lanes: Lanes,
    n_features: usize,
    spectra: Vec<Spectrum>,
}

/// A spectrum and the features that are computed from it.
struct Spectrum {
    values: FrameValues,
    lanes: Lanes,
    stft: StftArgs,
    frames_min: Option<usize>,
    wide: bool,
    constant_q: Option<ConstantQArgs>,
    plan: FrameValuesPlan,
    /// Number of values of a frame.
    n_values: usize,
    /// The spectrum raised to the exponents, other than 2, of its features.
    raised: Vec<RaisedSpectrum>,
    features: Vec<SpectrumFeature>,
}

/// Computes the values of eight frames.
enum FrameValuesPlan {
    Spectrum(StftPlan),
    ConstantQ(Box<ConstantQPlan>),
    /// One value per frame, which counts as a spectrum of one bin.
    Samples(FramesPlan),
}

/// Buffer for a block of a spectrum, raised to an exponent.
struct RaisedSpectrum {
    exponent: f64,
    block: Vec<Lane>,
}

/// A feature computed from a shared spectrum, and the outputs that contain its values or features derived from them.
struct SpectrumFeature {
    plan: FeaturePlan,
    /// [`FeatureArgs::source_values`] of the feature: features with equal ones can be derived from the same values.
    values_args: FeatureArgs,
    /// Index of the feature's exponent in [`Spectrum::raised`]; `None` for the powers themselves.
    raised: Option<usize>,
    output: Output,
    derived: Vec<DerivedOutput>,
}

/// Location of a feature's values: one of the outputs, or a separate buffer.
enum Output {
    /// The feature is requested itself: its values are in the output with this index.
    Place(usize),
    /// Only features derived from it are requested: its values are in this buffer.
    Own(Vec<f32>),
}

/// A feature derived from the values, and the index of its output.
struct DerivedOutput {
    place: usize,
    plan: DerivedPlan,
}

impl CpuPlan {
    /// Creates a plan. Errors: an invalid argument; [`KernelError::Level`] if this machine does not support `level`.
    pub fn new(features: &[FeatureArgs], level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;
        let mut plan = Self {
            lanes,
            n_features: features.len(),
            spectra: Vec::new(),
        };

        // Add sources first: a feature that is derived from a stored feature needs no values of its own.
        for (place, args) in features.iter().enumerate() {
            args.validate()?;
            if args.derived.is_none() {
                plan.add(args, Output::Place(place));
            }
        }
        for (place, args) in features.iter().enumerate() {
            if let Some(derived) = &args.derived {
                let derived = DerivedOutput {
                    place,
                    plan: DerivedPlan::new(derived, args, lanes),
                };
                plan.source_of(args).derived.push(derived);
            }
        }
        Ok(plan)
    }

    /// Adds a feature that is not derived from another feature.
    fn add(&mut self, args: &FeatureArgs, output: Output) -> &mut SpectrumFeature {
        // The spectrum takes most of the time, so features with equal spectra share it.
        let found = self.spectra.iter().position(|s| s.is_that_of(args));
        let at = found.unwrap_or(self.spectra.len());
        if found.is_none() {
            self.spectra.push(Spectrum::new(args, self.lanes));
        }

        let raised = self.spectra[at].raised_to(args.power);
        let features = &mut self.spectra[at].features;
        let last = features.len();
        features.push(SpectrumFeature {
            plan: FeaturePlan::new(args, self.lanes),
            values_args: args.source_values(),
            raised,
            output,
            derived: Vec::new(),
        });
        &mut features[last]
    }

    /// Returns the feature that provides the values for `derived`: a stored one, or a new one that is computed only for
    /// this purpose.
    fn source_of(&mut self, derived: &FeatureArgs) -> &mut SpectrumFeature {
        let wanted = derived.source_values();
        let mut found = None;
        for (at, spectrum) in self.spectra.iter().enumerate() {
            let features = &spectrum.features;
            if let Some(place) = features.iter().position(|f| f.values_args == wanted) {
                found = found.or(Some((at, place)));
            }
        }

        match found {
            Some((at, place)) => &mut self.spectra[at].features[place],
            None => self.add(&wanted, Output::Own(Vec::new())),
        }
    }

    /// Frees the memory whose size depends on the clip.
    fn forget_scratch(&mut self) {
        for spectrum in &mut self.spectra {
            spectrum.plan.forget_scratch();
            for feature in &mut spectrum.features {
                feature.forget_scratch();
            }
        }
    }

    /// Computes every feature of `pcm` (mono, full scale ±1): `out[feature]` becomes the tensor of
    /// [`FeatureArgs::shape`], row-major; it is empty if the clip is too short for one frame. Values are finite.
    ///
    /// Errors: [`KernelError::Sample`], [`KernelError::TooFewFrames`]. Panics if the length of `out` is not the number
    /// of features.
    pub fn run(&mut self, pcm: &[f32], out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        assert_eq!(out.len(), self.n_features, "one output a feature");
        check_samples(pcm, self.lanes)?;

        for spectrum in &mut self.spectra {
            spectrum.run(pcm, out)?;
        }
        Ok(())
    }
}

impl Output {
    /// Returns the feature's values, which are either in one of the outputs `out` or in a separate buffer.
    fn values<'a>(&'a mut self, out: &'a mut [Vec<f32>]) -> &'a mut Vec<f32> {
        match self {
            Self::Place(place) => &mut out[*place],
            Self::Own(values) => values,
        }
    }
}

impl SpectrumFeature {
    fn start(&mut self, n_frames: usize, out: &mut [Vec<f32>]) {
        let values = self.output.values(out);
        self.plan.start(n_frames, values);
    }

    /// Computes the feature for one block of the spectrum, like [`FeaturePlan::block`].
    fn block(&mut self, spectrum: &[Lane], first: usize, count: usize, out: &mut [Vec<f32>]) {
        let values = self.output.values(out);
        self.plan.block(spectrum, first, count, values);
    }

    fn finish(&mut self, out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        // Take the values out temporarily, because features derived from them are written to `out` as well.
        let mut values = std::mem::take(self.output.values(out));
        let finished = self.plan.finish_values(&mut values);
        if let Ok(n_frames) = &finished {
            // Derived features are computed before normalization, which would remove what statistics and pictures show.
            for derived in &mut self.derived {
                derived
                    .plan
                    .run(&values, *n_frames, &mut out[derived.place]);
            }
            if matches!(self.output, Output::Place(_)) {
                self.plan.finish_tensor(*n_frames, &mut values);
            }
        }

        *self.output.values(out) = values;
        finished.map(|_| ())
    }

    fn forget_scratch(&mut self) {
        self.plan.forget_scratch();
        if let Output::Own(values) = &mut self.output {
            *values = Vec::new();
        }
        for derived in &mut self.derived {
            derived.plan.forget_scratch();
        }
    }
}

/// Computes packed rows of whole clips with a [`CpuPlan`].
struct ClipPlan {
    plan: CpuPlan,
    sample_rate_hz: u32,
    packings: Vec<Packing>,
    /// Resamplers from other rates to the features' rate.
    resamplers: Resamplers,
    /// Buffers for a clip that needs conversion: `mono` after downmixing, `pcm` at the features' sample rate. Clips of
    /// extraction need no conversion.
    mono: Vec<f32>,
    pcm: SampleBuffer,
    values: Vec<Vec<f32>>,
    spare: Arc<SpareTensors>,
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
            spare: Arc::default(),
        })
    }

    /// Converts `clip` to mono at the features' rate in `self.pcm`, with zeros up to the end of its last row.
    fn load(&mut self, clip: &Clip<'_>, end: usize) -> Result<(), KernelError> {
        downmix(clip, &mut self.mono);
        self.pcm.clear();

        if clip.sample_rate_hz == self.sample_rate_hz {
            self.pcm.extend_from_slice(&self.mono);
        } else {
            let resampler = self.resamplers.select(clip.sample_rate_hz)?;
            resampler.push(&self.mono, &mut self.pcm);
            resampler.finish(&mut self.pcm);
        }

        self.pcm.pad_to(end, 0.0);
        Ok(())
    }

    /// Reports whether the samples need no conversion: mono at the features' rate.
    fn is_ready(&self, clip: &Clip<'_>) -> bool {
        clip.channels == 1 && clip.sample_rate_hz == self.sample_rate_hz
    }

    fn row(&mut self, pcm: &[f32]) -> Result<Row, KernelError> {
        self.plan.run(pcm, &mut self.values)?;
        let silent = pcm.iter().all(|&x| x == 0.0);

        let mut tensors = Vec::with_capacity(self.values.len());
        for (place, (values, packing)) in self.values.iter().zip(&self.packings).enumerate() {
            let mut bytes = self.spare.take(values.len() * packing.dtype().bytes());
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
                // The samples need no conversion and no copy.
                Samples::F32(pcm) if self.is_ready(clip) && end <= pcm.len() => {
                    rows.extend(clip.rows.iter().map(|row| self.row(&pcm[row.clone()])));
                }

                _ => {
                    self.load(clip, end)?;
                    // Take the samples out temporarily, because `row` borrows all of `self`.
                    let pcm = std::mem::take(&mut self.pcm);
                    rows.extend(clip.rows.iter().map(|row| self.row(&pcm[row.clone()])));
                    self.pcm = pcm;
                }
            }
        }
        Ok(rows)
    }

    fn reuse(&mut self, spare: &Arc<SpareTensors>) {
        self.spare = Arc::clone(spare);
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

/// Computes the mean of a clip's channels, with full scale ±1.
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

/// One step of a 16-bit sample.
const S16_SCALE: f32 = 1.0 / 32_768.0;

impl FrameValuesPlan {
    fn new(args: &FeatureArgs, lanes: Lanes) -> Self {
        if let Some(plan) = ConstantQPlan::new(args, lanes) {
            return Self::ConstantQ(Box::new(plan));
        }
        match args.frame_values() {
            FrameValues::MeanSquare | FrameValues::ZeroCrossings => {
                Self::Samples(FramesPlan::new(&args.stft, args.frame_values(), lanes))
            }
            FrameValues::Spectrum | FrameValues::ConstantQ => {
                Self::Spectrum(StftPlan::new(&args.stft, args.is_wide(), lanes))
            }
        }
    }

    /// Returns the number of values of a frame.
    fn n_values(args: &FeatureArgs) -> usize {
        match (args.constant_q(), args.frame_values()) {
            (Some(constant_q), _) => constant_q.n_bins,
            (None, FrameValues::MeanSquare | FrameValues::ZeroCrossings) => 1,
            (None, FrameValues::Spectrum | FrameValues::ConstantQ) => args.stft.n_bins(),
        }
    }

    /// Prepares a clip, if its frames need more than its samples.
    fn start(&mut self, signal: Signal) {
        if let Self::ConstantQ(plan) = self {
            plan.start(signal);
        }
    }

    fn forget_scratch(&mut self) {
        if let Self::ConstantQ(plan) = self {
            plan.forget_scratch();
        }
    }

    fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        match self {
            Self::Spectrum(plan) => plan.block(signal, first, count),
            Self::ConstantQ(plan) => plan.block(signal, first, count),
            Self::Samples(plan) => plan.block(signal, first, count),
        }
    }
}

impl RaisedSpectrum {
    /// Converts powers to magnitudes raised to the exponent.
    #[inline(always)]
    fn raise(&mut self, power: &[Lane]) {
        for (lane, out) in power.iter().zip(&mut self.block) {
            *out = if self.exponent == 1.0 {
                lane.map(f32::sqrt)
            } else {
                lane.map(|x| libm::pow(f64::from(x), self.exponent / 2.0) as f32)
            };
        }
    }
}

impl Spectrum {
    fn new(args: &FeatureArgs, lanes: Lanes) -> Self {
        Self {
            values: args.frame_values(),
            stft: args.stft.clone(),
            frames_min: args.frames,
            wide: args.is_wide(),
            lanes,
            n_values: FrameValuesPlan::n_values(args),
            constant_q: args.constant_q().cloned(),
            plan: FrameValuesPlan::new(args, lanes),
            raised: Vec::new(),
            features: Vec::new(),
        }
    }

    /// Returns the index of the spectrum raised to `exponent`, which is added if necessary.
    fn raised_to(&mut self, exponent: f64) -> Option<usize> {
        // The spectrum already consists of powers.
        if exponent == 2.0 {
            return None;
        }

        let found = self
            .raised
            .iter()
            .position(|raised| raised.exponent == exponent);
        Some(found.unwrap_or_else(|| {
            self.raised.push(RaisedSpectrum {
                exponent,
                block: vec![[0.0; LANES]; self.n_values],
            });
            self.raised.len() - 1
        }))
    }

    /// Reports whether a feature uses this spectrum. `frames` must be equal, too, because it determines how far a short
    /// clip is padded.
    fn is_that_of(&self, args: &FeatureArgs) -> bool {
        self.values == args.frame_values()
            && self.stft == args.stft
            && self.frames_min == args.frames
            && self.wide == args.is_wide()
            && self.constant_q.as_ref() == args.constant_q()
    }

    fn run(&mut self, pcm: &[f32], out: &mut [Vec<f32>]) -> Result<(), KernelError> {
        let signal = Signal::new(pcm, &self.stft, self.frames_min);
        let n_frames = self.stft.n_frames(signal.len);
        self.plan.start(signal);
        for feature in &mut self.features {
            feature.start(n_frames, out);
        }

        // All features read a block of the spectrum while it is still in the cache.
        for first in (0..n_frames).step_by(LANES) {
            let count = LANES.min(n_frames - first);
            let block = self.plan.block(signal, first, count);
            for raised in &mut self.raised {
                self.lanes.run(
                    #[inline(always)]
                    || raised.raise(block),
                );
            }
            for feature in &mut self.features {
                let spectrum = feature.raised.map_or(block, |at| &self.raised[at].block);
                feature.block(spectrum, first, count, out);
            }
        }

        for feature in &mut self.features {
            feature.finish(out)?;
        }
        Ok(())
    }
}
