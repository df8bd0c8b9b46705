//! Recurrent layers over frames, optionally preceded by convolutions: one structure, and the arguments of the eight
//! architectures that have this structure.

use tch::Tensor;

use super::cells::{Cell, Recurrent, RecurrentArgs};
use super::layers::{Fixed, VarScope, mean_over};
use super::sequence::LayerArgs::{self, Norm};
use super::sequence::{
    ADD_CHANNEL, RELU, RowShape, Sequence, StageArgs, conv, dense, dropout, pool, valid_conv,
};
use super::walk::{Operation, Walk};
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
    /// Stages before the recurrent layers. Bands are channels, unless the first layer adds a channel.
    pub stages: &'static [StageArgs],
    pub recurrent: RecurrentArgs,
    /// Reduction of the recurrent layers' states to one vector.
    pub summary: Summary,
    /// Stages after the summary.
    pub top: &'static [StageArgs],
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

const CHANNEL_DROPOUT: LayerArgs = LayerArgs::Fixed(Fixed::ChannelDropout(0.4));

/// Three 1-D convolutions of document 000: 128, 256, 512 channels; a quarter of the frames remains.
const XNAP_1D: &[StageArgs] = &[
    ("conv1", &[conv(128, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(256, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(512, 3), Norm, RELU, dropout(0.4)]),
];

/// Three 2-D convolutions of document 000; a quarter of the bands and of the frames remains.
const XNAP_2D_128: &[StageArgs] = &[
    ("conv1", &[ADD_CHANNEL, conv(128, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(256, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(512, 3), Norm, RELU, CHANNEL_DROPOUT]),
];

/// The same with half as many channels.
const XNAP_2D_64: &[StageArgs] = &[
    ("conv1", &[ADD_CHANNEL, conv(64, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(128, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(256, 3), Norm, RELU, CHANNEL_DROPOUT]),
];

/// `cnn1d-gru` of document 000, with its authors' widths: `[n, 512, frames / 4]` → 512 per step → mean → 128.
pub(crate) const CNN1D_GRU: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: XNAP_1D,
    recurrent: both_ways(stack(Cell::Gru, 256, 2), None),
    summary: Summary::Mean,
    top: &[("dense", &[dense(128), RELU, dropout(0.4)])],
};

/// `cnn1d-lstm` of document 000, with its authors' widths: `[n, 512, frames / 4]` → 256 per step → 512 → 128.
pub(crate) const CNN1D_LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: XNAP_1D,
    recurrent: both_ways(stack(Cell::Lstm, 128, 2), None),
    summary: Summary::MeanMax,
    top: &[("dense", &[dense(128), RELU, dropout(0.3)])],
};

/// `cnn2d-gru` of document 000, with its authors' widths: `[n, 512, bands / 4, frames / 4]` → channels and bands
/// concatenated, 16,384 values per step at 128 bands → 256 per step → mean → 128.
pub(crate) const CNN2D_GRU: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: XNAP_2D_128,
    recurrent: both_ways(stack(Cell::Gru, 128, 2), Some(0.4)),
    summary: Summary::Mean,
    top: &[("dense", &[dense(128), RELU, dropout(0.4)])],
};

/// `cnn2d-lstm` of document 000, with its authors' widths: `[n, 256, bands / 4, frames / 4]` → 8,192 values per step at
/// 128 bands → 256 per step → mean and maximum, 512 → 128.
pub(crate) const CNN2D_LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: XNAP_2D_64,
    recurrent: both_ways(stack(Cell::Lstm, 128, 2), Some(0.4)),
    summary: Summary::MeanMax,
    top: &[("dense", &[dense(128), RELU, dropout(0.3)])],
};

const ELU: LayerArgs = LayerArgs::Fixed(Fixed::Elu);

/// `GenreClassifier` of document 002, built like the repository named there: `[n, 128, frames / 48]` → last state 64 →
/// dropout, batch norm → 64.
pub(crate) const CRNN: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: &[
        (
            "conv1",
            &[valid_conv(64, 3), Norm, ELU, pool(3), dropout(0.1)],
        ),
        (
            "conv2",
            &[valid_conv(128, 3), Norm, ELU, pool(4), dropout(0.1)],
        ),
        (
            "conv3",
            &[valid_conv(128, 3), Norm, ELU, pool(4), dropout(0.1)],
        ),
    ],
    recurrent: stack(Cell::Lstm, 64, 2),
    summary: Summary::Last,
    top: &[(
        "dense",
        &[dropout(0.3), Norm, dense(64), RELU, dropout(0.3)],
    )],
};

/// `SimpleClassifier` of document 002, with widths chosen here: `[n, 128, frames / 16]` → last state 64.
pub(crate) const CRNN_SIMPLE: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: &[
        ("conv1", &[conv(64, 3), Norm, RELU, pool(4), dropout(0.2)]),
        ("conv2", &[conv(128, 3), Norm, RELU, pool(4), dropout(0.2)]),
    ],
    recurrent: stack(Cell::Lstm, 64, 1),
    summary: Summary::Last,
    top: &[],
};

