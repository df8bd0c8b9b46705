//! Stages of layers in sequence, which are built from a list of their arguments.

use std::fmt::Display;

use tch::Tensor;

use super::cells::{Cell, Recurrent, RecurrentArgs};
use super::layers::{
    Bias, Conv, ConvArgs, Dense, Fixed, Initializer, Layer, Layers, MaxPool, VarScope,
};
use super::norm::BatchNorm;
use super::picture::AsPicture;
use super::walk::Walk;
use super::window::{Window, least_before};
use super::{Backbone, Dims, Inputs, ModelError, metadata};

/// Name of a stage and the arguments of its layers.
///
/// The variables of a convolution or dense layer are in the scope with the stage's name, those of batch norm in `norm`
/// with the number of the stage: `conv1.weight`, `norm1.weight`.
pub(crate) type StageArgs = (&'static str, &'static [LayerArgs]);

/// Arguments of a layer. Its number of inputs follows from the layers before it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LayerArgs {
    /// Number of output channels of a convolution, its window along every axis, and its initial weights.
    Conv(i64, Window, Initializer),
    /// Batch norm.
    Norm,
    /// Windows of max pooling along bands and frames. The first one is ignored if bands are channels.
    Pool([Window; 2]),
    /// Number of output values of a dense layer.
    Dense(i64, Bias),
    /// A recurrent layer over steps.
    Recurrent(RecurrentArgs),
    /// A layer without variables. The configuration may override the rate of dropout.
    Fixed(Fixed),
}

/// Index of the numbers of filters of convolutions in a pair of lists of widths.
pub(crate) const FILTERS: usize = 0;
/// Index of the sizes of hidden layers, which are dense or recurrent, in a pair of lists of widths.
pub(crate) const HIDDEN: usize = 1;

impl LayerArgs {
    /// Returns the width of a layer and the list to which it belongs, or `None` for a layer without one.
    const fn width(&mut self) -> Option<(usize, &mut i64)> {
        match self {
            Self::Conv(width, ..) => Some((FILTERS, width)),
            Self::Dense(width, _) => Some((HIDDEN, width)),
            Self::Recurrent(args) => Some((HIDDEN, &mut args.width)),
            Self::Norm | Self::Pool(_) | Self::Fixed(_) => None,
        }
    }
}

/// Returns the numbers of filters of all convolutions of `stages`, and the sizes of all hidden layers.
pub(crate) fn widths<'a>(stages: impl IntoIterator<Item = &'a StageArgs>) -> [Vec<i64>; 2] {
    let mut widths = [Vec::new(), Vec::new()];
    for mut layer in stages.into_iter().flat_map(|(_, layers)| layers.to_vec()) {
        if let Some((list, width)) = layer.width() {
            widths[list].push(*width);
        }
    }
    widths
}

/// Convolution that preserves the length of every axis.
pub(crate) const fn conv(width: i64, kernel: i64) -> LayerArgs {
    LayerArgs::Conv(width, Window::same(kernel), Initializer::Torch)
}

/// Convolution without padding.
pub(crate) const fn valid(width: i64, kernel: i64) -> LayerArgs {
    LayerArgs::Conv(width, Window::valid(kernel), Initializer::Torch)
}

pub(crate) const fn dense(width: i64) -> LayerArgs {
    LayerArgs::Dense(width, Bias::First)
}

/// Max pooling that divides the length of every axis.
pub(crate) const fn pool(divisor: i64) -> LayerArgs {
    LayerArgs::Pool([Window::tile(divisor); 2])
}

pub(crate) const fn dropout(share: f64) -> LayerArgs {
    LayerArgs::Fixed(Fixed::Dropout(share))
}

pub(crate) const RELU: LayerArgs = LayerArgs::Fixed(Fixed::Relu);
pub(crate) const FLATTEN: LayerArgs = LayerArgs::Fixed(Fixed::Flatten);
pub(crate) const ADD_CHANNEL: LayerArgs = LayerArgs::Fixed(Fixed::AddChannel);
pub(crate) const TO_STEPS: LayerArgs = LayerArgs::Fixed(Fixed::Steps);

const fn recurrent(cell: Cell, width: i64, both_ways: bool) -> LayerArgs {
    LayerArgs::Recurrent(RecurrentArgs {
        cell,
        width,
        both_ways,
    })
}

