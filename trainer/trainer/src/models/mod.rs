//! The model architectures, selected by name from one registry.
//!
//! A model is a backbone, which maps the inputs to one vector per row, and a linear head for each target. Tools such as
//! t-SNE use the vectors as well. This module has no loss and no optimiser, and reads no file except initial weights.

pub(crate) mod cells;
mod cnn;
pub(crate) mod describe;
mod fusion;
pub(crate) mod init;
pub(crate) mod layers;
mod mlp;
pub(crate) mod norm;
pub(crate) mod own;
mod parallel;
mod picture;
mod recurrent;
pub(crate) mod registry;
mod resnet;
mod sequence;
#[cfg(test)]
mod tests;
pub(crate) mod walk;
pub(crate) mod window;
mod xception;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor, nn};
use wavemill_schemas::config;
use wavemill_schemas::exit::{self, Classified, PlainError};

use crate::ffi::{FfiError, Group};
use layers::{Bias, Dense, Layer, VarScope};
use walk::Walk;

/// Error of building or running a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The rows are so short along an axis (`bands` or `frames`) that pooling would leave no value.
    #[error("{model} needs at least {least} {axis}, rows have {found}")]
    TooSmall {
        model: &'static str,
        axis: &'static str,
        found: i64,
        least: i64,
    },
    /// Batch norm has no variance, because the rows of a forward pass have one value per channel.
    #[error("batch norm needs more than one value per channel in training")]
    OneValue,
    /// A libtorch operation failed, for example because the device is out of memory.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// A sum over the ranks failed, or a setting of libtorch cannot be changed.
    #[error(transparent)]
    Ffi(#[from] FfiError),
    /// The configuration or the rows do not fit the architecture, or the initial weights cannot be read or do not fit
    /// the model.
    #[error(transparent)]
    Unfit(#[from] PlainError),
}

impl Classified for ModelError {
    fn kind(&self) -> exit::Kind {
        match self {
            Self::TooSmall { .. } | Self::OneValue => exit::Kind::Usage,
            Self::Torch(_) | Self::Ffi(_) => exit::Kind::Failed,
            Self::Unfit(error) => error.kind(),
        }
    }
}

impl ModelError {
    /// Creates [`ModelError::Unfit`].
    pub(crate) fn unfit(message: impl Into<String>) -> Self {
        PlainError::usage(message).into()
    }
}

/// Inputs of a model for a batch of n rows.
#[derive(Debug)]
pub struct Inputs {
    /// Spectrograms `[n, bands, frames]`, f32 or f64, regardless of the stored order of dimensions; or pictures `[n,
    /// channels, bands, frames]`; or `[n, 0, 0]` if the model reads neither.
    pub spectrogram: Tensor,
    /// Standardised metadata `[n, columns]`, from `fma_features` or a feature of statistics; `None` if not needed.
    pub metadata: Option<Tensor>,
    /// `[n, 2]` i64: vocabulary ids of artist and album; 0 for an artist or album not seen in training.
    pub ids: Option<Tensor>,
}

impl Inputs {
    /// Creates one row of zeros with these sizes. Inputs that a model does not have are `None`.
    ///
    /// # Errors
    /// Errors of libtorch, such as lack of memory.
    pub(crate) fn zeros(dims: &Dims) -> Result<Self, TchError> {
        let zeros = |shape: &[i64], kind| Tensor::f_zeros(shape, (kind, Device::Cpu));
        let some =
            |is_read: bool, shape: [i64; 2], kind| is_read.then(|| zeros(&shape, kind)).transpose();
        Ok(Self {
            spectrogram: zeros(&[&[1], &dims.row_shape()[..]].concat(), Kind::Float)?,
            metadata: some(dims.metadata > 0, [1, dims.metadata], Kind::Float)?,
            ids: some(dims.vocabulary != [0; 2], [1, 2], Kind::Int64)?,
        })
    }
}

/// Sizes of the inputs and outputs for which a model is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dims {
    /// Number of bands (mel, MFCC) of a row, or pixel rows of a picture; 0 for statistics and samples.
    pub bands: i64,
    /// Number of frames of a row, or pixel columns of a picture; 0 for statistics and samples.
    pub frames: i64,
    /// Number of channels of a picture; `None` for other rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<i64>,
    /// Number of metadata columns; 0 for a model without metadata.
    pub metadata: i64,
    /// Sizes of the artist and album vocabularies, including the unknown entry; 0 for a model without ids.
    pub vocabulary: [i64; 2],
    /// Name and number of classes of each target, in the order of the heads.
    pub heads: Vec<(String, i64)>,
}

impl Dims {
    /// Returns the shape of one row of [`Inputs::spectrogram`].
    pub(crate) fn row_shape(&self) -> Vec<i64> {
        let channels = self.channels.iter();
        channels
            .chain([&self.bands, &self.frames])
            .copied()
            .collect()
    }
}

