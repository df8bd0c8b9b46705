//! What a feature is: every number that decides its values, and nothing else.

use serde::{Deserialize, Serialize};

use crate::db::{DbArgs, DbRef, LogArgs};
use crate::delta::WIDTH;
use crate::error::KernelError;
use crate::mel::MelArgs;
use crate::mfcc::MfccArgs;
use crate::normalize::Normalize;
use crate::pack::{Dtype, Packing};
use crate::stft::{Signal, StftArgs};

/// Which feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The spectrum itself.
    Stft,
    /// Mel bands of the spectrum.
    Mel,
    /// Cepstral coefficients of the log mel bands.
    Mfcc,
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
    pub fn parse(text: &str, op: Op) -> Result<Self, KernelError> {
        let band = op.band_name();
        match text
            .split_once(',')
            .map(|(rows, columns)| (rows.trim(), columns.trim()))
        {
            Some((rows, "frame")) if rows == band => Ok(Self::BandFrame),
            Some(("frame", columns)) if columns == band => Ok(Self::FrameBand),
            _ => Err(KernelError::argument(
                "dim_order",
                text,
                format!("\"{band},frame\" or \"frame,{band}\""),
            )),
        }
    }
}

impl Op {
    /// Name of the axis that is not the frames.
    #[must_use]
    pub const fn band_name(self) -> &'static str {
        match self {
            Self::Stft => "bin",
            Self::Mel => "mel",
            Self::Mfcc => "coefficient",
        }
    }
}

/// A feature with nothing left to decide; [`FeatureArgs::resolve`](crate::FeatureArgs::resolve) makes it from a preset.
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
}

/// More frames than this are a mistake: three hours at 10 ms.
const FRAMES_MAX: usize = 1 << 20;

impl FeatureArgs {
    /// Rows of the band axis, deltas included.
    #[must_use]
    pub fn n_bands(&self) -> usize {
        self.n_base_bands() * (1 + usize::from(self.delta))
    }

    /// Rows of the band axis without deltas.
    pub(crate) fn n_base_bands(&self) -> usize {
        match (&self.mel, &self.mfcc) {
            (_, Some(mfcc)) => mfcc.n_mfcc,
            (Some(mel), None) => mel.n_mels,
            (None, None) => self.stft.n_bins(),
        }
    }

