//! Recurrent layers over frames, optionally preceded by convolutions: one structure, and the arguments of the eight
//! architectures that have this structure.

use tch::Tensor;

use super::cells::{Cell, Recurrent, RecurrentArgs};
use super::layers::{Activation, Block, Blocks, DenseRelu, Dropout, VarScope, behind, mean_over};
use super::norm::BatchNorm;
use super::walk::{Operation, Walk};
use super::window::Window;
use super::{Backbone, Dims, Inputs, ModelError};

/// Reduction of a sequence of states, one per step, to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    /// The final state of each direction, concatenated.
    Last,
    /// The mean of the states over all steps.
    Mean,
    /// Mean and maximum of the states over all steps, concatenated.
    MeanMax,
}

impl Summary {
    /// Describes the reduction as an operation of a stage.
    fn operation(self) -> Operation {
        let (name, settings) = match self {
            Self::Last => ("last state", ""),
            Self::Mean => ("mean", "over steps"),
            Self::MeanMax => ("mean and maximum", "over steps"),
        };
        Operation::fixed(name, settings)
    }
}

/// Arguments of an architecture with convolutions and recurrent layers.
#[derive(Debug)]
pub(crate) struct ConvRecurrentArgs {
    /// Convolutions before the recurrent layers. Blocks over two axes receive `[n, 1, bands, frames]`, blocks over one
    /// axis `[n, bands, frames]`.
    pub blocks: &'static [Block],
    pub recurrent: RecurrentArgs,
    /// Reduction of the recurrent layers' states to one vector.
    pub summary: Summary,
    pub dropout: Option<f64>,
    pub norm: bool,
    /// Width and dropout rate of a dense layer with ReLU after the summary; `None` for no such layer.
    pub dense: Option<(i64, f64)>,
}

const fn stack(cell: Cell, width: i64, layers: i64) -> RecurrentArgs {
    RecurrentArgs {
        cell,
        width,
        layers,
        both_ways: false,
        dropout: None,
    }
}

const fn both_ways(args: RecurrentArgs, dropout: Option<f64>) -> RecurrentArgs {
    RecurrentArgs {
        both_ways: true,
        dropout,
        ..args
    }
}

const THREE_1D: &[Window] = &[Window::same(3)];
const THREE_2D: &[Window] = &[Window::same(3); 2];
const FIVE_1D: &[Window] = &[Window::same(5)];
const FIVE_2D: &[Window] = &[Window::same(5); 2];
const VALID_1D: &[Window] = &[Window::valid(3)];
const HALF_1D: &[Window] = &[Window::tile(2)];
const HALF_2D: &[Window] = &[Window::tile(2); 2];

/// Three 1-D convolutions of document 000: 128, 256, 512 channels; a quarter of the frames remains.
const XNAP_1D: &[Block] = &[
    Block::relu(128, FIVE_1D, HALF_1D, Dropout::None),
    Block::relu(256, THREE_1D, HALF_1D, Dropout::None),
    Block::relu(512, THREE_1D, &[], Dropout::Values(0.4)),
];

/// Three 2-D convolutions of document 000, with 1, 2 and 4 times `width` channels; a quarter of the bands and of the
/// frames remains.
const fn xnap_2d(width: i64) -> [Block; 3] {
    [
        Block::relu(width, FIVE_2D, HALF_2D, Dropout::None),
        Block::relu(2 * width, THREE_2D, HALF_2D, Dropout::None),
        Block::relu(4 * width, THREE_2D, &[], Dropout::Channels(0.4)),
    ]
}

/// `cnn1d-gru` of document 000, with its authors' widths: `[n, 512, frames / 4]` → 512 per step → mean → 128.
pub(crate) const CNN1D_GRU: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: XNAP_1D,
    recurrent: both_ways(stack(Cell::Gru, 256, 2), None),
    summary: Summary::Mean,
    dropout: None,
    norm: false,
    dense: Some((128, 0.4)),
};

