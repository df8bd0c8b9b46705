//! Arguments of a feature: all numbers that determine its values, and nothing else.

use serde::{Deserialize, Serialize};

use crate::constant_q::{ChromaCqArgs, ConstantQArgs};
use crate::db::{DbArgs, DbRef, LogArgs};
use crate::derived::{CHANNELS, Derived, STATISTICS};
use crate::fault::{Fault, Faults};
use crate::mel::MelArgs;
use crate::mfcc::MfccArgs;
use crate::op::{FrameValues, Op};
use crate::pack::{Dtype, Packing};
use crate::rhythm::{BeatArgs, OnsetArgs};
use crate::shape::{ChromaArgs, ContrastArgs, ShapeArgs};
use crate::stft::StftArgs;

/// Number of frames over which a delta is fitted; the default of `librosa.feature.delta`.
pub const DELTA_WIDTH: usize = 9;

/// Maximum number of frames per row: three hours at 10 ms.
const FRAMES_MAX: usize = 1 << 20;

/// Normalization of a row (a clip or a segment) after all other computations. Constant input gives all 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Values are not changed.
    #[default]
    None,
    /// `(x - min) / (max - min)`, so values are in [0, 1].
    MinMax,
    /// `(x - mean) / std`, with the population standard deviation.
    MeanVar,
}

/// Order of the two axes, starting with the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DimOrder {
    /// Bands are rows: `mel,frame`.
    #[default]
    #[serde(rename = "band,frame")]
    BandFrame,
    /// Frames are rows: `frame,mel`.
    #[serde(rename = "frame,band")]
    FrameBand,
}

impl DimOrder {
    /// Parses `mel,frame` or `frame,mel`; the band axis is called `bin`, `mel` or `coefficient`, depending on `op`.
    ///
    /// # Errors
    /// A [`Fault`] of `dim_order` if the text is neither of the two orders.
    pub fn parse(text: &str, op: Op) -> Result<Self, Fault> {
        let axis = op.spectral().axis;
        let band_frame = format!("{axis},frame");
        let frame_band = format!("frame,{axis}");
        if text == band_frame {
            Ok(Self::BandFrame)
        } else if text == frame_band {
            Ok(Self::FrameBand)
        } else {
            let problem = format!("allowed: \"{band_frame}\" or \"{frame_band}\"");
            Err(Fault::new("dim_order", problem))
        }
    }
}

/// All arguments of a feature, without optional defaults. [`FeatureSpec::resolve`](crate::FeatureSpec::resolve) creates
/// them from a recipe and a preset, and [`FeatureArgs::derive`] from another feature.
///
/// The serialized form identifies the values: an explicit default equals an implied one, and presets with the same
/// values are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureArgs {
    /// Operation that computes the feature.
    pub op: Op,
    /// Sample rate of the PCM in Hz.
    pub sample_rate_hz: u32,
    /// Framing and Fourier transform.
    pub stft: StftArgs,
    /// Exponent of the magnitude: 1, 2, or any other number above 0 and up to 2.
    pub power: f64,
    /// Mel bands; only present for operations that use them.
    pub mel: Option<MelArgs>,
    /// Logarithm applied to the spectrum or the mel bands.
    pub log: LogArgs,
    /// Cosine transform of the mel bands; only present for [`Op::Mfcc`].
    pub mfcc: Option<MfccArgs>,
    /// Options of an operation on the shape of a spectrum that has any. Omitted from the serialized form if absent, so
    /// that identities of other features do not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<ShapeArgs>,
    /// Number of delta orders appended after the bands: 0, 1 or 2.
    pub delta: u8,
    /// Number of frames to which rows are cropped, or extended by appending zeros to the PCM; all frames if absent.
    pub frames: Option<usize>,
    /// Normalization after all other computations.
    pub normalize: Normalize,
    /// Order of the tensor's two axes.
    pub dim_order: DimOrder,
    /// Type in which values are stored.
    pub dtype: Dtype,
    /// Statistics, tempo or picture computed from the values. If set, the other fields except for the stored type describe the
    /// source feature. Omitted from the serialized form if absent, so that identities of other features do not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derived>,
}

impl FeatureArgs {
    /// Returns the size of the band axis, including deltas.
    pub fn n_bands(&self) -> usize {
        self.n_base_bands() * (1 + usize::from(self.delta))
    }

    /// Returns the size of the band axis without deltas.
    pub fn n_base_bands(&self) -> usize {
        (self.op.spectral().n_bands)(self)
    }