pub(crate) const fn lstm(width: i64) -> LayerArgs {
    recurrent(Cell::Lstm, width, false)
}

/// Bidirectional LSTM.
pub(crate) const fn bilstm(width: i64) -> LayerArgs {
    recurrent(Cell::Lstm, width, true)
}

/// Bidirectional GRU.
pub(crate) const fn bigru(width: i64) -> LayerArgs {
    recurrent(Cell::Gru, width, true)
}

/// Shape of a row between two layers.
#[derive(Clone, Debug)]
pub(crate) struct RowShape {
    pub channels: i64,
    /// Lengths of the axes after the channels: bands and frames, frames or steps only, or none.
    pub axes: Vec<i64>,
}

impl RowShape {
    /// Returns the shape of a spectrogram whose bands are channels.
    pub(crate) fn spectrogram(dims: &Dims) -> Self {
        Self {
            channels: dims.bands,
            axes: vec![dims.frames],
        }
    }

    /// Returns the shape of a picture of bands and frames.
    pub(crate) fn picture(dims: &Dims, channels: i64) -> Self {
        Self {
            channels,
            axes: vec![dims.bands, dims.frames],
        }
    }

    /// Returns the shape of a vector.
    pub(crate) const fn vector(values: i64) -> Self {
        Self {
            channels: values,
            axes: Vec::new(),
        }
    }

    /// Returns the number of values in a row.
    pub(crate) fn values(&self) -> i64 {
        self.axes.iter().product::<i64>() * self.channels
    }

    /// Returns the windows of a layer along the axes of the row, given those along bands and frames.
    fn windows(&self, windows: [Window; 2]) -> Vec<Window> {
        windows[2 - self.axes.len()..].to_vec()
    }

    fn slide(&mut self, windows: [Window; 2]) {
        let windows = self.windows(windows);
        for (axis, window) in self.axes.iter_mut().zip(windows) {
            *axis = window.places(*axis);
        }
    }

    /// Changes the shape to that of the layer's output.
    fn pass(&mut self, layer: LayerArgs) {
        match layer {
            LayerArgs::Conv(width, window, _) => {
                self.channels = width;
                self.slide([window; 2]);
            }
            LayerArgs::Dense(width, _) => self.channels = width,
            LayerArgs::Pool(windows) => self.slide(windows),
            LayerArgs::Fixed(Fixed::AddChannel) => {
                self.axes.insert(0, self.channels);
                self.channels = 1;
            }
            LayerArgs::Recurrent(args) => self.channels = args.outputs(),
            LayerArgs::Fixed(Fixed::Flatten) => *self = Self::vector(self.values()),
            LayerArgs::Fixed(Fixed::Steps | Fixed::BandSteps) => {
                let frames = self.axes.split_off(self.axes.len() - 1);
                self.channels = self.values();
                self.axes = frames;
            }
            LayerArgs::Fixed(
                Fixed::Mean | Fixed::LastStep | Fixed::LastStates | Fixed::StepMean,
            ) => self.axes.clear(),
            LayerArgs::Fixed(Fixed::MeanMax | Fixed::StepMeanMax) => {
                *self = Self::vector(2 * self.channels);
            }
            LayerArgs::Norm
            | LayerArgs::Fixed(
                Fixed::Relu | Fixed::Elu | Fixed::Dropout(_) | Fixed::ChannelDropout(_),
            ) => {}
        }
    }
}

/// Stages of a model in the order of execution.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    stages: Vec<(String, Layers)>,
}

impl Sequence {
    /// Creates the layers of `stages` for rows of the shape `shape`, which becomes that of the output.
    pub(crate) fn new(
        scope: &VarScope<'_>,
        shape: &mut RowShape,
        stages: &[StageArgs],
    ) -> Result<Self, ModelError> {
        let mut sequence = Self::default();
        for (name, args) in stages {
            let mut layers = Layers::new();
            for (place, of_layer) in args.iter().enumerate() {
                let stacked = args[..place].iter();
                let stacked = stacked.filter(|other| matches!(other, LayerArgs::Recurrent(_)));
                let mut own = *of_layer;
                if let Some((list, width)) = own.width() {
                    *width = scope.width(list, *width);
                }
                layers.push(layer(scope, name, stacked.count(), shape, own)?);
                shape.pass(own);
            }
            sequence.push(name, layers);
        }
        Ok(sequence)
    }