/// `SimpleClassifier_RNN` of document 002, with widths chosen here: `[n, frames, bands]` → last state 128 → 64.
pub(crate) const LSTM: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: &[],
    recurrent: RecurrentArgs {
        dropout: Some(0.3),
        ..stack(Cell::Lstm, 128, 2)
    },
    summary: Summary::Last,
    top: &[("dense", &[dense(64), RELU, dropout(0.3)])],
};

const BLOCK_64: &[LayerArgs] = &[conv(64, 5), Norm, RELU, pool(2), dropout(0.4)];

/// "CRNN" of document 003, with its LSTM of width 64 and dropout in all layers; other widths are chosen here: `[n, 64,
/// frames / 8]` → last state 64 → 64.
pub(crate) const CRNN_LSTM64: ConvRecurrentArgs = ConvRecurrentArgs {
    stages: &[
        ("conv1", BLOCK_64),
        ("conv2", BLOCK_64),
        ("conv3", BLOCK_64),
    ],
    recurrent: stack(Cell::Lstm, 64, 1),
    summary: Summary::Last,
    top: &[("dense", &[dropout(0.4), dense(64), RELU, dropout(0.4)])],
};

/// Convolutions, recurrent layers, a summary over time and dense layers, as described by [`ConvRecurrentArgs`].
#[derive(Debug)]
pub(crate) struct ConvRecurrent {
    stages: Sequence,
    /// True if the stages return `[n, channels, bands, frames]`, and not `[n, channels, frames]`.
    has_bands: bool,
    recurrent: Recurrent,
    summary: Summary,
    top: Sequence,
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
        let mut shape = RowShape::spectrogram(dims);
        let stages = Sequence::new(scope, &mut shape, args.stages)?;

        // Each frame becomes a step, with the channels and bands of the frame concatenated.
        let _frames = shape.axes.pop();
        let recurrent = Recurrent::new(&scope.at("recurrent"), shape.values(), args.recurrent)?;

        let states = match args.summary {
            Summary::MeanMax => 2 * args.recurrent.outputs(),
            Summary::Last | Summary::Mean => args.recurrent.outputs(),
        };
        let mut vector = RowShape::vector(states);
        Ok(Self {
            stages,
            has_bands: !shape.axes.is_empty(),
            recurrent,
            summary: args.summary,
            top: Sequence::new(scope, &mut vector, args.top)?,
            width: vector.values(),
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
}

impl Backbone for ConvRecurrent {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let x = self.stages.forward(&inputs.spectrogram, train, walk)?;

        let steps = if self.has_bands {
            x.f_permute([0, 3, 1, 2])?.f_flatten(2, 3)?
        } else {
            x.f_transpose(1, 2)?
        };
        walk.stage("steps", &steps, || {
            let beside = if self.has_bands {
                "channels and bands concatenated"
            } else {
                ""
            };
            vec![Operation::fixed("one step per frame", beside)]
        });

        let states = self.states(&steps, train, walk)?;
        self.top.forward(&states, train, walk)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