    /// Frames that are stored of a clip of `n_samples` samples; 0 where it is too short for one.
    #[must_use]
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let computed = self
            .stft
            .n_frames(Signal::len_of(n_samples, &self.stft, self.frames));
        self.frames.map_or(computed, |frames| computed.min(frames))
    }

    /// `[rows, columns]` of the stored tensor of a clip of `n_samples` samples.
    #[must_use]
    pub fn shape(&self, n_samples: usize) -> [usize; 2] {
        let (bands, frames) = (self.n_bands(), self.n_frames(n_samples));
        match self.dim_order {
            DimOrder::BandFrame => [bands, frames],
            DimOrder::FrameBand => [frames, bands],
        }
    }

    /// Bytes that the CPU holds while it computes a clip of `n_samples` samples, beside the samples and what comes out:
    /// values before they are packed, bands that a cosine transform is made of, and a copy where axes change places.
    #[must_use]
    pub fn scratch_bytes(&self, n_samples: usize) -> usize {
        let n_frames = self
            .stft
            .n_frames(Signal::len_of(n_samples, &self.stft, self.frames));
        let values = self.n_bands() * n_frames;
        let bands = if self.mfcc.is_some() {
            self.mel.as_ref().map_or(0, |mel| mel.n_mels) * n_frames
        } else {
            0
        };
        let swapped = if self.dim_order == DimOrder::FrameBand {
            values
        } else {
            0
        };
        (values + bands.max(swapped)) * size_of::<f32>()
    }

    /// Bytes of the tables and buffers of one plan on the CPU, whatever the clips are: about right, and never much less.
    #[must_use]
    pub fn plan_bytes(&self) -> usize {
        // Window, twiddles, transform and its scratch in double precision, and eight frames of every bin.
        let spectrum = 96 * self.stft.n_fft;
        let n_mels = self.mel.as_ref().map_or(0, |mel| mel.n_mels);
        // Each bin lies under two bands; the cosine transform is made in f64 and kept in f32.
        let bands = 16 * self.stft.n_fft + 64 * n_mels;
        spectrum
            + bands
            + self
                .mfcc
                .as_ref()
                .map_or(0, |mfcc| 12 * mfcc.n_mfcc * n_mels)
    }

    /// Names of the axes, in the tensor's order.
    #[must_use]
    pub const fn dim_names(&self) -> [&'static str; 2] {
        match self.dim_order {
            DimOrder::BandFrame => [self.op.band_name(), "frame"],
            DimOrder::FrameBand => ["frame", self.op.band_name()],
        }
    }

    /// How values become stored bytes. Errors: [`KernelError::Argument`] for u8 without a known range.
    pub fn packing(&self) -> Result<Packing, KernelError> {
        match (self.dtype, self.known_range()) {
            (Dtype::F16, _) => Ok(Packing::F16),
            (Dtype::F32, _) => Ok(Packing::F32),
            (Dtype::U8, Some((low, high))) => Ok(Packing::U8 { low, high }),
            (Dtype::U8, None) => {
                let allowed = "f16 or f32 (u8 needs normalize = \"minmax\", or db with ref = \"max\" and top_db)";
                Err(KernelError::argument("dtype", self.dtype, allowed))
            }
        }
    }

    /// Whether an f32 transform would show: in decibels that reach down more than 80 dB, or without end, or whose errors
    /// a lifter multiplies.
    pub(crate) fn is_wide(&self) -> bool {
        let lifted = self.mfcc.as_ref().is_some_and(|mfcc| mfcc.lifter > 0.0);
        matches!(self.log, LogArgs::Db(db) if lifted || db.top_db.is_none_or(|top_db| top_db > 80.0))
    }

    /// The range that values cannot leave, where the arguments fix one.
    fn known_range(&self) -> Option<(f32, f32)> {
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
            ) if self.delta == 0 && top > 0.0 => Some((-top as f32, 0.0)),
            _ => None,
        }
    }

    /// Errors: [`KernelError::Argument`] that names the key and what is allowed.
    pub fn validate(&self) -> Result<(), KernelError> {
        if !(1..=1_000_000).contains(&self.sample_rate_hz) {
            return Err(KernelError::argument(
                "sample_rate_hz",
                self.sample_rate_hz,
                "from 1 to 1000000 Hz",
            ));
        }
        self.stft.validate()?;
        if !(self.power > 0.0 && self.power <= 2.0) {
            return Err(KernelError::argument(
                "power",
                self.power,
                "above 0 and at most 2 (1 magnitude, 2 power)",
            ));
        }
        self.validate_op()?;
        self.log.validate(self.power)?;
        if self.delta > 2 {
            return Err(KernelError::argument("delta", self.delta, "0, 1 or 2"));
        }
        let least = if self.delta == 0 { 1 } else { WIDTH };
        if let Some(frames) = self
            .frames
            .filter(|frames| !(least..=FRAMES_MAX).contains(frames))
        {
            return Err(KernelError::argument(
                "frames",
                frames,
                format!("from {least} to {FRAMES_MAX}"),
            ));
        }
        self.validate_dtype()
    }

    fn validate_op(&self) -> Result<(), KernelError> {
        match (self.op, &self.mel, &self.mfcc) {
            (Op::Stft, None, None) => Ok(()),
            (Op::Mel, Some(mel), None) => mel.validate(self.sample_rate_hz),
            (Op::Mfcc, Some(mel), Some(mfcc)) => {
                mel.validate(self.sample_rate_hz)?;
                mfcc.validate(mel.n_mels)
            }
            (op, ..) => Err(KernelError::argument(
                "op",
                op.band_name(),
                "stft without bands, mel with, or mfcc with both",
            )),
        }
    }

    fn validate_dtype(&self) -> Result<(), KernelError> {
        let linear = self.log == LogArgs::Linear && self.normalize == Normalize::None;
        if linear && self.dtype == Dtype::F16 {
            let allowed = "f32 for a linear spectrum, which f16 cannot hold";
            return Err(KernelError::argument("dtype", self.dtype, allowed));
        }
        self.packing().map(|_| ())
    }
}
