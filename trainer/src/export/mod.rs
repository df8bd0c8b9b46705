//! Export of a trained model for other programs: its weights as safetensors, or the whole model as TorchScript, with
//! the information needed to prepare its inputs and interpret its outputs.
//!
//! ONNX is not supported: libtorch has no maintained ONNX export from C++.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{CModule, Device, Kind, TchError, Tensor};
use wavemill_schemas::settings;
use wavemill_schemas::{config, exit};

use crate::dataset::InputSpec;
use crate::learner::LearnError;
use crate::models::init::Origin;
use crate::models::registry;
use crate::models::{Dims, Inputs, ModelError};
use crate::part_file::folder_of;
use crate::safetensors;
use crate::trained::{TrainedModel, is_multi};

/// Incremented when the format of [`ModelCard`] changes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Metadata key of the JSON in a safetensors file.
pub(crate) const METADATA_KEY: &str = "wavemill";

/// The error type of exports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("cannot write {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a valid recipe: `fit` writes the recipe of the store to this file")]
    Recipe {
        path: PathBuf,
        source: toml::de::Error,
    },
    #[error(transparent)]
    Learn(#[from] LearnError),
    #[error("libtorch: {0}")]
    Tch(#[from] TchError),
    /// Names and numbers that cannot be represented as JSON.
    #[error("cannot describe the model")]
    Json(#[from] serde_json::Error),
}

impl ExportError {
    /// Returns the exit code of a command that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Learn(error) => error.exit_code(),
            Self::Io { .. } | Self::Recipe { .. } | Self::Tch(_) | Self::Json(_) => exit::FAILED,
        }
    }
}

/// An argument of the exported model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argument {
    /// `spectrogram` as described by [`ModelCard::input`], `metadata`, or `ids` of artist and album.
    pub name: String,
    /// `None` stands for any number of rows.
    pub shape: Vec<Option<i64>>,
    /// Data type: `f32`, `f64` or `i64`.
    pub dtype: String,
}

/// The columns of one target in the model's output `[rows, columns]`, the concatenated logits of all targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub target: String,
    /// First column of the target.
    pub column: usize,
    /// Class of each column, starting at the first column of the target.
    pub classes: Vec<String>,
    /// Whether probabilities are the sigmoid of each logit instead of the softmax over all.
    pub multi_label: bool,
}

/// Description exported with a model. Contains no times and no folders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelCard {
    /// [`FORMAT_VERSION`] of the program that wrote the file.
    pub format_version: u32,
    pub wavemill: String,
    /// Architecture and its settings, as configured.
    pub model: config::Model,
    /// Sizes for which the model was built.
    pub dims: Dims,
    /// Arguments of the model, in order.
    pub arguments: Vec<Argument>,
    /// Columns of the model's output.
    pub outputs: Vec<Output>,
    /// Identity of the feature on which the model was trained.
    pub feature_id: String,
    /// Conversion of stored rows to arguments.
    pub input: InputSpec,
    /// The recipe that creates such rows, for `wavemill features --recipe`.
    pub recipe: Value,
    /// Origin of the initial weights.
    pub origin: Origin,
    /// Number of optimiser steps in training.
    pub step: u64,
    /// blake3 of the configuration.
    pub config_hash: String,
    /// blake3 of the manifest of the training store.
    pub manifest_hash: String,
}

impl ModelCard {
    /// Creates the description of a model, with the recipe in the file `recipe`.
    ///
    /// # Errors
    /// [`ExportError::Io`], [`ExportError::Recipe`].
    pub(crate) fn new(trained: &TrainedModel, recipe: &Path) -> Result<Self, ExportError> {
        let text = settings::read(recipe).map_err(at(recipe))?;
        let recipe: Value = toml::from_str(&text).map_err(|source| ExportError::Recipe {
            path: recipe.to_owned(),
            source,
        })?;

        // File names without their folders: an exported description must not contain paths of this machine.
        let state = trained.state();
        let init = state.config.model.init.as_deref().map(file_name);
        let origin = match &state.origin {
            Origin::Pretrained { file, tensors } => Origin::Pretrained {
                file: file_name(file),
                tensors: *tensors,
            },
            Origin::Scratch => Origin::Scratch,
        };

        let mut outputs = Vec::new();
        let mut column = 0;
        for (target, classes) in &state.classes {
            outputs.push(Output {
                target: target.clone(),
                column,
                classes: classes.clone(),
                multi_label: is_multi(target),
            });
            column += classes.len();
        }

        Ok(Self {
            format_version: FORMAT_VERSION,
            wavemill: env!("CARGO_PKG_VERSION").to_owned(),
            model: config::Model {
                init,
                ..state.config.model.clone()
            },
            dims: state.dims.clone(),
            arguments: arguments(trained)?,
            outputs,
            feature_id: state.feature_id.clone(),
            input: state.input.clone(),
            recipe,
            origin,
            step: state.step,
            config_hash: state.config.hash(),
            manifest_hash: state.manifest_hash.clone(),
        })
    }
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name()
        .map_or_else(|| path.to_owned(), PathBuf::from)
}

/// Writes weights and buffers, with the names that `fit --init` expects and with `card` in the metadata.
///
/// # Errors
/// [`ExportError::Io`]; `out` is then unchanged.
pub(crate) fn write_safetensors(
    trained: &TrainedModel,
    card: &ModelCard,
    out: &Path,
) -> Result<(), ExportError> {
    let metadata = [
        ("format", "pt".to_owned()),
        (METADATA_KEY, serde_json::to_string(card)?),
    ];
    whole(out, |file| {
        safetensors::write(file, &trained.variables(), &metadata)
            .map(drop)
            .map_err(at(out))
    })
}

