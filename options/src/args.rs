//! What a feature is: every number that decides its values, and nothing else.

use serde::{Deserialize, Serialize};

use crate::db::{DbArgs, DbRef, LogArgs};
use crate::derived::{CHANNELS, Derived, STATISTICS};
use crate::fault::{Fault, Faults};
use crate::mel::MelArgs;
use crate::mfcc::MfccArgs;
use crate::pack::{Dtype, Packing};
use crate::stft::StftArgs;

/// Frames that a delta is fitted over; `librosa.feature.delta`'s default.
pub const DELTA_WIDTH: usize = 9;

/// Most frames of a row: three hours at 10 ms.
const FRAMES_MAX: usize = 1 << 20;

/// Which feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Magnitude to the given `power` of the short-time Fourier transform.
    Stft,
    /// Mel bands of the spectrum, in dB when `db` is given.
    Mel,
    /// Mel-frequency cepstral coefficients: a cosine transform of the log mel bands.
    Mfcc,
}

impl Op {
    /// As in a recipe: `stft`, `mel`, `mfcc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stft => "stft",
            Self::Mel => "mel",
            Self::Mfcc => "mfcc",
        }
    }

    /// Name of the axis beside `frame`: `bin`, `mel`, `coefficient`.
    pub const fn axis(self) -> &'static str {
        match self {
            Self::Stft => "bin",
            Self::Mel => "mel",
            Self::Mfcc => "coefficient",
        }
    }
}

/// Scaling of a row (a clip or a segment) after everything else. Constant input gives all 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Values as they are.
    #[default]
    None,
    /// `(x - min) / (max - min)`, so [0, 1].
    MinMax,
    /// `(x - mean) / std`, the population's.
    MeanVar,
}

/// Order of the two axes, rows first.
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
    /// `mel,frame` or `frame,mel`; the band axis is called `bin`, `mel` or `coefficient`, as `op` has it.
    ///
    /// Errors: a [`Fault`] of `dim_order`.
    pub fn parse(text: &str, op: Op) -> Result<Self, Fault> {
        let axis = op.axis();
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

/// A feature with nothing left to decide; [`FeatureArgs::resolve`] makes it from a preset, and [`FeatureArgs::derive`]
/// from another feature.
///
/// Serialised it identifies the values: an explicit default equals an implied one, and presets that agree are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureArgs {
    /// Which feature.
    pub op: Op,
    /// Rate of the PCM, Hz.
    pub sample_rate_hz: u32,
    /// Frames and their transform.
    pub stft: StftArgs,
    /// Exponent of the magnitude: 1, 2, or any other above 0 and up to 2.
    pub power: f64,
    /// Bands; absent for [`Op::Stft`].
    pub mel: Option<MelArgs>,
    /// Logarithm of the spectrum or bands.
    pub log: LogArgs,
    /// Cosine transform; present for [`Op::Mfcc`] alone.
    pub mfcc: Option<MfccArgs>,
    /// Orders of deltas appended below the bands: 0, 1 or 2.
    pub delta: u8,
    /// Crop to this many frames, or follow the PCM with zeros until there are so many; absent: as many as there are.
    pub frames: Option<usize>,
    /// Scaling after all that.
    pub normalize: Normalize,
    /// Order of the axes.
    pub dim_order: DimOrder,
    /// Stored type.
    pub dtype: Dtype,
    /// What is made of the values; all of the above is its source's then, but for the stored type. Left out of what
    /// identifies a feature that is stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derived>,
}

impl FeatureArgs {
    /// Rows of the band axis, deltas included.
    pub fn n_bands(&self) -> usize {
        self.n_base_bands() * (1 + usize::from(self.delta))
    }

    /// Rows of the band axis without deltas.
    pub fn n_base_bands(&self) -> usize {
        match (&self.mel, &self.mfcc) {
            (_, Some(mfcc)) => mfcc.n_mfcc,
            (Some(mel), None) => mel.n_mels,
            (None, None) => self.stft.n_bins(),
        }
    }

