//! One type for the arguments of all features: computed from spectra, the sound itself, or pictures. It only dispatches by
//! this kind. Axes and numbers of bands are in [`crate::op`], shapes and types in [`crate::args`], [`crate::sound`] and
//! [`crate::image`].

use serde::Serialize;

use crate::args::FeatureArgs;
use crate::fault::Fault;
use crate::image::ImageArgs;
use crate::onnx::OnnxArgs;
use crate::op::{Input, Op};
use crate::pack::Dtype;
use crate::sound::{LOUDNESS, S16_FULL_SCALE, SoundArgs};
use crate::spec::FeatureSpec;

/// All arguments of a feature, by the kind of its operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TensorArgs {
    /// Computed from spectra, or derived from such a feature.
    Spectral(Box<FeatureArgs>),
    /// The sound of the clip itself.
    Sound(SoundArgs),
    /// Computed from picture files.
    Image(ImageArgs),
    /// Computed by a model.
    Onnx(Box<OnnxArgs>),
}

impl FeatureSpec {
    /// Resolves all options of the feature, whatever its operation. `features` and `sample_rate_hz` are those of
    /// [`FeatureSpec::resolve`].
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values. Features of a parsed recipe have no faults.
    pub fn tensor_args(&self, features: &[Self], sample_rate_hz: u32) -> Result<TensorArgs, Fault> {
        match self.op.input() {
            Input::Spectra(_) | Input::Feature => {
                let args = self.resolve(features, sample_rate_hz)?;
                Ok(TensorArgs::Spectral(Box::new(args)))
            }
            Input::Samples => {
                let args = match self.op {
                    Op::Loudness => SoundArgs::loudness(self.dtype),
                    _ => SoundArgs::pcm(self.dtype),
                };
                args.map(TensorArgs::Sound)
            }
            Input::File => SoundArgs::original(self.dtype).map(TensorArgs::Sound),
            Input::Picture => self.image().map(TensorArgs::Image),
            Input::Model => {
                let args = self.onnx(features, sample_rate_hz)?;
                Ok(TensorArgs::Onnx(Box::new(args)))
            }
        }
    }
}

impl TensorArgs {
    /// Returns the arguments of a feature that is computed from spectra or derived from one; otherwise `None`.
    pub fn spectral(&self) -> Option<&FeatureArgs> {
        match self {
            Self::Spectral(args) => Some(args),
            Self::Sound(_) | Self::Image(_) | Self::Onnx(_) => None,
        }
    }

