//! Every architecture by name, from one registry.
//!
//! A model is a backbone (inputs to one vector a row) and a linear head for each target; the vector is also what t-SNE
//! and other tools look at. Knows no loss, no optimiser and no file of its own but weights to start from.

pub(crate) mod cells;
mod cnn;
pub(crate) mod describe;
pub(crate) mod drawing;
mod fusion;
mod genregenie;
pub(crate) mod init;
pub(crate) mod layers;
mod mlp;
pub(crate) mod norm;
mod parallel;
mod picture;
mod recurrent;
pub(crate) mod registry;
mod resnet;
#[cfg(test)]
mod tests;
pub(crate) mod walk;
pub(crate) mod window;
mod xception;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tch::nn::Linear;
use tch::{TchError, Tensor, nn};
use wavemill_schemas::config;

use crate::ffi::{Group, TorchError};
use layers::VarScope;
use walk::Walk;

/// Why a model cannot be built, or cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No such architecture.
    #[error("model.name = {name}: known are {known}")]
    Unknown { name: String, known: String },
    /// Poolings would leave nothing of an axis.
    #[error("{model} needs at least {least} {axis}, rows have {found}")]
    TooSmall {
        model: &'static str,
        /// `bands` or `frames`.
        axis: &'static str,
        /// Rows' length.
        found: i64,
        /// The shortest that works.
        least: i64,
    },
    /// An input that the architecture cannot do without.
    #[error("{model} needs {what}")]
    Needs {
        model: &'static str,
        /// The input, and the key that brings it.
        what: &'static str,
    },
    /// A value that this architecture cannot have.
    #[error("{key} = {found}: {allowed}")]
    Value {
        /// Such as `model.channels`.
        key: &'static str,
        found: String,
        /// What would do.
        allowed: String,
    },
    /// Initial weights cannot be read.
    #[error("model.init = {path}: cannot be read as safetensors")]
    InitRead {
        path: PathBuf,
        /// As libtorch's binding says it.
        source: TchError,
    },
    /// Initial weights as PyTorch saves them: reading such a file can run what it holds.
    #[error(
        "model.init = {path}: a pickle of PyTorch, which is not read here, since it can run what it holds: \
         scripts/convert_weights.py {path} {to} writes its weights as safetensors"
    )]
    InitPickle {
        path: PathBuf,
        /// A name for what is converted.
        to: PathBuf,
    },
    /// Initial weights are of another architecture.
    #[error("model.init = {path} does not fit {faults} tensors: {listed}")]
    InitKeys {
        path: PathBuf,
        faults: usize,
        /// The first five, each with what is wrong.
        listed: String,
    },
    /// libtorch, such as no memory on the device.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// A sum over ranks failed.
    #[error(transparent)]
    Ranks(#[from] TorchError),
}

/// What a model sees of a batch of n rows.
#[derive(Debug)]
pub struct Inputs {
    /// `[n, bands, frames]`, f32 or f64, whatever the stored order of dimensions; `[n, 0, 0]` where the model sees none.
    /// `[n, channels, bands, frames]` of pictures.
    pub spectrogram: Tensor,
    /// `[n, columns]`, standardised; where the model asks for metadata, of `fma_features` or of a feature of statistics.
    pub metadata: Option<Tensor>,
    /// `[n, 2]` i64: vocabulary ids of artist and album, 0 for one not seen in training.
    pub ids: Option<Tensor>,
}

/// What a model is built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dims {
    /// Bands (mel, MFCC) of a row; rows of pixels of a picture; 0 for statistics.
    pub bands: i64,
    /// Frames of a row; columns of pixels of a picture; 0 for statistics.
    pub frames: i64,
    /// Of a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<i64>,
    /// Metadata columns; 0 for none.
    pub metadata: i64,
    /// Artists and albums in the vocabularies, the unknown one included; 0 for none.
    pub vocabulary: [i64; 2],
    /// Name and number of classes of each target, in order.
    pub heads: Vec<(String, i64)>,
}

impl Dims {
    /// Shape of a row of [`Inputs::spectrogram`].
    pub(crate) fn row_shape(&self) -> Vec<i64> {
        let channels = self.channels.iter();
        channels
            .chain([&self.bands, &self.frames])
            .copied()
            .collect()
    }
}

