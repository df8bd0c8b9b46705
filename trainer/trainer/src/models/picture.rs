//! Conversion of spectrograms and pictures to the input of networks designed for pictures.

use tch::Tensor;

use super::ModelError;
use super::layers::Layer;
use super::walk::Operation;
use crate::ffi;

/// Expands a spectrogram `[n, bands, frames]` to `[n, channels, bands, frames]` with equal channels. Returns a picture
/// unchanged, with its own channels.
fn as_picture(spectrogram: &Tensor, channels: i64) -> Result<Tensor, ModelError> {
    if spectrogram.dim() == 4 {
        return Ok(spectrogram.shallow_clone());
    }
    // The result is a view, so the repeated channels take no additional memory.
    Ok(spectrogram
        .f_unsqueeze(1)?
        .f_expand([-1, channels, -1, -1], false)?)
}

/// Layer that makes a picture of a spectrogram. A picture keeps its own channels.
#[derive(Debug)]
pub(crate) struct AsPicture {
    /// Number of channels, which are equal until they are scaled.
    pub channels: i64,
    pub scale: Option<Scale>,
}

impl Layer for AsPicture {
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor, ModelError> {
        let picture = as_picture(x, self.channels)?;
        match &self.scale {
            Some(scale) => scale.apply(&picture),
            None => Ok(picture),
        }
    }

    /// Descriptions are those of models for spectrograms.
    fn operations(&self) -> Vec<Operation> {
        if self.channels == 1 {
            return Vec::new();
        }
        let settings = format!("repeated {} times", self.channels);
        vec![Operation::fixed("channel", settings)]
    }
}

/// Mean and deviation of the pictures on which published weights were trained, to scale rows alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Mean of each colour channel, for values in 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each colour channel.
    pub deviation: [f64; 3],
}

impl Scale {
    /// Computes (x − mean) / deviation for a picture `[n, 3, …]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let mean = by_channel(&self.mean, x)?;
        let deviation = by_channel(&self.deviation, x)?;
        Ok(x.f_sub(&mean)?.f_div(&deviation)?)
    }
}

/// Returns a tensor with one value per channel and the kind and device of `x`, in a shape that broadcasts over `[n, 3,
/// bands, frames]`.
fn by_channel(values: &[f64; 3], x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(ffi::send(&Tensor::f_from_slice(values)?, x.device())?
        .f_to_kind(x.kind())?
        .f_view([1, 3, 1, 1])?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_picture_keeps_its_colours() {
        let picture = Tensor::rand([2, 3, 4, 5], (Kind::Double, Device::Cpu));
        assert!(as_picture(&picture, 1).unwrap().equal(&picture));
        let layer = AsPicture {
            channels: 3,
            scale: None,
        };
        assert!(layer.forward(&picture, false).unwrap().equal(&picture));
    }

    #[test]
    fn channels_are_copies_until_they_are_scaled() {
        let x = as_picture(
            &Tensor::full([2, 4, 5], 0.5, (Kind::Double, Device::Cpu)),
            3,
        )
        .unwrap();
        assert_eq!(x.size(), [2, 3, 4, 5]);

        let scale = Scale {
            mean: [0.5, 0.25, 0.0],
            deviation: [1.0, 0.5, 2.0],
        };
        let y = scale.apply(&x).unwrap();
        assert_eq!(
            [0, 1, 2].map(|c| y.double_value(&[1, c, 3, 4])),
            [0.0, 0.5, 0.25]
        );
    }
}
