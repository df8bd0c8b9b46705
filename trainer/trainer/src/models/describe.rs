//! The descriptions shown by `wavemill train models`: stages with their shapes and operations, branches, parameters,
//! and the sources of the architecture.
//!
//! A description is read from a model that is built and run once on zeros, so it cannot differ from the code.

use serde::Serialize;
use tch::nn::VarStore;
use tch::{Device, Tensor};
use wavemill_schemas::config;

use super::registry::{Architecture, find};
use super::walk::{Branch, Stage, Walk};
use super::{Dims, Inputs, ModelError, Net};

/// Number of `mfcc` columns in the published `features.csv`: 7 statistics of 20 coefficients.
const MFCC_COLUMNS: i64 = 140;
/// Sizes of the artist and album vocabularies assumed in descriptions, about those of the data set FMA small.
const VOCABULARY: [i64; 2] = [2400, 2800];

/// An input that a model reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Input {
    /// Name of the input: `spectrogram`, `metadata` or `ids`.
    pub name: &'static str,
    /// Shape of the input for one row, without n.
    pub shape: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Description {
    /// Name of the architecture, as in `model.name`.
    pub name: &'static str,
    /// One-line description of the architecture.
    pub about: &'static str,
    /// The document that describes the architecture.
    pub origin: &'static str,
    /// Properties of the architecture that the document's text gives.
    pub text: &'static str,
    /// Properties of the architecture that are taken from its authors' repository.
    pub repository: &'static str,
    /// Properties that neither document nor repository gives, or that differ from them.
    pub our_choice: &'static str,
    /// Inputs of the model for one row.
    pub inputs: Vec<Input>,
    /// Minimum number of bands and frames of a row.
    pub least: [i64; 2],
    /// Parallel branches; empty if the stages form one sequence. The first stage after the branches joins them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Branch>,
    /// Stages in order of execution, without the heads.
    pub stages: Vec<Stage>,
    /// Length of the vector that the heads receive for each row.
    pub width: i64,
    /// Name and number of classes of each target.
    pub heads: Vec<(String, i64)>,
    /// Number of trainable parameters, including the heads.
    pub parameters: i64,
    /// Numbers of filters of the convolutions that `model.filters` sets, in order; empty if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<i64>,
    /// Sizes of the hidden layers that `model.hidden` sets, in order; empty if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<i64>,
    /// Dropout rates of all dropout layers, in order of execution.
    pub dropout: Vec<f64>,
}

impl Description {
    /// Returns a head's number of parameters: for each class, one weight per value of the input vector and one bias.
    pub(crate) const fn head_parameters(&self, classes: i64) -> i64 {
        (self.width + 1) * classes
    }
}

/// Formats a number with commas between groups of three digits.
pub(crate) fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns the dimensions used in an architecture's document. `shape` (bands, frames) and `classes` override them.
fn dims_of(architecture: &Architecture, shape: Option<[i64; 2]>, classes: Option<i64>) -> Dims {
    let [bands, frames, own_classes] = architecture.document;
    let [bands, frames] = shape.unwrap_or([bands, frames]);
    let needs = architecture.needs;

    Dims {
        bands,
        frames,
        channels: None,
        metadata: if needs.metadata() { MFCC_COLUMNS } else { 0 },
        vocabulary: if needs.ids() { VOCABULARY } else { [0; 2] },
        heads: vec![("genre".to_owned(), classes.unwrap_or(own_classes))],
    }
}

/// Describes the architecture that `model` configures, for the dimensions in its document or for the given ones.
///
/// # Errors
/// [`ModelError`] if the name is unknown, or configuration or dimensions do not fit the architecture.
pub(crate) fn describe(
    model: &config::Model,
    shape: Option<[i64; 2]>,
    classes: Option<i64>,
) -> Result<Description, ModelError> {
    let architecture = find(&model.name)?;
    let [mut filters, mut hidden] = architecture.widths();
    for (own, configured) in [(&mut filters, &model.filters), (&mut hidden, &model.hidden)] {
        if !configured.is_empty() {
            own.clone_from(configured);
        }
    }
    let dims = dims_of(architecture, shape, classes);
    let store = VarStore::new(Device::Cpu);
    let net = Net::build(model, &dims, &store.root(), None)?;

    // One row is sufficient, since batch norm uses its running statistics outside of training.
    let inputs = Inputs::zeros(&dims)?;
    let mut shown_inputs = Vec::new();
    // The batch always contains a spectrogram; the description lists it only if the architecture reads it.
    if architecture.needs.spectrogram() {
        shown_inputs.push(input("spectrogram", &inputs.spectrogram));
    }
    shown_inputs.extend(inputs.metadata.iter().map(|x| input("metadata", x)));
    shown_inputs.extend(inputs.ids.iter().map(|x| input("ids", x)));

    // Use the forward pass of training, so that the description contains exactly the stages that are executed.
    let mut walk = Walk::enabled();
    let _ = tch::no_grad(|| net.walk(&inputs, false, &mut walk))?;

    Ok(Description {
        name: architecture.name,
        about: architecture.about,
        origin: architecture.origin,
        text: architecture.text,
        repository: architecture.repository,
        our_choice: architecture.our_choice,
        inputs: shown_inputs,
        least: architecture.least(),
        branches: walk.branches,
        stages: walk.stages,
        width: net.width(),
        heads: dims.heads,
        parameters: store
            .trainable_variables()
            .iter()
            .map(|x| x.numel() as i64)
            .sum(),
        filters,
        hidden,
        dropout: net.dropout().to_vec(),
    })
}

fn input(name: &'static str, x: &Tensor) -> Input {
    Input {
        name,
        shape: x.size().split_off(1),
    }
}