/// `cnn1d-lstm` of document 000, with its authors' widths: `[n, 512, frames / 4]` → 256 per step → 512 → 128.
pub(crate) const CNN1D_LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: XNAP_1D,
    recurrent: both_ways(stack(Cell::Lstm, 128, 2), None),
    summary: Summary::MeanMax,
    dropout: None,
    norm: false,
    dense: Some((128, 0.3)),
};

/// `cnn2d-gru` of document 000, with its authors' widths: `[n, 512, bands / 4, frames / 4]` → channels and bands
/// concatenated, 16,384 values per step at 128 bands → 256 per step → mean → 128.
pub(crate) const CNN2D_GRU: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &xnap_2d(128),
    recurrent: both_ways(stack(Cell::Gru, 128, 2), Some(0.4)),
    summary: Summary::Mean,
    dropout: None,
    norm: false,
    dense: Some((128, 0.4)),
};

/// `cnn2d-lstm` of document 000, with its authors' widths: `[n, 256, bands / 4, frames / 4]` → 8,192 values per step at
/// 128 bands → 256 per step → mean and maximum, 512 → 128.
pub(crate) const CNN2D_LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &xnap_2d(64),
    recurrent: both_ways(stack(Cell::Lstm, 128, 2), Some(0.4)),
    summary: Summary::MeanMax,
    dropout: None,
    norm: false,
    dense: Some((128, 0.3)),
};

const fn elu(width: i64, pool: &'static [Window]) -> Block {
    Block {
        activation: Activation::Elu,
        ..Block::relu(width, VALID_1D, pool, Dropout::Values(0.1))
    }
}

/// `GenreClassifier` of document 002, built like the repository named there: `[n, 128, frames / 48]` → last state 64 →
/// dropout, batch norm → 64.
pub(crate) const CRNN: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &[
        elu(64, &[Window::tile(3)]),
        elu(128, &[Window::tile(4)]),
        elu(128, &[Window::tile(4)]),
    ],
    recurrent: stack(Cell::Lstm, 64, 2),
    summary: Summary::Last,
    dropout: Some(0.3),
    norm: true,
    dense: Some((64, 0.3)),
};

/// `SimpleClassifier` of document 002, with widths chosen here: `[n, 128, frames / 16]` → last state 64.
pub(crate) const CRNN_SIMPLE: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &[
        Block::relu(64, THREE_1D, &[Window::tile(4)], Dropout::Values(0.2)),
        Block::relu(128, THREE_1D, &[Window::tile(4)], Dropout::Values(0.2)),
    ],
    recurrent: stack(Cell::Lstm, 64, 1),
    summary: Summary::Last,
    dropout: None,
    norm: false,
    dense: None,
};

/// `SimpleClassifier_RNN` of document 002, with widths chosen here: `[n, frames, bands]` → last state 128 → 64.
pub(crate) const LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &[],
    recurrent: RecurrentArgs {
        dropout: Some(0.3),
        ..stack(Cell::Lstm, 128, 2)
    },
    summary: Summary::Last,
    dropout: None,
    norm: false,
    dense: Some((64, 0.3)),
};

/// "CRNN" of document 003, with its LSTM of width 64 and dropout in all layers; other widths are chosen here: `[n, 64,
/// frames / 8]` → last state 64 → 64.
pub(crate) const CRNN_LSTM64: ConvRecurrentArgs = ConvRecurrentArgs {
    blocks: &[Block::relu(64, FIVE_1D, HALF_1D, Dropout::Values(0.4)); 3],
    recurrent: stack(Cell::Lstm, 64, 1),
    summary: Summary::Last,
    dropout: Some(0.4),
    norm: false,
    dense: Some((64, 0.4)),
};

/// Convolutions, recurrent layers, a summary over time and a dense layer, as described by [`ConvRecurrentArgs`].
#[derive(Debug)]
pub(crate) struct ConvRecurrent {
    blocks: Blocks,
    picture: bool,
    recurrent: Recurrent,
    summary: Summary,
    dropout: Option<f64>,
    norm: Option<BatchNorm>,
    dense: Option<DenseRelu>,
    width: i64,
}

