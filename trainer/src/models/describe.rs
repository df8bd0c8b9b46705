//! What `wavemill-train models` shows: shapes as a row passes, parameters, and what of an architecture is our choice.
//!
//! Everything is read off a model that is built and run once on zeros, so that the table cannot differ from the code.

use serde::Serialize;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::registry::{Entry, TABLE, find};
use super::{Dims, Inputs, ModelError, Net};
use crate::config;

/// Columns of `mfcc` in the published `features.csv`: 7 statistics of 20 coefficients.
const MFCC_COLUMNS: i64 = 140;
/// Artists and albums that a description counts embeddings for: FMA small's, about.
const VOCABULARY: [i64; 2] = [2400, 2800];

/// A stage's name and output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// As the architecture calls it.
    pub name: String,
    /// For one row: without n.
    pub shape: Vec<i64>,
}

/// One architecture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
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
    pub inputs: Vec<Stage>,
    /// The fewest bands and frames.
    pub least: [i64; 2],
    /// Outputs in order, without heads.
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

/// The dimensions of an architecture's document, over which `shape` (bands, frames) and `classes` win.
fn dims_of(entry: &Entry, shape: Option<[i64; 2]>, classes: Option<i64>) -> Dims {
    let [bands, frames, own_classes] = entry.document;
    let [bands, frames] = shape.unwrap_or([bands, frames]);
    let metadata = if entry.needs.metadata() { MFCC_COLUMNS } else { 0 };
    let vocabulary = if entry.needs.ids() { VOCABULARY } else { [0; 2] };
    Dims { bands, frames, metadata, vocabulary, heads: vec![("genre".to_owned(), classes.unwrap_or(own_classes))] }
}

/// `name`, for its document's rows or others.
///
/// # Errors
/// [`ModelError`]: no such name, or rows that do not suit it.
pub fn describe(name: &str, shape: Option<[i64; 2]>, classes: Option<i64>) -> Result<Description, ModelError> {
    let entry = find(name)?;
    describe_for(
        entry,
        &config::Model { name: name.to_owned(), ..config::Model::default() },
        &dims_of(entry, shape, classes),
    )
}

/// All, in the table's order.
///
/// # Errors
/// As [`describe`].
pub fn describe_all(shape: Option<[i64; 2]>, classes: Option<i64>) -> Result<Vec<Description>, ModelError> {
    TABLE.iter().map(|entry| describe(entry.name, shape, classes)).collect()
}

fn describe_for(entry: &Entry, model: &config::Model, dims: &Dims) -> Result<Description, ModelError> {
    let store = VarStore::new(Device::Cpu);
    let net = Net::build(model, dims, &store.root(), None)?;
    let zeros = |shape: &[i64], kind| Tensor::f_zeros(shape, (kind, Device::Cpu));
    let inputs = Inputs {
        spectrogram: zeros(&[1, dims.bands, dims.frames], Kind::Float)?,
        metadata: if entry.needs.metadata() { Some(zeros(&[1, dims.metadata], Kind::Float)?) } else { None },
        ids: if entry.needs.ids() { Some(zeros(&[1, 2], Kind::Int64)?) } else { None },
    };
    let mut stages = Vec::new();
    let _ = tch::no_grad(|| net.walk(&inputs, false, &mut |name, x| stages.push(stage(name, x))))?;
    let heard = entry.needs.spectrogram().then(|| stage("spectrogram", &inputs.spectrogram));
    let others = [("metadata", &inputs.metadata), ("ids", &inputs.ids)];
    let others = others.into_iter().filter_map(|(name, x)| x.as_ref().map(|x| stage(name, x)));
    Ok(Description {
        name: entry.name,
        about: entry.about,
        origin: entry.origin,
        text: entry.text,
        repository: entry.repository,
        our_choice: entry.our_choice,
        inputs: heard.into_iter().chain(others).collect(),
        least: (entry.least)(),
        stages,
        width: net.width(),
        heads: dims.heads.clone(),
        parameters: store.trainable_variables().iter().map(|x| x.numel() as i64).sum(),
        dropout: net.dropout().to_vec(),
    })
}

fn stage(name: &str, x: &Tensor) -> Stage {
    Stage { name: name.to_owned(), shape: x.size().split_off(1) }
}
