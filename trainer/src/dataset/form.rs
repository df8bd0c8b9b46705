//! From stored bytes to the tensor that a model sees: bands by frames, in f32 or f64, whatever the store's form.
//!
//! Bytes travel to the device as they are stored, and become numbers there: half the bus for f16, a quarter for u8.

use tch::{Device, Kind, Tensor};
use wavemill_schemas::manifest::{Scale, Stats};

use super::DatasetError;
use super::spec::InputSpec;

/// Name of the axis of time in a manifest.
const FRAME: &str = "frame";

/// How a feature's rows become tensors.
#[derive(Clone, Debug)]
pub struct Form {
    stored: Kind,
    scale: Option<Scale>,
    bands: usize,
    /// Frames of a row in host memory: the stored ones, or those of the model where rows differ.
    host_frames: usize,
    frames_first: bool,
    is_ragged: bool,
    frames: usize,
    stats: Option<Stats>,
}

impl Form {
    /// The form of a feature of this type and shape; `frames` and statistics are the model's.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`]: a type that is not known, axes that are not bands and frames.
    pub fn new(spec: &InputSpec) -> Result<Self, DatasetError> {
        let feature = &spec.feature;
        let unfit = |problem: String| DatasetError::Unfit { key: "feature", problem };
        let stored = match feature.dtype.as_str() {
            "f16" => Kind::Half,
            "f32" => Kind::Float,
            "u8" => Kind::Uint8,
            other => return Err(unfit(format!("{} holds {other}, not f16, f32 or u8", feature.name))),
        };
        let &[first, second] = feature.shape.as_slice() else {
            return Err(unfit(format!("{} has {} axes, not 2", feature.name, feature.shape.len())));
        };
        let frames_first = feature.dim_names.first().is_some_and(|name| name == FRAME);
        let (bands, stored_frames) = if frames_first { (second, first) } else { (first, second) };
        let bands = bands.ok_or_else(|| unfit(format!("{} differs in bands", feature.name)))?;
        let stats = spec.normalize.clone();
        if stats.as_ref().is_some_and(|s| s.mean.len() != bands || s.std.len() != bands) {
            return Err(unfit(format!("{} has {bands} bands, its statistics another number", feature.name)));
        }
        let (is_ragged, host_frames) = (stored_frames.is_none(), stored_frames.unwrap_or(spec.frames));
        let (scale, frames) = (feature.scale, spec.frames);
        Ok(Self { stored, scale, bands, host_frames, frames_first, is_ragged, frames, stats })
    }

    /// Bytes of a row in a batch's host memory.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.bands * self.host_frames * self.stored.elt_size_in_bytes()
    }

    /// Type of the stored values: half, float or u8.
    #[must_use]
    pub const fn stored(&self) -> Kind {
        self.stored
    }

    /// Whether rows are stored with frames of their own number.
    #[must_use]
    pub const fn is_ragged(&self) -> bool {
        self.is_ragged
    }

    /// Bands of a row.
    #[must_use]
    pub const fn bands(&self) -> i64 {
        self.bands as i64
    }

    /// Frames of a row as the model sees it.
    #[must_use]
    pub const fn frames(&self) -> i64 {
        self.frames as i64
    }

    /// Frames of a row in host memory: as stored, or the model's where rows differ.
    #[must_use]
    pub const fn host_frames(&self) -> usize {
        self.host_frames
    }

    /// Type and shape of `n` rows in host memory.
    #[must_use]
    pub const fn host(&self, n: i64) -> (Kind, [i64; 3]) {
        let (bands, frames) = (self.bands as i64, self.host_frames as i64);
        (self.stored, if self.frames_first { [n, frames, bands] } else { [n, bands, frames] })
    }

    /// Copies a stored row into `slot`, which is [`Self::row_bytes`] long: as it is, or cut or filled up with zero bytes
    /// where rows differ. Gives its frames there.
    ///
    /// # Errors
    /// What is wrong with the row's length.
    pub fn fill(&self, value: &[u8], slot: &mut [u8]) -> Result<usize, String> {
        let frame_bytes = self.bands * self.stored.elt_size_in_bytes();
        let stored = value.len() / frame_bytes;
        let fits = if self.is_ragged { value.len().is_multiple_of(frame_bytes) } else { value.len() == slot.len() };
        if !fits {
            return Err(format!("a row of {} bytes, not {}", value.len(), slot.len()));
        }
        let frames = stored.min(self.host_frames);
        if frames == stored && frames == self.host_frames {
            slot.copy_from_slice(value);
            return Ok(frames);
        }
        slot.fill(0);
        // One run of bytes for frames by bands, one a band for bands by frames.
        let runs = if self.frames_first { 1 } else { self.bands };
        let [from, to, taken] = [stored, self.host_frames, frames].map(|frames| frames * frame_bytes / runs);
        for (value, slot) in value.chunks_exact(from.max(1)).zip(slot.chunks_exact_mut(to)) {
            slot[..taken].copy_from_slice(&value[..taken]);
        }
        Ok(frames)
    }

    /// `[n, bands, frames]` of `kind` on `device`, in memory of its own.
    ///
    /// `filled`: what [`Self::fill`] gave for each row, where rows differ. Normalised by band first, then cut or
    /// zero-padded: padding is the mean, not silence of some level.
    ///
    /// # Errors
    /// [`DatasetError::Torch`]: no memory, or no such device.
    pub fn tensor(&self, host: &Tensor, filled: &[i64], device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
        let work = if kind == Kind::Double { kind } else { Kind::Float };
        // Never a view of `host`, whose memory is filled anew later; and moved before it is made wider.
        let moved = if device == Device::Cpu { host.shallow_clone() } else { host.f_to(device)? };
        let mut x = moved.f_to_dtype(work, false, device == Device::Cpu)?;
        if let Some(Scale { factor, offset }) = self.scale {
            x = x.f_mul_scalar_(factor)?.f_add_scalar_(offset)?;
        }
        if self.frames_first {
            x = x.f_transpose(1, 2)?;
        }
        if let Some(stats) = &self.stats {
            let bands = |values: &[f64]| -> Result<Tensor, DatasetError> {
                let bands = Tensor::f_from_slice(values)?.f_view([1, -1, 1])?;
                Ok(bands.f_to_device(device)?.f_to_kind(work)?)
            };
            // A band that never varied says nothing: it becomes 0 and not infinite.
            let std: Vec<f64> = stats.std.iter().map(|&s| if s > 0.0 { s } else { 1.0 }).collect();
            x = x.f_sub_(&bands(&stats.mean)?)?.f_div_(&bands(&std)?)?;
        }
        if filled.iter().any(|&frames| frames < self.host_frames as i64) {
            let ends = Tensor::f_from_slice(filled)?.f_view([-1, 1, 1])?.f_to_device(device)?;
            let frame = Tensor::f_arange(self.host_frames as i64, (Kind::Int64, device))?;
            x = x.f_masked_fill_(&frame.f_ge_tensor(&ends)?, 0.0)?;
        }
        if self.frames < self.host_frames {
            x = x.f_narrow(2, 0, self.frames())?;
        } else if self.frames > self.host_frames {
            x = x.f_constant_pad_nd([0, (self.frames - self.host_frames) as i64])?;
        }
        Ok(x.f_to_kind(kind)?.f_contiguous()?)
    }
}
