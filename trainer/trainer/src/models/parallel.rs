//! `parallel-cnn-bigru` of document 003: processes a spectrogram both as a picture and as a sequence.

use tch::Tensor;

use super::cells::{Cell, Recurrent, RecurrentArgs};
use super::layers::{Fixed, Layer, MaxPool, VarScope};
use super::sequence::LayerArgs::{Norm, Pool};
use super::sequence::{RELU, RowShape, Sequence, StageArgs, conv, pool};
use super::walk::{Operation, Walk};
use super::window::Window;
use super::{Backbone, Dims, Inputs, ModelError};

/// The last poolings in the paper are 4 × 4. Pooling by 2 over bands reduces the minimum number of bands to 32.
const QUARTER: [Window; 2] = [Window::tile(2), Window::tile(4)];

/// The branch of convolutions. It needs rows of at least 32 bands and 128 frames.
pub(crate) const STAGES: &[StageArgs] = &[
    ("conv1", &[conv(16, 3), Norm, RELU, pool(2)]),
    ("conv2", &[conv(32, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(64, 3), Norm, RELU, pool(2)]),
    ("conv4", &[conv(64, 3), Norm, RELU, Pool(QUARTER)]),
    ("conv5", &[conv(64, 3), Norm, RELU, Pool(QUARTER)]),
];

const GRU: RecurrentArgs = RecurrentArgs {
    cell: Cell::Gru,
    width: 32,
    layers: 1,
    both_ways: true,
    dropout: None,
};

/// Two parallel branches. The document states a bidirectional GRU of width 32; the paper (Feng, Liu and Yao 2017,
/// arXiv:1712.08370) states five convolutions in parallel with it. The other widths are chosen here.
///
/// `[n, 1, bands, frames]` → 16, 32, 64, 64, 64 channels → flattened, 1,280 values at 128 × 646. `[n, bands, frames]` →
/// maximum of 2 bands × 4 frames → bidirectional GRU → last state of each direction, 64.
#[derive(Debug)]
pub(crate) struct Parallel {
    convolutions: Sequence,
    /// Pools the bands and frames of a step of the recurrent branch into one value.
    step: MaxPool,
    gru: Recurrent,
    dropout: Fixed,
    width: i64,
}

impl Parallel {
    pub(crate) fn new(scope: &VarScope<'_>, dims: &Dims) -> Result<Self, ModelError> {
        let mut shape = RowShape::picture(dims, 1);
        let convolutions = Sequence::new(scope, &mut shape, STAGES)?;
        let gru = Recurrent::new(&scope.at("recurrent"), QUARTER[0].places(dims.bands), GRU)?;

        Ok(Self {
            convolutions,
            step: MaxPool(QUARTER.to_vec()),
            gru,
            dropout: Fixed::Dropout(scope.dropout(0.2)),
            // All values that remain after pooling are flattened, so the model fits rows of one shape only.
            width: shape.values() + GRU.outputs(),
        })
    }
}

impl Backbone for Parallel {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let picture = inputs.spectrogram.f_unsqueeze(1)?;

        walk.branch("convolutions", "spectrogram");
        let places = self
            .convolutions
            .forward(&picture, train, walk)?
            .f_flatten(1, -1)?;

        walk.branch("recurrent", "spectrogram");
        // Max pooling over two axes needs a channel axis; it is removed for the recurrent layer.
        let steps = self
            .step
            .forward(&picture, train)?
            .f_squeeze_dim(1)?
            .f_transpose(1, 2)?;
        walk.stage("steps", &steps, || {
            let mut operations = self.step.operations();
            operations.push(Operation::fixed("one step per frame", ""));
            operations
        });

        let (_, last) = self.gru.forward(&steps, train)?;
        walk.stage("recurrent", &last, || {
            let mut operations = self.gru.operations();
            operations.push(Operation::fixed("last state", "of each direction"));
            operations
        });

        walk.join();
        let x = self
            .dropout
            .forward(&Tensor::f_cat(&[places, last], 1)?, train)?;
        walk.stage("side by side", &x, || {
            [Fixed::Flatten.operations(), self.dropout.operations()].concat()
        });
        Ok(x)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
