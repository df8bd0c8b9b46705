//! `fusion`, the further work of `fma-small`: combines a track's spectrogram with its metadata.

use tch::Tensor;

use super::layers::{Initializer, VarScope};
use super::recurrent::CRNN_SIMPLE;
use super::sequence::{RELU, RowShape, Sequence, StageArgs, dense, dropout};
use super::walk::{Operation, OperationKind, Walk};
use super::{Backbone, BuiltBackbone, Dims, Inputs, ModelError, metadata};

/// Length of the vector of an artist or album.
const EMBEDDED: i64 = 16;
/// The stages after the concatenation.
pub(crate) const TOP: &[StageArgs] = &[("dense", &[dense(128), RELU, dropout(0.3)])];
/// Names of the columns in the input `ids`.
const ID_NAMES: [&str; 2] = ["artist", "album"];

/// Concatenates a spectrogram branch (convolutions and an LSTM, as `crnn-simple`), metadata, and embeddings of artist
/// and album, followed by a dense layer. The artist or album embedding is left out if its vocabulary is empty.
///
/// `[n, bands, frames]` → 64; `[n, columns]` unchanged; `[n, 2]` ids → 16 each, all 0 for the unknown id 0 even after
/// training → dense 128.
#[derive(Debug)]
pub(crate) struct Fusion {
    branch: Sequence,
    /// Index of each used column of the input `ids`, with its embedding table.
    vectors: Vec<(usize, Tensor)>,
    top: Sequence,
}

impl Fusion {
    pub(crate) fn build(scope: &VarScope<'_>, dims: &Dims) -> BuiltBackbone {
        let mut states = RowShape::spectrogram(dims);
        let branch = Sequence::new(&scope.at("branch"), &mut states, CRNN_SIMPLE)?;

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
            // Row 0 is for unknown ids and has no information. `f_embedding` gives it no gradient, so it stays 0.
            let _ = tch::no_grad(|| table.f_get(0)?.f_zero_())?;
            vectors.push((column, table));
        }

        let values = states.values() + dims.metadata + EMBEDDED * vectors.len() as i64;
        let mut vector = RowShape::vector(values);
        let backbone = Self {
            branch,
            vectors,
            top: Sequence::new(scope, &mut vector, TOP)?,
        };
        Ok((Box::new(backbone), vector.values()))
    }
}

/// Describes an embedding table as an operation of a stage.
fn embedding(table: &Tensor) -> Operation {
    Operation {
        kind: OperationKind::Dense,
        name: "embedding",
        settings: format!("{EMBEDDED} dimensions, {} ids", table.size()[0]),
        parameters: table.numel() as i64,
    }
}

impl Backbone for Fusion {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        walk.branch("spectrogram", "spectrogram");
        let states = self.branch.forward(&inputs.spectrogram, train, walk)?;

        // The metadata branch has no stage, because metadata is passed on unchanged.
        walk.branch("metadata", "metadata");
        let mut parts = vec![states, metadata(inputs, "fusion")?.shallow_clone()];

        for &(column, ref table) in &self.vectors {
            walk.branch(ID_NAMES[column], "ids");
            let ids = inputs
                .ids
                .as_ref()
                .ok_or_else(|| ModelError::unfit("fusion needs ids of artist and album"))?;
            let ids = ids.f_select(1, column as i64)?;
            let vector = Tensor::f_embedding(table, &ids, 0, false, false)?;
            walk.stage(ID_NAMES[column], &vector, || vec![embedding(table)]);
            parts.push(vector);
        }

        let x = Tensor::f_cat(&parts, 1)?;
        walk.join();
        walk.stage("side by side", &x, Vec::new);
        self.top.forward(&x, train, walk)
    }
}
