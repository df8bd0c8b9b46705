//! Exports a trained model for other programs: its weights as safetensors, or the whole model as TorchScript, with the
//! information needed to prepare the inputs and interpret the outputs.
//!
//! ONNX is not supported: libtorch has no maintained ONNX export from C++.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;
use wavemill_schemas::config;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::settings;

use crate::dataset::InputSpec;
use crate::error::{TrainError, cannot_write};
use crate::models::init::Origin;
use crate::models::registry;
use crate::models::{Dims, Inputs, ModelError};
use crate::safetensors;
use crate::trained::{TrainedModel, is_multi};
use wavemill_schemas::durable::{TemporaryPath, folder_of, if_there};

/// Format version of [`ModelCard`]. Increase it when the format changes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Key in a safetensors file's metadata under which the JSON of [`ModelCard`] is stored.
pub(crate) const METADATA_KEY: &str = "wavemill";

/// An argument of the exported model's forward pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Argument {
    /// Name: `spectrogram` as described by [`ModelCard::input`], `metadata`, or `ids` of artist and album.
    pub name: String,
    /// Length of each axis. `None` stands for any number of rows.
    pub shape: Vec<Option<i64>>,
    /// Data type of the tensor: `f32`, `f64` or `i64`.
    pub dtype: String,
}

/// Columns of one target in the output `[rows, columns]` of the model, the concatenated logits of all targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub target: String,
    /// Index of the target's first column.
    pub column: usize,
    /// Name of the class of each column, beginning with the target's first column.
    pub classes: Vec<String>,
    /// True if probabilities are the sigmoid of each logit instead of the softmax over all logits of the target.
    pub multi_label: bool,
    /// Number by which logits are divided first. Missing without temperature scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// Description of a model, exported together with it. Contains no times and no paths of folders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelCard {
    /// [`FORMAT_VERSION`] of the program that exported the model.
    pub format_version: u32,
    pub wavemill: String,
    /// Architecture and its settings, as configured for the run.
    pub model: config::Model,
    /// Sizes of inputs and outputs for which the model was built.
    pub dims: Dims,
    /// Arguments of the model's forward pass, in order.
    pub arguments: Vec<Argument>,
    /// Columns of the model's output, one entry per target.
    pub outputs: Vec<Output>,
    /// Id of the feature on which the model was trained.
    pub feature_id: String,
    /// Conversion of a store's rows to arguments of the model.
    pub input: InputSpec,
    /// Recipe with which `wavemill features --recipe` creates input rows for the model.
    pub recipe: Value,
    /// Origin of the weights with which training began.
    pub origin: Origin,
    /// Number of optimiser steps with which the model was trained.
    pub step: u64,
    /// blake3 hash of the run's configuration.
    pub config_hash: String,
    /// blake3 hash of the manifest of the store used for training.
    pub manifest_hash: String,
}