    /// Appends a stage.
    pub(crate) fn push(&mut self, name: impl Display, layers: Layers) {
        self.stages.push((name.to_string(), layers));
    }

    /// Applies all stages, and reports each one to `walk`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        train: bool,
        walk: &mut Walk,
    ) -> Result<Tensor, ModelError> {
        let mut x = x.shallow_clone();
        for (name, layers) in &self.stages {
            x = layers.forward(&x, train)?;
            walk.stage(name, &x, || layers.operations());
        }
        Ok(x)
    }
}

/// Creates a layer after `stacked` recurrent layers of the same stage.
fn layer(
    scope: &VarScope<'_>,
    stage: &str,
    stacked: usize,
    shape: &RowShape,
    args: LayerArgs,
) -> Result<Box<dyn Layer>, ModelError> {
    let from = shape.channels;
    Ok(match args {
        LayerArgs::Conv(to, window, start) => {
            let args = ConvArgs {
                from,
                to,
                windows: &shape.windows([window; 2]),
                groups: 1,
                start,
            };
            Box::new(Conv::new(&scope.at(stage), args)?)
        }
        LayerArgs::Norm => {
            let number = stage.trim_start_matches(|c: char| !c.is_ascii_digit());
            Box::new(BatchNorm::new(&scope.at(format!("norm{number}")), from)?)
        }
        LayerArgs::Pool(windows) => Box::new(MaxPool(shape.windows(windows))),
        LayerArgs::Dense(to, bias) => Box::new(Dense::new(&scope.at(stage), from, to, bias)?),
        LayerArgs::Recurrent(args) => {
            Box::new(Recurrent::new(&scope.at(stage), stacked, from, args)?)
        }
        LayerArgs::Fixed(Fixed::Dropout(own)) => Box::new(Fixed::Dropout(scope.dropout(own))),
        LayerArgs::Fixed(Fixed::ChannelDropout(own)) => {
            Box::new(Fixed::ChannelDropout(scope.dropout(own)))
        }
        LayerArgs::Fixed(fixed) => Box::new(fixed),
    })
}

/// Returns the minimum length of an axis (0: bands, 1: frames) for which `stages` leave at least one value.
fn least_along(axis: usize, stages: &[StageArgs]) -> i64 {
    let mut windows = Vec::new();
    for layer in stages.iter().flat_map(|(_, layers)| *layers) {
        match layer {
            LayerArgs::Conv(_, window, _) => windows.push(*window),
            LayerArgs::Pool(own) => windows.push(own[axis]),
            LayerArgs::Norm
            | LayerArgs::Dense(..)
            | LayerArgs::Recurrent(_)
            | LayerArgs::Fixed(_) => {}
        }
    }
    least_before(&windows)
}

/// Returns the minimum number of bands and frames for `stages` over frames only.
pub(crate) fn least_1d(stages: &[StageArgs]) -> [i64; 2] {
    [1, least_along(1, stages)]
}

/// Returns the minimum number of bands and frames for `stages` over both axes.
pub(crate) fn least_2d(stages: &[StageArgs]) -> [i64; 2] {
    [0, 1].map(|axis| least_along(axis, stages))
}

/// A backbone that is one sequence of stages.
#[derive(Debug)]
pub(crate) struct Sequential {
    stages: Sequence,
    reads_metadata: bool,
}

impl Sequential {
    /// Creates a backbone whose first stage begins with `picture`, from its stages.
    pub(crate) fn of_pictures(picture: AsPicture, mut stages: Sequence) -> Box<dyn Backbone> {
        if let Some((_, layers)) = stages.stages.first_mut() {
            layers.insert(0, Box::new(picture));
        }
        Self::of_rows(false, stages)
    }

    /// Creates a backbone over spectrograms, or over metadata if `reads_metadata`.
    pub(crate) fn of_rows(reads_metadata: bool, stages: Sequence) -> Box<dyn Backbone> {
        Box::new(Self {
            stages,
            reads_metadata,
        })
    }
}

impl Backbone for Sequential {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let x = if self.reads_metadata {
            metadata(inputs, "an mlp")?
        } else {
            &inputs.spectrogram
        };
        self.stages.forward(x, train, walk)
    }
}