/// Writes the model as TorchScript, traced on one row of zeros on the CPU, and `card` to a file with the same name plus
/// `.json`. The exported model accepts any number of rows. Weights are constants of the graph.
///
/// # Errors
/// [`ExportError`]; `out` is then unchanged.
pub(crate) fn write_torchscript(
    trained: &TrainedModel,
    card: &ModelCard,
    out: &Path,
) -> Result<PathBuf, ExportError> {
    let module = trace(trained)?;
    let mut beside = out.as_os_str().to_owned();
    beside.push(".json");
    let beside = PathBuf::from(beside);
    let text = serde_json::to_string_pretty(card)? + "\n";

    // The description is written first, so that a model never exists without it.
    whole(&beside, |file| fs::write(file, &text).map_err(at(&beside)))?;
    whole(out, |file| Ok(module.save(file)?))?;
    Ok(beside)
}

fn arguments(trained: &TrainedModel) -> Result<Vec<Argument>, ExportError> {
    let dims = &trained.state().dims;
    let dtype = if trained.forward().kind == Kind::Double {
        "f64"
    } else {
        "f32"
    };
    let needs = registry::find(&trained.state().config.model.name)
        .map_err(LearnError::from)?
        .needs;

    let mut arguments = Vec::new();
    if needs.spectrogram() {
        arguments.push(argument("spectrogram", &dims.row_shape(), dtype));
    }
    if dims.metadata > 0 {
        arguments.push(argument("metadata", &[dims.metadata], dtype));
    }
    if dims.vocabulary != [0; 2] {
        arguments.push(argument("ids", &[2], "i64"));
    }
    Ok(arguments)
}

fn argument(name: &str, axes: &[i64], dtype: &str) -> Argument {
    let mut shape = vec![None];
    shape.extend(axes.iter().copied().map(Some));
    Argument {
        name: name.to_owned(),
        shape,
        dtype: dtype.to_owned(),
    }
}

/// Assigns the tensors `given`, in the order of [`ModelCard::arguments`], to model inputs.
fn inputs(trained: &TrainedModel, arguments: &[Argument], given: &[Tensor]) -> Inputs {
    let dims = &trained.state().dims;
    // A model without a spectrogram argument ignores the spectrogram.
    let spectrogram = named("spectrogram", arguments, given).unwrap_or_else(|| {
        let shape = [vec![1], dims.row_shape()].concat();
        Tensor::zeros(shape, (trained.forward().kind, Device::Cpu))
    });
    Inputs {
        spectrogram,
        metadata: named("metadata", arguments, given),
        ids: named("ids", arguments, given),
    }
}

fn named(name: &str, arguments: &[Argument], given: &[Tensor]) -> Option<Tensor> {
    let index = arguments
        .iter()
        .position(|argument| argument.name == name)?;
    Some(given[index].shallow_clone())
}

/// Returns the concatenated logits of all targets, because a TorchScript method has one result.
fn forward(
    trained: &TrainedModel,
    arguments: &[Argument],
    given: &[Tensor],
) -> Result<Tensor, ModelError> {
    let inputs = inputs(trained, arguments, given);
    tch::no_grad(|| {
        let logits = trained.net().forward(&inputs, false)?;
        Ok(Tensor::f_cat(&logits, 1)?)
    })
}

fn trace(trained: &TrainedModel) -> Result<CModule, ExportError> {
    let arguments = arguments(trained)?;
    // One row: the trace records operations, and none of them depends on the number of rows.
    let mut given = Vec::new();
    for argument in &arguments {
        let kind = if argument.dtype == "i64" {
            Kind::Int64
        } else {
            trained.forward().kind
        };
        let shape: Vec<i64> = argument
            .shape
            .iter()
            .map(|axis| axis.unwrap_or(1))
            .collect();
        given.push(Tensor::f_zeros(shape, (kind, Device::Cpu))?);
    }

    // Run the model once before tracing, so that errors occur here: a trace cannot be aborted.
    let _ = forward(trained, &arguments, &given)?;

    Ok(CModule::create_by_tracing(
        "Wavemill",
        "forward",
        &given,
        &mut |given| {
            let logits = forward(trained, &arguments, given);
            vec![logits.expect("the same rows just went through")]
        },
    )?)
}

/// Calls `write` with a path in a temporary folder next to `out`, then moves the complete file to `out`.
fn whole(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let folder = folder_of(out);
    let name = out
        .file_name()
        .ok_or_else(|| at(out)(io::ErrorKind::InvalidFilename.into()))?;

    // TorchScript stores its file's name in the file, so the temporary file must have the final name.
    let part = tempfile::Builder::new()
        .prefix(".export-")
        .tempdir_in(folder);
    // Only the kind of the error is kept: its message contains the temporary name, which the user did not choose.
    let part = part.map_err(|error| at(out)(error.kind().into()))?;
    let file = part.path().join(name);
    write(&file)?;

    File::open(&file)
        .and_then(|file| file.sync_all())
        .map_err(at(out))?;
    fs::rename(&file, out).map_err(at(out))?;
    // Sync the folder, so that the new name is on disk as well.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(out))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { path, source }
}

impl From<ModelError> for ExportError {
    fn from(error: ModelError) -> Self {
        Self::Learn(error.into())
    }
}