impl ModelCard {
    /// Creates the description of a trained model, including the recipe in the file `recipe`.
    ///
    /// # Errors
    /// [`TrainError::Other`] if the recipe cannot be read or parsed.
    pub(crate) fn new(trained: &TrainedModel, recipe: &Path) -> Result<Self, TrainError> {
        let text = settings::read(recipe).map_err(cannot_write(recipe))?;
        let recipe: Value = toml::from_str(&text).map_err(|error| {
            PlainError::failed(format!(
                "{} is not a valid recipe: `fit` writes the recipe of the store to this file",
                recipe.display()
            ))
            .caused_by(error)
        })?;

        // Keep only the names of weight files: an exported description must not contain folders of this machine.
        let state = &trained.state;
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
        for (index, (target, classes)) in state.classes.iter().enumerate() {
            outputs.push(Output {
                target: target.clone(),
                column,
                classes: classes.clone(),
                multi_label: is_multi(target),
                temperature: state.temperatures.get(index).copied(),
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

/// Writes a model's weights and buffers, named as `fit --init` expects, to a safetensors file with `card` as metadata.
///
/// # Errors
/// [`TrainError::Other`] if the file cannot be written; `out` is then unchanged.
pub(crate) fn write_safetensors(
    trained: &TrainedModel,
    card: &ModelCard,
    out: &Path,
) -> Result<(), TrainError> {
    let metadata = [
        ("format", "pt".to_owned()),
        (METADATA_KEY, serde_json::to_string(card).map_err(no_json)?),
    ];
    let part = Part::write(out, |file| {
        safetensors::write(file, &trained.variables(), &metadata)
            .map(drop)
            .map_err(cannot_write(out))
    })?;
    Ok(part.finish(out)?)
}

/// Writes the model as TorchScript, traced on one row of zeros on the CPU, and `card` to a file with the same name plus
/// `.json`. The exported model accepts any number of rows. The weights are constants in its graph.
///
/// # Errors
/// [`TrainError`] if tracing or writing fails; `out` is then unchanged.
pub(crate) fn write_torchscript(
    trained: &TrainedModel,
    card: &ModelCard,
    out: &Path,
) -> Result<PathBuf, TrainError> {
    let module = trace(trained)?;
    let mut beside = out.as_os_str().to_owned();
    beside.push(".json");
    let beside = PathBuf::from(beside);
    let text = serde_json::to_string_pretty(card).map_err(no_json)? + "\n";

    let write = |file: &Path| fs::write(file, &text).map_err(cannot_write(&beside));
    let description = Part::write(&beside, write)?;
    // libtorch's error does not name the file of the user.
    let model = Part::write(out, |file| module.save(file).map_err(cannot_write(out)))?;

    // A model never exists without its description, nor with that of another model.
    if_there(fs::remove_file(out)).map_err(cannot_write(out))?;
    description.finish(&beside)?;
    model.finish(out)?;
    Ok(beside)
}

fn arguments(trained: &TrainedModel) -> Result<Vec<Argument>, ModelError> {
    let dims = &trained.state.dims;
    let dtype = if trained.forward.kind == Kind::Double {
        "f64"
    } else {
        "f32"
    };
    let needs = registry::find(&trained.state.config.model.name)?.needs;

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

/// Converts the tensors `given`, which are in the order of [`ModelCard::arguments`], to the inputs of the model.
fn inputs(trained: &TrainedModel, arguments: &[Argument], given: &[Tensor]) -> Inputs {
    let dims = &trained.state.dims;
    // A model without a spectrogram argument never reads this tensor of zeros.
    let spectrogram = named("spectrogram", arguments, given).unwrap_or_else(|| {
        let shape = [vec![1], dims.row_shape()].concat();
        Tensor::zeros(shape, (trained.forward.kind, Device::Cpu))
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

/// Returns the logits of all targets in one tensor, because a TorchScript method has a single result.
fn forward(
    trained: &TrainedModel,
    arguments: &[Argument],
    given: &[Tensor],
) -> Result<Tensor, ModelError> {
    let inputs = inputs(trained, arguments, given);
    tch::no_grad(|| {
        let logits = trained.net.forward(&inputs, false)?;
        Ok(Tensor::f_cat(&logits, 1)?)
    })
}

fn trace(trained: &TrainedModel) -> Result<CModule, TrainError> {
    let arguments = arguments(trained)?;
    // Trace with one row: the recorded operations do not depend on the number of rows.
    let mut given = Vec::new();
    for argument in &arguments {
        let kind = if argument.dtype == "i64" {
            Kind::Int64
        } else {
            trained.forward.kind
        };
        let shape: Vec<i64> = argument
            .shape
            .iter()
            .map(|axis| axis.unwrap_or(1))
            .collect();
        given.push(Tensor::f_zeros(shape, (kind, Device::Cpu))?);
    }

    // Run the model once before tracing, to report errors here: an error within a trace would be a panic.
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

/// A complete file in a temporary folder, which is removed when this value is dropped.
struct Part {
    folder: TempDir,
    file: TemporaryPath,
}

impl Part {
    /// Calls `write` with a path in a temporary folder next to `out`, and syncs the file.
    fn write(
        out: &Path,
        write: impl FnOnce(&Path) -> Result<(), PlainError>,
    ) -> Result<Self, PlainError> {
        let name = out
            .file_name()
            .ok_or_else(|| cannot_write(out)(io::Error::from(io::ErrorKind::InvalidFilename)))?;

        // TorchScript stores the file's name in the file, so the temporary file already has the final name.
        let folder = tempfile::Builder::new()
            .prefix(".export-")
            .tempdir_in(folder_of(out));
        // Only the kind of the error is reported, because its message contains the name of the temporary folder.
        let folder = folder.map_err(|error| cannot_write(out)(io::Error::from(error.kind())))?;
        let file = folder.path().join(name);
        write(&file)?;
        File::open(&file)
            .and_then(|file| file.sync_all())
            .map_err(cannot_write(out))?;
        Ok(Self {
            folder,
            file: TemporaryPath::new(file),
        })
    }

    /// Moves the file to `out`, where it survives a power failure.
    fn finish(self, out: &Path) -> Result<(), PlainError> {
        self.file.persist(out).map_err(cannot_write(out))?;
        drop(self.folder);
        Ok(())
    }
}

/// Creates the error for a description of a model that cannot be represented as JSON.
fn no_json(error: serde_json::Error) -> PlainError {
    PlainError::failed("cannot describe the model").caused_by(error)
}