/// A network that maps each row to one vector, the input of the heads.
pub(crate) trait Backbone: std::fmt::Debug + Send {
    /// Returns the rows' vectors, `[n, width]`. `train` enables dropout and makes batch norm use the statistics of the
    /// batch. Reports each stage to `walk`; every operation with parameters belongs to a stage.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if an input is missing; [`ModelError::Torch`] or [`ModelError::Ffi`] if libtorch fails.
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError>;
}

/// A backbone and the length of a row's vector.
pub(crate) type BuiltBackbone = Result<(Box<dyn Backbone>, i64), ModelError>;

/// A backbone with a linear head for each target.
///
/// Variables of the heads are `fc.weight` and `fc.bias` for one target, as in torchvision and timm, and `fc.0.weight` …
/// for several targets.
#[derive(Debug)]
pub(crate) struct Net {
    backbone: Box<dyn Backbone>,
    width: i64,
    heads: Vec<Dense>,
    frozen: bool,
    dropout: Vec<f64>,
    layers: Vec<String>,
}

impl Net {
    /// Creates the variables of `model` under `path`, with the path's kind and device. Call `tch::manual_seed` first.
    /// Frozen variables are not part of `VarStore::trainable_variables`.
    ///
    /// # Errors
    /// [`ModelError`]; if the rows do not fit the architecture, before any variable is created.
    pub(crate) fn build(
        model: &config::Model,
        dims: &Dims,
        path: &nn::Path<'_>,
        ranks: Option<&'static Group>,
    ) -> Result<Self, ModelError> {
        let architecture = registry::find(&model.name)?;
        architecture.check(model, dims)?;

        // The backbone draws its weights before the heads: another order changes the weights that a seed gives.
        let scope = VarScope::new(path, model, ranks);
        let (backbone, width) = (architecture.build)(architecture, &scope, dims, model)?;

        // Heads are trained even if the backbone is frozen.
        let top = scope.trained().at(HEAD);
        let mut heads = Vec::new();
        for (i, (_, classes)) in dims.heads.iter().enumerate() {
            let at = match dims.heads.len() {
                1 => top.clone(),
                _ => top.at(i),
            };
            heads.push(Dense::new(&at, width, *classes, Bias::First)?);
        }

        Ok(Self {
            backbone,
            width,
            heads,
            frozen: model.freeze,
            dropout: scope.dropped.take(),
            layers: scope.layers.take(),
        })
    }

    /// Returns the logits `[n, classes]` for each target, in the order of [`Dims::heads`].
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if an input is missing; [`ModelError::Torch`] or [`ModelError::Ffi`] if libtorch fails.
    pub(crate) fn forward(&self, inputs: &Inputs, train: bool) -> Result<Vec<Tensor>, ModelError> {
        Ok(self.answer(inputs, train)?.1)
    }

    /// Returns the rows' vectors `[n, width]`, the input of the heads, and the logits as in [`Self::forward`].
    pub(crate) fn answer(
        &self,
        inputs: &Inputs,
        train: bool,
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        let vectors = self.walk(inputs, train, &mut Walk::default())?;
        let logits = self
            .heads
            .iter()
            .map(|head| head.forward(&vectors, train))
            .collect::<Result<_, _>>()?;
        Ok((vectors, logits))
    }

    /// Returns the rows' vectors `[n, width]`, computed with batch norm's running statistics and without dropout.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if an input is missing; [`ModelError::Torch`] if libtorch fails.
    #[cfg(test)]
    pub(crate) fn embed(&self, inputs: &Inputs) -> Result<Tensor, ModelError> {
        self.walk(inputs, false, &mut Walk::default())
    }

    /// Returns the length of a row's vector.
    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// Returns the first components of the variables' names, in the order in which the model creates them.
    pub(crate) fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Returns the rates of all dropout layers, in the order of the layers.
    pub(crate) fn dropout(&self) -> &[f64] {
        &self.dropout
    }

    /// Computes the rows' vectors. A frozen backbone uses batch norm's running statistics and no dropout.
    fn walk(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        self.backbone.embed(inputs, train && !self.frozen, walk)
    }
}

fn metadata<'a>(inputs: &'a Inputs, model: &str) -> Result<&'a Tensor, ModelError> {
    let metadata = inputs.metadata.as_ref();
    metadata.ok_or_else(|| ModelError::unfit(format!("{model} needs {COLUMNS}")))
}

/// Error text for a model that lacks its metadata input, with the configuration keys that provide the input.
const COLUMNS: &str = "columns: set data.metadata to columns of fma_features, or data.feature to a feature of \
                       statistics";

/// Name of the variable path that contains the heads.
pub(crate) const HEAD: &str = "fc";

/// Reports whether the variable with this name belongs to a head.
pub(crate) fn is_head(variable: &str) -> bool {
    variable.split('.').next() == Some(HEAD)
}