/// Rows to one vector each.
pub(crate) trait Backbone: std::fmt::Debug + Send {
    /// `[n, width]`. `train` turns dropout on and lets batch norm use the batch's own statistics. `walk` is told of each
    /// stage, and every operation with parameters is in one of them.
    ///
    /// # Errors
    /// [`ModelError::Torch`], [`ModelError::Ranks`], [`ModelError::Needs`] where an input is missing.
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError>;

    /// Length of a row's vector.
    fn width(&self) -> i64;
}

/// A backbone with a linear head for each target.
///
/// Heads' variables are `fc.weight` and `fc.bias` for one target, as in torchvision and timm, and `fc.0.weight` … for
/// several.
#[derive(Debug)]
pub(crate) struct Net {
    backbone: Box<dyn Backbone>,
    heads: Vec<Linear>,
    frozen: bool,
    dropout: Vec<f64>,
}

impl Net {
    /// Makes `model`'s variables at `path`, in its kind and on its device; seed with `tch::manual_seed` before. Frozen
    /// variables are not among `VarStore::trainable_variables`.
    ///
    /// # Errors
    /// [`ModelError`], before any variable is made where rows do not suit the architecture.
    pub(crate) fn build(
        model: &config::Model,
        dims: &Dims,
        path: &nn::Path<'_>,
        ranks: Option<&'static Group>,
    ) -> Result<Self, ModelError> {
        let architecture = registry::find(&model.name)?;
        architecture.check(model, dims)?;

        // The backbone draws its weights before the heads: in another order the same seed would give others.
        let scope = VarScope::new(path, model, ranks);
        let backbone = (architecture.build)(&scope, dims, model)?;

        // Heads are trained though a backbone is frozen.
        let top = scope.trained().at(HEAD);
        let heads = match &dims.heads[..] {
            [(_, classes)] => vec![top.linear(backbone.width(), *classes)?],
            heads => heads
                .iter()
                .enumerate()
                .map(|(i, (_, classes))| top.at(i).linear(backbone.width(), *classes))
                .collect::<Result<_, _>>()?,
        };

        Ok(Self {
            backbone,
            heads,
            frozen: model.freeze,
            dropout: scope.dropped(),
        })
    }

    /// Logits `[n, classes]` of each target, in the order of [`Dims::heads`].
    ///
    /// # Errors
    /// [`ModelError::Torch`], [`ModelError::Ranks`], [`ModelError::Needs`].
    pub(crate) fn forward(&self, inputs: &Inputs, train: bool) -> Result<Vec<Tensor>, ModelError> {
        Ok(self.answer(inputs, train)?.1)
    }

    /// The vectors `[n, width]` that the heads see, and the logits that they make of them, as [`Self::forward`].
    pub(crate) fn answer(
        &self,
        inputs: &Inputs,
        train: bool,
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        let vectors = self.walk(inputs, train, &mut Walk::unheard())?;
        let logits = self
            .heads
            .iter()
            .map(|head| layers::dense(head, &vectors))
            .collect::<Result<_, _>>()?;
        Ok((vectors, logits))
    }

    /// The vectors `[n, width]` that the heads see, without dropout and by running statistics.
    ///
    /// # Errors
    /// [`ModelError::Torch`], [`ModelError::Needs`].
    #[cfg(test)]
    pub(crate) fn embed(&self, inputs: &Inputs) -> Result<Tensor, ModelError> {
        self.walk(inputs, false, &mut Walk::unheard())
    }

    /// Length of a row's vector.
    pub(crate) fn width(&self) -> i64 {
        self.backbone.width()
    }

    /// Shares of dropped values in use, in order of places.
    pub(crate) fn dropout(&self) -> &[f64] {
        &self.dropout
    }

    /// A frozen backbone keeps its running statistics, and drops nothing.
    fn walk(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        self.backbone.embed(inputs, train && !self.frozen, walk)
    }
}

fn metadata<'a>(inputs: &'a Inputs, model: &'static str) -> Result<&'a Tensor, ModelError> {
    inputs.metadata.as_ref().ok_or(ModelError::Needs {
        model,
        what: COLUMNS,
    })
}

/// What an architecture of metadata needs, and where it comes from.
const COLUMNS: &str =
    "columns: data.metadata names those of fma_features, data.feature a feature of statistics";

/// Where heads lie.
const HEAD: &str = "fc";

/// Whether a variable belongs to a head.
pub(crate) fn is_head(variable: &str) -> bool {
    variable.split('.').next() == Some(HEAD)
}