    /// Returns the number of bands before a cosine transform, before differences of peaks and valleys, or before they are
    /// added up to pitch classes.
    pub fn n_spectrum_bands(&self) -> usize {
        match (&self.mel, &self.mfcc) {
            (Some(mel), _) => mel.n_mels,
            _ if self.contrast().is_some() => 2 * self.n_base_bands(),
            _ if self.chroma().is_some() => self.stft.n_bins(),
            _ if self.smoothed_frames().is_some() => {
                self.chroma_cq().map_or(0, |chroma| chroma.n_chroma)
            }
            _ => self.n_base_bands(),
        }
    }

    /// Reports whether the bands are not yet the values: a cosine transform or differences follow the logarithm.
    pub fn is_reduced(&self) -> bool {
        self.mfcc.is_some()
            || self.contrast().is_some()
            || self.chroma().is_some()
            || self.onset().is_some()
            || self.smoothed_frames().is_some()
    }

    /// Returns the values of each frame from which the bands are computed.
    pub fn frame_values(&self) -> FrameValues {
        self.op.spectral().frame
    }

    /// Returns the options of the onset strength, if the feature is computed from it.
    pub fn onset(&self) -> Option<&OnsetArgs> {
        match &self.shape {
            Some(ShapeArgs::Onset(onset)) => Some(onset),
            Some(ShapeArgs::Tempogram(tempogram)) => Some(&tempogram.onset),
            Some(ShapeArgs::Beats(beats)) => Some(&beats.onset),
            _ => None,
        }
    }

    /// Returns the number of lags of the autocorrelation, if the feature is computed from one of the onset strength.
    pub fn n_lags(&self) -> Option<usize> {
        match &self.shape {
            Some(ShapeArgs::Tempogram(tempogram)) => Some(tempogram.win_length),
            Some(ShapeArgs::Beats(_)) => {
                let hop_length = self.stft.hop_length;
                Some(BeatArgs::win_length(self.sample_rate_hz, hop_length))
            }
            _ => None,
        }
    }

    /// Returns the options of chroma, if this is the operation.
    pub fn chroma(&self) -> Option<&ChromaArgs> {
        match &self.shape {
            Some(ShapeArgs::Chroma(chroma)) => Some(chroma),
            _ => None,
        }
    }

    /// Returns the options of the constant-Q transform, if the feature is computed from one.
    pub fn constant_q(&self) -> Option<&ConstantQArgs> {
        match &self.shape {
            Some(ShapeArgs::Cqt(constant_q) | ShapeArgs::Vqt(constant_q)) => Some(constant_q),
            _ => self.chroma_cq().map(|chroma| &chroma.constant_q),
        }
    }

    /// Returns the options of chroma from a constant-Q transform, if the feature is computed from them.
    pub fn chroma_cq(&self) -> Option<&ChromaCqArgs> {
        match &self.shape {
            Some(
                ShapeArgs::ChromaCqt(chroma)
                | ShapeArgs::ChromaCens(chroma)
                | ShapeArgs::Tonnetz(chroma),
            ) => Some(chroma),
            _ => None,
        }
    }

    /// Returns the number of frames over which CENS are smoothed, if the feature is computed from them.
    pub fn smoothed_frames(&self) -> Option<usize> {
        self.chroma_cq().and_then(|chroma| chroma.win_len_smooth)
    }

    /// Returns the options of the spectral contrast, if this is the operation.
    pub fn contrast(&self) -> Option<&ContrastArgs> {
        match &self.shape {
            Some(ShapeArgs::Contrast(contrast)) => Some(contrast),
            _ => None,
        }
    }

    /// Returns the number of frames computed from `n_samples` samples, before cropping; 0 if there are too few samples.
    pub fn n_computed_frames(&self, n_samples: usize) -> usize {
        let n_signal = self.stft.n_signal(n_samples, self.frames);
        self.stft.n_frames(n_signal)
    }

