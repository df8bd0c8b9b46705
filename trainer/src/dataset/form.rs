//! From stored bytes to the tensor that a model sees: bands by frames, in f32 or f64, whatever the store's form.
//!
//! Bytes travel to the device as they are stored, and become numbers there: half the bus for f16, a quarter for u8.

use tch::{Device, Kind, Tensor};
use wavemill_schemas::manifest::{FeatureEntry, Scale, Stats};

use super::DatasetError;
use crate::config::Data;

/// Name of the axis of time in a manifest.
const FRAME: &str = "frame";

/// How a feature's rows become tensors.
#[derive(Clone, Debug)]
pub struct Form {
    stored: Kind,
    scale: Option<Scale>,
    /// Axes in the stored order.
    shape: [i64; 2],
    frames_first: bool,
    frames: i64,
    stats: Option<Stats>,
}

impl Form {
    /// The form of `feature` under `data`; `stats` are the manifest's, needed for `data.normalize`.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`]: lengths that differ without `data.frames`, no statistics, a type that is not known.
    pub fn new(feature: &FeatureEntry, data: &Data, stats: Option<&Stats>) -> Result<Self, DatasetError> {
        let unfit = |key, problem: String| DatasetError::Unfit { key, problem };
        let stored = match feature.dtype.as_str() {
            "f16" => Kind::Half,
            "f32" => Kind::Float,
            "u8" => Kind::Uint8,
            other => return Err(unfit("feature", format!("{} holds {other}, not f16, f32 or u8", feature.name))),
        };
        let &[first, second] = feature.shape.as_slice() else {
            return Err(unfit("feature", format!("{} has {} axes, not 2", feature.name, feature.shape.len())));
        };
        let frames_first = feature.dim_names.first().is_some_and(|name| name == FRAME);
        let (bands, stored_frames) = if frames_first { (second, first) } else { (first, second) };
        let bands = bands.ok_or_else(|| unfit("feature", format!("{} differs in bands", feature.name)))?;
        let Some(frames) = data.frames.or(stored_frames) else {
            let problem = format!("rows of {} differ in length: say how many frames each is to have", feature.name);
            return Err(unfit("frames", problem));
        };
        let stats = data.normalize.then(|| stats.filter(|s| s.mean.len() == bands).cloned());
        let stats = match stats {
            Some(None) => {
                return Err(unfit("normalize", "the store has no training rows, so no statistics".to_owned()));
            }
            other => other.flatten(),
        };
        let host_frames = stored_frames.unwrap_or(frames) as i64;
        let shape = if frames_first { [host_frames, bands as i64] } else { [bands as i64, host_frames] };
        Ok(Self { stored, scale: feature.scale, shape, frames_first, frames: frames as i64, stats })
    }

    /// Bytes of a row in a batch's host memory.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        (self.shape[0] * self.shape[1]) as usize * self.stored.elt_size_in_bytes()
    }

    /// Bands of a row.
    #[must_use]
    pub const fn bands(&self) -> i64 {
        self.shape[if self.frames_first { 1 } else { 0 }]
    }

    /// Frames of a row as the model sees it.
    #[must_use]
    pub const fn frames(&self) -> i64 {
        self.frames
    }

    /// Type and shape of `n` rows in host memory.
    #[must_use]
    pub const fn host(&self, n: i64) -> (Kind, [i64; 3]) {
        (self.stored, [n, self.shape[0], self.shape[1]])
    }

    /// `[n, bands, frames]` of `kind` on `device`, in memory of its own.
    ///
    /// Normalised by band first, then cut or zero-padded: padding is the mean, not silence of some level.
    ///
    /// # Errors
    /// [`DatasetError::Torch`]: no memory, or no such device.
    pub fn tensor(&self, host: &Tensor, device: Device, kind: Kind) -> Result<Tensor, DatasetError> {
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
        let stored_frames = x.size()[2];
        if self.frames < stored_frames {
            x = x.f_narrow(2, 0, self.frames)?;
        } else if self.frames > stored_frames {
            x = x.f_constant_pad_nd([0, self.frames - stored_frames])?;
        }
        Ok(x.f_to_kind(kind)?.f_contiguous()?)
    }
}
