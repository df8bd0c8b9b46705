//! What `wavemill-train models` shows: stages with their shapes and operations, branches, parameters, and what of an
//! architecture is our choice.
//!
//! Everything is read off a model that is built and run once on zeros, so that the table cannot differ from the code.

use serde::Serialize;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use wavemill_schemas::config;

use super::registry::{Architecture, find};
use super::walk::{Branch, Stage, Walk};
use super::{Dims, Inputs, ModelError, Net};

/// Columns of `mfcc` in the published `features.csv`: 7 statistics of 20 coefficients.
const MFCC_COLUMNS: i64 = 140;
/// Artists and albums that a description counts embeddings for: FMA small's, about.
const VOCABULARY: [i64; 2] = [2400, 2800];

/// What a model sees of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Input {
    /// `spectrogram`, `metadata` or `ids`.
    pub name: &'static str,
    /// For one row: without n.
    pub shape: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Description {
    /// As in `model.name`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// The document that it is of.
    pub origin: &'static str,
    /// What the document's text says.
    pub text: &'static str,
    /// What its authors' repository says.
    pub repository: &'static str,
    /// What neither says, or what differs here.
    pub our_choice: &'static str,
    /// Inputs of one row.
    pub inputs: Vec<Input>,
    /// The fewest bands and frames.
    pub least: [i64; 2],
    /// Ways that lie side by side; none where one stage follows another. The first stage without a branch joins them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Branch>,
    /// In order, without heads.
    pub stages: Vec<Stage>,
    /// Length of the vector that heads see.
    pub width: i64,
    /// Targets with their classes.
    pub heads: Vec<(String, i64)>,
    /// Numbers that training changes, heads included.
    pub parameters: i64,
    /// Shares of dropped values, in order of places.
    pub dropout: Vec<f64>,
}

impl Description {
    /// Numbers of a head that training changes: a weight for each value of the vector and a bias, for every class.
    pub(crate) const fn head_parameters(&self, classes: i64) -> i64 {
        (self.width + 1) * classes
    }
}

/// Digits in threes.
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

/// The dimensions of an architecture's document, over which `shape` (bands, frames) and `classes` win.
fn dims_of(architecture: &Architecture, shape: Option<[i64; 2]>, classes: Option<i64>) -> Dims {
    let [bands, frames, own_classes] = architecture.document;
    let [bands, frames] = shape.unwrap_or([bands, frames]);
    let metadata = if architecture.needs.metadata() {
        MFCC_COLUMNS
    } else {
        0
    };
    let vocabulary = if architecture.needs.ids() {
        VOCABULARY
    } else {
        [0; 2]
    };

    Dims {
        bands,
        frames,
        channels: None,
        metadata,
        vocabulary,
        heads: vec![("genre".to_owned(), classes.unwrap_or(own_classes))],
    }
}

/// `name`, for its document's rows or others.
///
/// # Errors
/// [`ModelError`]: no such name, or rows that do not suit it.
pub(crate) fn describe(
    name: &str,
    shape: Option<[i64; 2]>,
    classes: Option<i64>,
) -> Result<Description, ModelError> {
    let architecture = find(name)?;
    describe_for(
        architecture,
        &config::Model {
            name: name.to_owned(),
            ..config::Model::default()
        },
        &dims_of(architecture, shape, classes),
    )
}

fn describe_for(
    architecture: &Architecture,
    model: &config::Model,
    dims: &Dims,
) -> Result<Description, ModelError> {
    let store = VarStore::new(Device::Cpu);
    let net = Net::build(model, dims, &store.root(), None)?;

    // One row is enough, since nothing is trained: batch norm goes by its running statistics.
    let inputs = Inputs {
        spectrogram: zeros(&[1, dims.bands, dims.frames], Kind::Float)?,
        metadata: if architecture.needs.metadata() {
            Some(zeros(&[1, dims.metadata], Kind::Float)?)
        } else {
            None
        },
        ids: if architecture.needs.ids() {
            Some(zeros(&[1, 2], Kind::Int64)?)
        } else {
            None
        },
    };
    let mut shown_inputs = Vec::new();
    // The batch has a spectrogram in any case; shown is what the architecture looks at.
    if architecture.needs.spectrogram() {
        shown_inputs.push(input("spectrogram", &inputs.spectrogram));
    }
    shown_inputs.extend(inputs.metadata.iter().map(|x| input("metadata", x)));
    shown_inputs.extend(inputs.ids.iter().map(|x| input("ids", x)));

    // The same walk as in training, so that no stage is described that a row does not pass.
    let mut walk = Walk::recorded();
    let _ = tch::no_grad(|| net.walk(&inputs, false, &mut walk))?;
    let walked = walk.into_record();

    Ok(Description {
        name: architecture.name,
        about: architecture.about,
        origin: architecture.origin,
        text: architecture.text,
        repository: architecture.repository,
        our_choice: architecture.our_choice,
        inputs: shown_inputs,
        least: (architecture.least)(),
        branches: walked.branches,
        stages: walked.stages,
        width: net.width(),
        heads: dims.heads.clone(),
        parameters: store
            .trainable_variables()
            .iter()
            .map(|x| x.numel() as i64)
            .sum(),
        dropout: net.dropout().to_vec(),
    })
}

fn zeros(shape: &[i64], kind: Kind) -> Result<Tensor, ModelError> {
    Ok(Tensor::f_zeros(shape, (kind, Device::Cpu))?)
}

fn input(name: &'static str, x: &Tensor) -> Input {
    Input {
        name,
        shape: x.size().split_off(1),
    }
}