    /// Returns the type of the stored values.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::Spectral(args) => args.dtype,
            Self::Sound(args) => args.dtype(),
            Self::Image(args) => args.dtype,
            Self::Onnx(args) => args.dtype,
        }
    }

    /// Returns the conversion of stored integers to values: value = stored · step + offset. `None` if the stored
    /// numbers are the values.
    ///
    /// # Errors
    /// A [`Fault`] of `dtype` if the range of the values is unknown.
    pub fn scale(&self) -> Result<Option<(f64, f64)>, Fault> {
        let scale = match self {
            Self::Spectral(args) => args.packing()?.scale(),
            // The bytes of a file have no values.
            Self::Sound(SoundArgs::Loudness | SoundArgs::Original) => return Ok(None),
            Self::Sound(SoundArgs::Pcm { .. }) => (1.0 / S16_FULL_SCALE, 0.0),
            // Stored as floats only.
            Self::Onnx(_) => return Ok(None),
            Self::Image(_) => (1.0 / 255.0, 0.0),
        };
        Ok(match self.dtype() {
            Dtype::U8 | Dtype::S16 => Some(scale),
            Dtype::F16 | Dtype::F32 => None,
        })
    }

    /// Returns the shape of the stored tensors for rows of `n_samples` samples, or of any length if absent. A dimension
    /// that varies between rows is `None`.
    pub fn stored_shape(&self, n_samples: Option<usize>) -> Vec<Option<usize>> {
        match self {
            Self::Spectral(args) => args.stored_shape(n_samples),
            Self::Sound(SoundArgs::Pcm { .. }) => vec![n_samples],
            Self::Sound(SoundArgs::Loudness) => vec![Some(LOUDNESS.len()), Some(1)],
            Self::Sound(SoundArgs::Original) => vec![None],
            Self::Image(args) => args.shape().map(Some).to_vec(),
            Self::Onnx(args) => args.stored_shape(),
        }
    }

    /// Returns the names of the axes in the tensor's order.
    pub fn dim_names(&self) -> Vec<&'static str> {
        match self {
            Self::Spectral(args) => args.dim_names(),
            Self::Sound(args) => args.dim_names(),
            Self::Image(_) => ImageArgs::dim_names().to_vec(),
            Self::Onnx(args) => args.dim_names(),
        }
    }

    /// Returns the shape of the tensor for a row of `n_samples` samples, of which `row_bytes` are stored.
    pub fn shape(&self, n_samples: usize, row_bytes: usize) -> Vec<usize> {
        match self {
            Self::Spectral(args) => args.shape(n_samples),
            Self::Sound(SoundArgs::Pcm { .. }) => vec![n_samples],
            Self::Sound(SoundArgs::Loudness) => vec![LOUDNESS.len(), 1],
            Self::Sound(SoundArgs::Original) => vec![row_bytes],
            Self::Image(args) => args.shape().to_vec(),
            Self::Onnx(args) => args.shape(row_bytes),
        }
    }

    /// Returns the size in bytes of the tensor for a row of `n_samples` samples. It is 0 for the file of a clip, whose
    /// size does not depend on samples.
    pub fn row_bytes(&self, n_samples: usize) -> usize {
        match self {
            Self::Spectral(args) => args.row_bytes(n_samples),
            Self::Sound(SoundArgs::Pcm { dtype }) => n_samples * dtype.bytes(),
            Self::Sound(SoundArgs::Loudness) => LOUDNESS.len() * size_of::<f32>(),
            Self::Sound(SoundArgs::Original) => 0,
            Self::Image(args) => args.row_bytes(),
            Self::Onnx(args) => args.row_bytes(n_samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::Op;

    fn args(op: Op, dtype: Option<Dtype>) -> TensorArgs {
        let spec = options!(op, dtype);
        spec.tensor_args(&[], 8_000).unwrap()
    }

    #[test]
    fn samples_are_scaled_to_full_scale() {
        let pcm = args(Op::Pcm, Some(Dtype::S16));
        assert_eq!(pcm.scale().unwrap(), Some((1.0 / 32_768.0, 0.0)));
        assert_eq!(pcm.stored_shape(Some(7)), [Some(7)]);
        assert_eq!(pcm.stored_shape(None), [None]);
        assert_eq!(pcm.dim_names(), ["sample"]);
        assert_eq!(pcm.shape(7, 14), [7]);
        assert_eq!(pcm.row_bytes(7), 14);
        assert_eq!(args(Op::Pcm, None).scale().unwrap(), None);
        assert_eq!(args(Op::Pcm, None).row_bytes(7), 28);
    }

    #[test]
    fn originals_are_as_long_as_their_files() {
        let original = args(Op::Original, None);
        assert_eq!(original.scale().unwrap(), None);
        assert_eq!(original.stored_shape(Some(7)), [None]);
        assert_eq!(original.dim_names(), ["byte"]);
        assert_eq!(original.shape(7, 100), [100]);
    }

    /// The serialized form of the arguments is part of every `feature_id`.
    #[test]
    fn spectral_arguments_are_serialised_as_they_are() {
        let spectral = args(Op::Mfcc, None);
        let plain = spectral.spectral().unwrap();
        assert_eq!(
            serde_json::to_string(&spectral).unwrap(),
            serde_json::to_string(plain).unwrap()
        );
    }
}