    /// Returns the number of frames stored for `n_samples` samples; 0 if the clip is too short.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let computed = self.n_computed_frames(n_samples);
        self.frames.map_or(computed, |frames| computed.min(frames))
    }

    /// Returns the shape of the stored tensor for `n_samples` samples: `[rows, columns]`, or the shape defined by
    /// [`Derived`].
    pub fn shape(&self, n_samples: usize) -> Vec<usize> {
        self.dims(self.n_frames(n_samples), |n| n)
    }

    /// Returns the shape of the stored tensors for clips of `n_samples` samples, or of any length if absent. A
    /// dimension that varies between clips is `None`.
    pub fn stored_shape(&self, n_samples: Option<usize>) -> Vec<Option<usize>> {
        // Every clip is cropped or padded to `frames`, if given.
        let frames = self.frames.or(n_samples.map(|n| self.n_frames(n)));
        self.dims(frames, Some)
    }

    /// Lists the tensor's dimensions in order. `frames` is the size of the frame axis, and `fixed` converts the sizes
    /// of the other axes to the same type `T`.
    fn dims<T>(&self, frames: T, fixed: impl Fn(usize) -> T) -> Vec<T> {
        let bands = self.n_bands();
        match &self.derived {
            None => match self.dim_order {
                DimOrder::BandFrame => vec![fixed(bands), frames],
                DimOrder::FrameBand => vec![frames, fixed(bands)],
            },
            Some(Derived::Statistics) => vec![fixed(STATISTICS.len()), fixed(bands)],
            Some(Derived::Tempo(_)) => vec![fixed(1)],
            Some(Derived::Picture(picture)) => vec![
                fixed(CHANNELS),
                fixed(picture.height.unwrap_or(bands)),
                picture.width.map_or(frames, fixed),
            ],
        }
    }

    /// Returns the number of values in the tensor for `n_samples` samples.
    pub fn n_values(&self, n_samples: usize) -> usize {
        self.shape(n_samples).iter().product()
    }

    /// Returns the size in bytes of the tensor for `n_samples` samples.
    pub fn row_bytes(&self, n_samples: usize) -> usize {
        self.n_values(n_samples) * self.dtype.bytes()
    }

    /// Returns the feature's operation if only the CPU can compute it, otherwise `None`.
    pub fn cpu_only_op(&self) -> Option<Op> {
        let op = self.derived.as_ref().map_or(self.op, Derived::op);
        op.is_cpu_only().then_some(op)
    }

    /// Returns the names of the axes in the tensor's order.
    pub fn dim_names(&self) -> Vec<&'static str> {
        match (&self.derived, self.dim_order) {
            (None, DimOrder::BandFrame) => vec![self.op.spectral().axis, "frame"],
            (None, DimOrder::FrameBand) => vec!["frame", self.op.spectral().axis],
            (Some(Derived::Statistics), _) => vec!["statistic", self.op.spectral().axis],
            (Some(Derived::Tempo(_)), _) => vec!["value"],
            (Some(Derived::Picture(_)), _) => vec!["channel", "row", "column"],
        }
    }

    /// Returns the conversion of values to stored bytes.
    ///
    /// # Errors
    /// A [`Fault`] of `dtype` for u8 without a known range, and for statistics or a tempo in another type than f32.
    pub fn packing(&self) -> Result<Packing, Fault> {
        if let Some(numbers @ (Derived::Statistics | Derived::Tempo(_))) = &self.derived
            && self.dtype != Dtype::F32
        {
            // Beyond f16: a kurtosis can reach the number of frames, and a mean can be as small as one step of f16.
            let problem = format!("allowed for {}: f32", numbers.op().name());
            return Err(Fault::new("dtype", problem));
        }

        match (self.dtype, self.known_range()) {
            (Dtype::F16, _) => Ok(Packing::F16),
            (Dtype::F32, _) => Ok(Packing::F32),
            (Dtype::S16, _) => {
                let problem = "s16 is for the samples of op = \"pcm\"; allowed: f16, f32, u8";
                Err(Fault::new("dtype", problem))
            }
            (Dtype::U8, Some((low, high))) => Ok(Packing::U8 { low, high }),
            (Dtype::U8, None) => {
                let problem = "the range is unknown; allowed: f16, f32, or u8 with normalize = \"minmax\" or db with ref = \"max\" and top_db";
                Err(Fault::new("dtype", problem))
            }
        }
    }

    /// Reports whether rounding errors of an f32 transform would be noticeable: for decibels with a range above 80 dB
    /// or without a limit, and for decibels whose errors are multiplied by a lifter.
    pub fn is_wide(&self) -> bool {
        let lifted = self.mfcc.as_ref().is_some_and(|mfcc| mfcc.lifter > 0.0);
        matches!(self.log, LogArgs::Db(db) if lifted || db.top_db.is_none_or(|top_db| top_db > 80.0))
    }

    /// Returns the range of the values, if the arguments limit it. Cepstra and deltas are sums of decibels, which have
    /// no limit.
    fn known_range(&self) -> Option<(f32, f32)> {
        match self.derived {
            None => {}
            Some(Derived::Statistics | Derived::Tempo(_)) => return None,
            Some(Derived::Picture(_)) => return Some((0.0, 1.0)),
        }

        match (self.normalize, self.log) {
            (Normalize::MinMax, _) => Some((0.0, 1.0)),
            (Normalize::None, _) if self.op == Op::BeatTrack => Some((0.0, 1.0)),
            (
                Normalize::None,
                LogArgs::Db(DbArgs {
                    reference: DbRef::Max,
                    top_db: Some(top),
                    ..
                }),
            ) if self.delta == 0 && !self.op.has_cepstra() => Some((-top as f32, 0.0)),
            _ => None,
        }
    }

    /// Checks all arguments of the feature.
    ///
    /// # Errors
    /// The first [`Fault`], with the name of the option.
    pub fn validate(&self) -> Result<(), Fault> {
        let mut faults = Faults::default();
        self.check_parts(&mut faults);
        self.check(&mut faults);
        faults.into_result()
    }

    /// Adds a fault to `faults` for each invalid argument of the feature.
    pub(crate) fn check(&self, faults: &mut Faults) {
        let rate_hz = f64::from(self.sample_rate_hz);
        faults.within(Some(rate_hz), 1.0..=1e6, "sample_rate_hz");
        let length = match self.frame_values() {
            FrameValues::Spectrum | FrameValues::ConstantQ => "n_fft",
            FrameValues::MeanSquare | FrameValues::ZeroCrossings => "frame_length",
        };
        self.stft.check(length, faults);
        self.check_power(faults);

        // Deltas are fitted over several consecutive frames, so a fixed number of frames must not be smaller.
        let least = if self.delta > 0 { DELTA_WIDTH } else { 1 };
        if let Some(frames) = self.frames {
            faults.count_within(frames, least..=FRAMES_MAX, "frames");
            // Kernels count the samples of a row, which is extended to its frames, in 32 bits.
            let samples = self.stft.samples_for(frames.clamp(1, FRAMES_MAX));
            let problem = format!(
                "{frames} frames are {samples} samples; allowed: at most {}, by fewer frames or a smaller hop_length",
                i32::MAX
            );
            faults.unless(samples <= i32::MAX as usize, "frames", problem);
        }

        if let Some(mel) = &self.mel {
            mel.check(self.sample_rate_hz, faults);
            if let Some(mfcc) = &self.mfcc {
                mfcc.check(mel.n_mels, faults);
            }
        }
        if let Some(shape) = &self.shape {
            shape.check(self.sample_rate_hz, &self.stft, faults);
        }
        faults.within(Some(f64::from(self.delta)), 0.0..=2.0, "delta");
        self.log.check(faults);
        if let Some(derived) = &self.derived {
            derived.check(self.op, faults);
        }
        self.check_dtype(faults);
    }

    /// Checks that mel bands and cosine transform are present exactly if the operation uses them, as in all presets.
    fn check_parts(&self, faults: &mut Faults) {
        let has_its_parts = self.op.is_spectral()
            && self.mel.is_some() == self.op.has_mel_bands()
            && self.mfcc.is_some() == self.op.has_cepstra()
            && self.shape.as_ref().map(ShapeArgs::op) == self.op.with_shape_args();
        let problem = "is not the operation of these bands and coefficients";
        faults.unless(has_its_parts, "op", problem);
    }

    fn check_power(&self, faults: &mut Faults) {
        faults.unless(
            self.power > 0.0 && self.power <= 2.0,
            "power",
            "allowed: above 0, at most 2; 1 is magnitude, 2 power",
        );

        // Decibels are 10 log10 of a power or 20 log10 of a magnitude, but not defined for other exponents.
        let is_decibels = matches!(self.log, LogArgs::Db(_)) || self.op.has_cepstra();
        let is_sound = !is_decibels || self.power == 1.0 || self.power == 2.0;
        faults.unless(is_sound, "power", "allowed before decibels: 1 or 2");

        let is_sound = self.log != LogArgs::Whisper || self.power == 2.0;
        faults.unless(is_sound, "power", "allowed before Whisper's logarithm: 2");
    }

    fn check_dtype(&self, faults: &mut Faults) {
        // Linear powers: stored without a logarithm, normalization or derived feature.
        let is_linear = self.log == LogArgs::Linear
            && !self.op.is_shape()
            && self.normalize == Normalize::None
            && self.derived.is_none();
        let problem = "linear power overflows f16; allowed: f32, or set `db` or normalize";
        faults.unless(!is_linear || self.dtype != Dtype::F16, "dtype", problem);

        if let Err(fault) = self.packing() {
            faults.push(fault);
        }
    }
}