/// Creates the backbone described by `args`.
pub(crate) fn boxed(
    scope: &VarScope<'_>,
    dims: &Dims,
    args: &'static ConvRecurrentArgs,
) -> Result<Box<dyn Backbone>, ModelError> {
    Ok(Box::new(ConvRecurrent::new(scope, dims, args)?))
}

impl ConvRecurrent {
    pub(crate) fn new(
        scope: &VarScope<'_>,
        dims: &Dims,
        args: &ConvRecurrentArgs,
    ) -> Result<Self, ModelError> {
        // Blocks over two axes receive a picture; blocks over one axis receive the bands as channels.
        let picture = args
            .blocks
            .first()
            .is_some_and(|block| block.conv.len() == 2);
        let channels_in = if picture { 1 } else { dims.bands };
        let blocks = Blocks::new(scope, channels_in, args.blocks)?;

        // After blocks over two axes, the channels and bands of a step are concatenated.
        let channels = args.blocks.last().map_or(dims.bands, |block| block.width);
        let values = if picture {
            channels * behind(args.blocks, 1, dims.bands)
        } else {
            channels
        };
        let recurrent = Recurrent::new(&scope.at("recurrent"), values, args.recurrent)?;

        let states = match args.summary {
            Summary::MeanMax => 2 * args.recurrent.outputs(),
            Summary::Last | Summary::Mean => args.recurrent.outputs(),
        };
        let dropout = args.dropout.map(|own| scope.dropout(own));
        let norm = args
            .norm
            .then(|| BatchNorm::new(&scope.at("norm"), states))
            .transpose()?;
        let dense = args
            .dense
            .map(|(width, own)| DenseRelu::new(&scope.at("dense"), states, width, own))
            .transpose()?;
        let width = args.dense.map_or(states, |(width, _)| width);

        Ok(Self {
            blocks,
            picture,
            recurrent,
            summary: args.summary,
            dropout,
            norm,
            dense,
            width,
        })
    }

    fn states(&self, steps: &Tensor, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let (steps, last) = self.recurrent.forward(steps, train)?;
        walk.stage("recurrent", &steps, || self.recurrent.operations());

        let states = match self.summary {
            Summary::Last => last,
            Summary::Mean => mean_over(&steps, &[1])?,
            Summary::MeanMax => {
                Tensor::f_cat(&[mean_over(&steps, &[1])?, steps.f_amax(1, false)?], 1)?
            }
        };

        walk.stage("summary", &states, || vec![self.summary.operation()]);
        Ok(states)
    }

    /// Describes the layers between the summary and the heads as operations of a stage.
    fn behind_summary(&self) -> Vec<Operation> {
        let dropout = self
            .dropout
            .and_then(|share| Dropout::Values(share).operation());
        let norm = self.norm.as_ref().map(BatchNorm::operation);

        let mut operations: Vec<Operation> = dropout.into_iter().chain(norm).collect();
        if let Some(dense) = &self.dense {
            operations.extend(dense.operations());
        }
        operations
    }
}

impl Backbone for ConvRecurrent {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let spectrogram = &inputs.spectrogram;

        let steps = if self.picture {
            let x = self
                .blocks
                .forward(&spectrogram.f_unsqueeze(1)?, train, walk)?;
            // Each frame becomes a step, with the channels and bands of the frame concatenated.
            x.f_permute([0, 3, 1, 2])?.f_flatten(2, 3)?
        } else {
            self.blocks
                .forward(spectrogram, train, walk)?
                .f_transpose(1, 2)?
        };

        walk.stage("steps", &steps, || {
            let beside = if self.picture {
                "channels and bands concatenated"
            } else {
                ""
            };
            vec![Operation::fixed("one step per frame", beside)]
        });

        let mut x = self.states(&steps, train, walk)?;

        // Order of layers as in document 002: dropout, batch norm, dense.
        if let Some(share) = self.dropout {
            x = x.f_dropout(share, train)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, train)?;
        }
        if let Some(layer) = &self.dense {
            x = layer.forward(&x, train)?;
            walk.stage("dense", &x, || self.behind_summary());
        }

        Ok(x)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
