//! `parallel-cnn-bigru` of document 003: processes a spectrogram both as a picture and as a sequence.

use tch::Tensor;

use super::cells::{Cell, Recurrent, RecurrentArgs};
use super::layers::{Block, Blocks, Dropout, VarScope, behind, max_pool, pool_operation};
use super::walk::{Operation, Walk};
use super::window::Window;
use super::{Backbone, Dims, Inputs, ModelError};

const THREE: &[Window] = &[Window::same(3); 2];

const HALF: &[Window] = &[Window::tile(2); 2];
/// The last poolings in the paper are 4 × 4. Pooling by 2 over bands reduces the minimum number of bands to 32.
const QUARTER: &[Window] = &[Window::tile(2), Window::tile(4)];

/// The blocks of the branch of convolutions. They need rows of at least 32 bands and 128 frames.
pub(crate) const BLOCKS: &[Block] = &[
    Block::relu(16, THREE, HALF, Dropout::None),
    Block::relu(32, THREE, HALF, Dropout::None),
    Block::relu(64, THREE, HALF, Dropout::None),
    Block::relu(64, THREE, QUARTER, Dropout::None),
    Block::relu(64, THREE, QUARTER, Dropout::None),
];

const GRU: RecurrentArgs = RecurrentArgs {
    cell: Cell::Gru,
    width: 32,
    layers: 1,
    both_ways: true,
    dropout: None,
};

/// Number of bands and of frames that are pooled into one value of the recurrent branch.
const STEP: [Window; 2] = [Window::tile(2), Window::tile(4)];

/// Two parallel branches. The document states a bidirectional GRU of width 32; the paper (Feng, Liu and Yao 2017,
/// arXiv:1712.08370) states five convolutions in parallel with it. The other widths are chosen here.
///
/// `[n, 1, bands, frames]` → 16, 32, 64, 64, 64 channels → flattened, 1,280 values at 128 × 646. `[n, bands, frames]` →
/// maximum of 2 bands × 4 frames → bidirectional GRU → last state of each direction, 64.
#[derive(Debug)]
pub(crate) struct Parallel {
    blocks: Blocks,
    gru: Recurrent,
    share: f64,
    width: i64,
}

impl Parallel {
    pub(crate) fn new(scope: &VarScope<'_>, dims: &Dims) -> Result<Self, ModelError> {
        // All values that remain after pooling are flattened, so the model fits rows of one shape only.
        let values = 64 * behind(BLOCKS, 1, dims.bands) * behind(BLOCKS, 0, dims.frames);
        let blocks = Blocks::new(scope, 1, BLOCKS)?;
        let gru = Recurrent::new(&scope.at("recurrent"), STEP[0].places(dims.bands), GRU)?;

        Ok(Self {
            blocks,
            gru,
            share: scope.dropout(0.2),
            width: values + GRU.outputs(),
        })
    }
}

impl Backbone for Parallel {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let picture = inputs.spectrogram.f_unsqueeze(1)?;

        walk.branch("convolutions", "spectrogram");
        let places = self
            .blocks
            .forward(&picture, train, walk)?
            .f_flatten(1, -1)?;

        walk.branch("recurrent", "spectrogram");
        // Max pooling over two axes needs a channel axis; it is removed for the recurrent layer.
        let steps = max_pool(&picture, &STEP)?
            .f_squeeze_dim(1)?
            .f_transpose(1, 2)?;
        walk.stage("steps", &steps, || {
            let mut operations: Vec<Operation> = pool_operation(&STEP).into_iter().collect();
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
        let x = Tensor::f_cat(&[places, last], 1)?.f_dropout(self.share, train)?;
        walk.stage("side by side", &x, || {
            let mut operations = vec![Operation::flatten()];
            operations.extend(Dropout::Values(self.share).operation());
            operations
        });
        Ok(x)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