    /// Frames that are computed of a clip of `n_samples` samples, before the crop; 0 where it is too short for one.
    pub fn n_computed_frames(&self, n_samples: usize) -> usize {
        let n_signal = self.stft.n_signal(n_samples, self.frames);
        self.stft.n_frames(n_signal)
    }

    /// Frames that are stored of a clip of `n_samples` samples; 0 where it is too short for one.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let computed = self.n_computed_frames(n_samples);
        self.frames.map_or(computed, |frames| computed.min(frames))
    }

    /// Shape of the stored tensor of a clip of `n_samples` samples: `[rows, columns]`, or what [`Derived`] says.
    pub fn shape(&self, n_samples: usize) -> Vec<usize> {
        self.dims(self.n_frames(n_samples), |n| n)
    }

    /// The same of all clips, where each has `n_samples` samples (absent: of any number); `None` for a dimension in which
    /// they differ.
    pub fn stored_shape(&self, n_samples: Option<usize>) -> Vec<Option<usize>> {
        // A clip is cropped or padded to `frames`.
        let frames = self.frames.or(n_samples.map(|n| self.n_frames(n)));
        self.dims(frames, Some)
    }

    /// The dimensions in the tensor's order, `frames` among them; `fixed` makes one of a number.
    fn dims<T>(&self, frames: T, fixed: impl Fn(usize) -> T) -> Vec<T> {
        let bands = self.n_bands();
        match &self.derived {
            None => match self.dim_order {
                DimOrder::BandFrame => vec![fixed(bands), frames],
                DimOrder::FrameBand => vec![frames, fixed(bands)],
            },
            Some(Derived::Statistics) => vec![fixed(STATISTICS.len()), fixed(bands)],
            Some(Derived::Picture(picture)) => vec![
                fixed(CHANNELS),
                fixed(picture.height.unwrap_or(bands)),
                picture.width.map_or(frames, fixed),
            ],
        }
    }

    /// Values of that tensor.
    pub fn n_values(&self, n_samples: usize) -> usize {
        self.shape(n_samples).iter().product()
    }

    /// Bytes of that tensor.
    pub fn row_bytes(&self, n_samples: usize) -> usize {
        self.n_values(n_samples) * self.dtype.bytes()
    }

    /// Names of the axes, in the tensor's order.
    pub fn dim_names(&self) -> Vec<&'static str> {
        match (&self.derived, self.dim_order) {
            (None, DimOrder::BandFrame) => vec![self.op.axis(), "frame"],
            (None, DimOrder::FrameBand) => vec!["frame", self.op.axis()],
            (Some(Derived::Statistics), _) => vec!["statistic", self.op.axis()],
            (Some(Derived::Picture(_)), _) => vec!["channel", "row", "column"],
        }
    }

    /// How values become stored bytes. Errors: a [`Fault`] of `dtype` for u8 without a known range.
    pub fn packing(&self) -> Result<Packing, Fault> {
        if self.derived == Some(Derived::Statistics) && self.dtype != Dtype::F32 {
            // A kurtosis may be as large as there are frames, a mean as small as one step of f16.
            return Err(Fault::new("dtype", "allowed for statistics: f32"));
        }

        match (self.dtype, self.known_range()) {
            (Dtype::F16, _) => Ok(Packing::F16),
            (Dtype::F32, _) => Ok(Packing::F32),
            (Dtype::U8, Some((low, high))) => Ok(Packing::U8 { low, high }),
            (Dtype::U8, None) => {
                let problem = "the range is unknown; allowed: f16, f32, or u8 with normalize = \"minmax\" or db with ref = \"max\" and top_db";
                Err(Fault::new("dtype", problem))
            }
        }
    }

    /// Whether an f32 transform would show: in decibels that reach down more than 80 dB, or without end, or whose errors
    /// a lifter multiplies.
    pub fn is_wide(&self) -> bool {
        let lifted = self.mfcc.as_ref().is_some_and(|mfcc| mfcc.lifter > 0.0);
        matches!(self.log, LogArgs::Db(db) if lifted || db.top_db.is_none_or(|top_db| top_db > 80.0))
    }

    /// The range that values cannot leave, where the arguments fix one. Cepstra and deltas are sums of decibels, of any
    /// size.
    fn known_range(&self) -> Option<(f32, f32)> {
        match self.derived {
            None => {}
            Some(Derived::Statistics) => return None,
            Some(Derived::Picture(_)) => return Some((0.0, 1.0)),
        }

        match (self.normalize, self.log, self.op) {
            (Normalize::MinMax, ..) => Some((0.0, 1.0)),
            (
                Normalize::None,
                LogArgs::Db(DbArgs {
                    reference: DbRef::Max,
                    top_db: Some(top),
                    ..
                }),
                Op::Mel | Op::Stft,
            ) if self.delta == 0 => Some((-top as f32, 0.0)),
            _ => None,
        }
    }

    /// Errors: the first [`Fault`], by the name of the option.
    pub fn validate(&self) -> Result<(), Fault> {
        let mut faults = Faults::default();
        self.check(&mut faults);
        faults.into_result()
    }

    /// Everything impossible.
    pub(crate) fn check(&self, faults: &mut Faults) {
        let rate_hz = f64::from(self.sample_rate_hz);
        faults.within(Some(rate_hz), 1.0..=1e6, "sample_rate_hz");
        self.check_parts(faults);

        self.stft.check(faults);
        self.check_power(faults);

        // A delta needs all the frames that it is fitted over.
        let least = if self.delta > 0 { DELTA_WIDTH } else { 1 };
        if let Some(frames) = self.frames {
            faults.count_within(frames, least..=FRAMES_MAX, "frames");
        }

        if let Some(mel) = &self.mel {
            mel.check(self.sample_rate_hz, faults);
            if let Some(mfcc) = &self.mfcc {
                mfcc.check(mel.n_mels, faults);
            }
        }
        faults.within(Some(f64::from(self.delta)), 0.0..=2.0, "delta");
        self.log.check(faults);
        if let Some(derived) = &self.derived {
            derived.check(faults);
        }
        self.check_dtype(faults);
    }

    /// No preset gives an operation parts that it does not have.
    fn check_parts(&self, faults: &mut Faults) {
        let has_its_parts = match self.op {
            Op::Stft => self.mel.is_none() && self.mfcc.is_none(),
            Op::Mel => self.mel.is_some() && self.mfcc.is_none(),
            Op::Mfcc => self.mel.is_some() && self.mfcc.is_some(),
        };
        let problem = "allowed: stft without bands, mel with, or mfcc with both";
        faults.unless(has_its_parts, "op", problem);
    }

    fn check_power(&self, faults: &mut Faults) {
        faults.unless(
            self.power > 0.0 && self.power <= 2.0,
            "power",
            "allowed: above 0, at most 2; 1 is magnitude, 2 power",
        );

        // Decibels are 10 log10 of a power or 20 log10 of a magnitude, and of nothing between.
        let is_decibels = matches!(self.log, LogArgs::Db(_)) || self.op == Op::Mfcc;
        let is_sound = !is_decibels || self.power == 1.0 || self.power == 2.0;
        faults.unless(is_sound, "power", "allowed before decibels: 1 or 2");

        let is_sound = self.log != LogArgs::Whisper || self.power == 2.0;
        faults.unless(is_sound, "power", "allowed before Whisper's logarithm: 2");
    }

    fn check_dtype(&self, faults: &mut Faults) {
        // Powers as they are: neither a logarithm nor a scaling follows, and nothing is made of them.
        let is_linear = self.log == LogArgs::Linear
            && self.normalize == Normalize::None
            && self.derived.is_none();
        let problem = "linear power overflows f16; allowed: f32, or give `db` or normalize";
        faults.unless(!is_linear || self.dtype != Dtype::F16, "dtype", problem);

        if let Err(fault) = self.packing() {
            faults.push(fault);
        }
    }
}
