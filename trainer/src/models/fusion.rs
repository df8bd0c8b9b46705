//! `fusion`, the further work of document 002: what is heard beside what is known of a track.

use tch::Tensor;

use super::layers::{DenseRelu, Initializer, VarScope};
use super::recurrent::{CRNN_SIMPLE, ConvRecurrent};
use super::walk::{Operation, OperationKind, Walk};
use super::{Backbone, Dims, Inputs, ModelError, metadata};

/// Values of an artist's or album's vector.
const EMBEDDED: i64 = 16;
const DENSE: i64 = 128;
/// By column of the ids.
const ID_NAMES: [&str; 2] = ["artist", "album"];

/// A spectrogram's branch (convolutions and an LSTM, as `crnn-simple`), metadata, and artist and album as vectors, side
/// by side into a dense layer. Artist and album take part where the vocabulary has any.
///
/// `[n, bands, frames]` → 64; `[n, columns]` as it is; `[n, 2]` ids → 16 each, all 0 for the unknown id 0, which stays so
/// in training → dense 128.
#[derive(Debug)]
pub(crate) struct Fusion {
    branch: ConvRecurrent,
    /// Column of the ids, and a vector for each.
    vectors: Vec<(usize, Tensor)>,
    dense: DenseRelu,
}

impl Fusion {
    pub(crate) fn new(scope: &VarScope<'_>, dims: &Dims) -> Result<Self, ModelError> {
        let branch = ConvRecurrent::new(&scope.at("branch"), dims, &CRNN_SIMPLE)?;

        let mut vectors = Vec::new();
        for (column, name) in ID_NAMES.into_iter().enumerate() {
            let entries = dims.vocabulary[column];
            if entries < 1 {
                continue;
            }

            let table = scope.at(name).variable(
                "weight",
                &[entries, EMBEDDED],
                Initializer::Normal(0.1),
            )?;
            // An artist that training has not seen says nothing. `f_embedding` below gives row 0 no gradient.
            let _ = tch::no_grad(|| table.f_get(0)?.f_zero_())?;
            vectors.push((column, table));
        }

        let values = branch.width() + dims.metadata + EMBEDDED * vectors.len() as i64;
        Ok(Self {
            branch,
            vectors,
            dense: DenseRelu::new(&scope.at("dense"), values, DENSE, 0.3)?,
        })
    }
}

/// A vector for each id, as a drawing tells it.
fn embedding(table: &Tensor) -> Operation {
    Operation {
        kind: OperationKind::Dense,
        name: "embedding",
        settings: format!("{EMBEDDED} wide, {} ids", table.size()[0]),
        parameters: table.numel() as i64,
    }
}

impl Backbone for Fusion {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        walk.branch("spectrogram", "spectrogram");
        let heard = self.branch.embed(inputs, train, walk)?;

        // As they are: a branch without a stage.
        walk.branch("metadata", "metadata");
        let mut parts = vec![heard, metadata(inputs, "fusion")?.shallow_clone()];

        for &(column, ref table) in &self.vectors {
            walk.branch(ID_NAMES[column], "ids");
            let missing = ModelError::Needs {
                model: "fusion",
                what: "ids of artist and album",
            };
            let ids = inputs
                .ids
                .as_ref()
                .ok_or(missing)?
                .f_select(1, column as i64)?;
            let vector = Tensor::f_embedding(table, &ids, 0, false, false)?;
            walk.stage(ID_NAMES[column], &vector, || vec![embedding(table)]);
            parts.push(vector);
        }

        let x = Tensor::f_cat(&parts, 1)?;
        walk.join();
        walk.stage("side by side", &x, Vec::new);

        let x = self.dense.forward(&x, train)?;
        walk.stage("dense", &x, || self.dense.operations());
        Ok(x)
    }

    fn width(&self) -> i64 {
        DENSE
    }
}
