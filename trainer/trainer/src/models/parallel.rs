//! `parallel-cnn-bigru` of `fma-windows`: processes a spectrogram both as a picture and as a sequence.

use tch::Tensor;

use super::layers::{Fixed, Layer, VarScope};
use super::sequence::LayerArgs::{self, Norm, Pool};
use super::sequence::{
    ADD_CHANNEL, RELU, RowShape, Sequence, StageArgs, TO_STEPS, bigru, conv, pool,
};
use super::walk::Walk;
use super::window::Window;
use super::{Backbone, BuiltBackbone, Dims, Inputs, ModelError};

/// The last poolings in the paper are 4 × 4. Pooling by 2 over bands reduces the minimum number of bands to 32.
const QUARTER: [Window; 2] = [Window::tile(2), Window::tile(4)];

/// The branch of convolutions. It needs rows of at least 32 bands and 128 frames.
pub(crate) const STAGES: &[StageArgs] = &[
    ("conv1", &[ADD_CHANNEL, conv(16, 3), Norm, RELU, pool(2)]),
    ("conv2", &[conv(32, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(64, 3), Norm, RELU, pool(2)]),
    ("conv4", &[conv(64, 3), Norm, RELU, Pool(QUARTER)]),
    ("conv5", &[conv(64, 3), Norm, RELU, Pool(QUARTER)]),
];

/// The recurrent branch. A step is the maximum of 4 frames.
pub(crate) const RECURRENT: &[StageArgs] = &[
    ("steps", &[ADD_CHANNEL, Pool(QUARTER), TO_STEPS]),
    ("recurrent", &[bigru(32), LAST_STATES]),
];
const LAST_STATES: LayerArgs = LayerArgs::Fixed(Fixed::LastStates);

/// Two parallel branches. The document states a bidirectional GRU of width 32; the paper (Feng, Liu and Yao 2017,
/// arXiv:1712.08370) states five convolutions in parallel with it. The other widths are chosen here.
///
/// `[n, 1, bands, frames]` → 16, 32, 64, 64, 64 channels → flattened, 1,280 values at 128 × 646. `[n, bands, frames]` →
/// maximum of 2 bands × 4 frames → bidirectional GRU → last state of each direction, 64.
#[derive(Debug)]
pub(crate) struct Parallel {
    convolutions: Sequence,
    recurrent: Sequence,
    dropout: Fixed,
}

impl Parallel {
    pub(crate) fn build(scope: &VarScope<'_>, dims: &Dims) -> BuiltBackbone {
        let mut places = RowShape::spectrogram(dims);
        let mut states = places.clone();
        let backbone = Self {
            convolutions: Sequence::new(scope, &mut places, STAGES)?,
            recurrent: Sequence::new(scope, &mut states, RECURRENT)?,
            dropout: Fixed::Dropout(scope.dropout(0.2)),
        };
        // All values that remain after pooling are flattened, so the model fits rows of one shape only.
        Ok((Box::new(backbone), places.values() + states.values()))
    }
}

impl Backbone for Parallel {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let rows = &inputs.spectrogram;
        walk.branch("convolutions", "spectrogram");
        let places = self.convolutions.forward(rows, train, walk)?;
        let places = places.f_flatten(1, -1)?;

        walk.branch("recurrent", "spectrogram");
        let states = self.recurrent.forward(rows, train, walk)?;

        walk.join();
        let x = Tensor::f_cat(&[places, states], 1)?;
        let x = self.dropout.forward(&x, train)?;
        walk.stage("side by side", &x, || {
            [Fixed::Flatten.operations(), self.dropout.operations()].concat()
        });
        Ok(x)
    }
}
