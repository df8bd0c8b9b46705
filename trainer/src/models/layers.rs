//! Building blocks shared by the architectures: variables with their initial values, convolutions, dense layers,
//! pooling, dropout.
//!
//! Every step returns a `Result`: lack of device memory or a lost rank is an error, not a panic.

use std::cell::RefCell;
use std::rc::Rc;

use tch::nn::{Linear, Path};
use tch::{Kind, Tensor};
use wavemill_schemas::config;

use super::ModelError;
use super::norm::BatchNorm;
use super::walk::{Operation, OperationKind, Walk};
use super::window::{Window, describe_windows, least_before, length_behind};
use crate::ffi::Group;

/// Distribution of a variable's initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Initializer {
    /// Every value is this constant.
    Constant(f64),
    /// Uniform in ±`bound`.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// torch's default for convolutions and dense layers: uniform in ±1 / √fan-in.
    Torch,
    /// Keras's `he_normal`: normal, truncated at two standard deviations, with variance 2 / fan-in after truncation.
    HeNormal,
    /// Default of torchvision and timm for convolutions: normal with variance 2 / fan-out.
    FanOut,
}

/// Standard deviation of a standard normal distribution truncated at ±2.
const CUT_NORMAL_STD: f64 = 0.879_625_661_034_239_8;

/// A path in the variable store, with the settings shared by all layers of a model.
#[derive(Clone)]
pub(crate) struct VarScope<'a> {
    path: Path<'a>,
    dropout: Option<f64>,
    dropped: Rc<RefCell<Vec<f64>>>,
    frozen: bool,
    ranks: Option<&'static Group>,
}

impl std::fmt::Debug for VarScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path.components().collect::<Vec<_>>().join("."))
    }
}

impl<'a> VarScope<'a> {
    /// Creates the scope of a model's root. `ranks` is ignored unless the model enables batch norm over ranks.
    pub(crate) fn new(
        path: &Path<'a>,
        model: &config::Model,
        ranks: Option<&'static Group>,
    ) -> Self {
        let ranks = ranks.filter(|_| model.sync_batch_norm);
        Self {
            path: path.clone(),
            dropout: model.dropout,
            dropped: Rc::default(),
            frozen: model.freeze,
            ranks,
        }
    }

    /// Returns the scope of a child path. `name` must not contain a dot.
    pub(crate) fn at(&self, name: impl ToString) -> Self {
        // The clone shares `dropped`, so the model's list contains the rates of all its layers.
        Self {
            path: self.path.sub(name),
            ..self.clone()
        }
    }

    /// Returns the same scope with variables that are trained even if the model is frozen.
    pub(crate) fn trained(&self) -> Self {
        Self {
            frozen: false,
            ..self.clone()
        }
    }

    /// Returns the configured dropout rate, or the architecture's `own`, and adds it to [`Self::dropped`].
    pub(crate) fn dropout(&self, own: f64) -> f64 {
        let share = self.dropout.unwrap_or(own);
        self.dropped.borrow_mut().push(share);
        share
    }

    /// Returns the rates of all dropout layers created so far, in order.
    pub(crate) fn dropped(&self) -> Vec<f64> {
        self.dropped.borrow().clone()
    }

    /// Returns the group of ranks over which batch norm sums.
    pub(crate) fn ranks(&self) -> Option<&'static Group> {
        self.ranks
    }

    /// Creates a variable, which is trained unless the scope is frozen.
    pub(crate) fn variable(
        &self,
        name: &str,
        dims: &[i64],
        start: Initializer,
    ) -> Result<Tensor, ModelError> {
        // Dimensions are `[out, in, window…]`, which is torch's convention for computing fans.
        let field: i64 = dims.iter().skip(2).product();
        let fan_in = (dims.get(1).unwrap_or(&1) * field) as f64;
        let fan_out = (dims.first().unwrap_or(&1) * field) as f64;

        // Drawn from the process's generator right away: the initial weights depend on the order of creation.
        let mut values = Tensor::f_zeros(dims, (self.path.kind(), self.path.device()))?;
        let _ = match start {
            Initializer::Constant(value) => values.f_fill_(value)?,
            Initializer::Uniform(bound) => values.f_uniform_(-bound, bound)?,
            Initializer::Normal(deviation) => values.f_normal_(0.0, deviation)?,
            Initializer::Torch => values.f_uniform_(-fan_in.powf(-0.5), fan_in.powf(-0.5))?,
            Initializer::HeNormal => {
                cut_normal(&mut values, (2.0 / fan_in).sqrt() / CUT_NORMAL_STD)?
            }
            Initializer::FanOut => values.f_normal_(0.0, (2.0 / fan_out).sqrt())?,
        };

        Ok(self.path.add(name, values, !self.frozen))
    }

    /// Creates a variable `[length]` that is stored with the weights but never trained.
    pub(crate) fn buffer(&self, name: &str, length: i64, value: f64) -> Result<Tensor, ModelError> {
        let values = Tensor::f_full([length], value, (self.path.kind(), self.path.device()))?;
        Ok(self.path.add(name, values, false))
    }

    /// Creates a dense layer from `from` to `to` values with torch's initialisation. Variables: `weight`, `bias`.
    pub(crate) fn linear(&self, from: i64, to: i64) -> Result<Linear, ModelError> {
        // Bias before weight: changing the order of draws would change the weights that a seed gives.
        let bias = self.variable(
            "bias",
            &[to],
            Initializer::Uniform((from as f64).powf(-0.5)),
        )?;
        Ok(Linear {
            ws: self.variable("weight", &[to, from], Initializer::Torch)?,
            bs: Some(bias),
        })
    }
}

/// Fills `values` with normal values truncated at ±2, times `deviation`, using the inverse distribution function.
fn cut_normal(values: &mut Tensor, deviation: f64) -> Result<Tensor, ModelError> {
    // erf(2 / √2): the share of a normal distribution within two standard deviations.
    const INSIDE: f64 = 0.954_499_736_103_641_6;
    // Uniform shares within ±2 standard deviations, mapped by the inverse error function: nothing is redrawn.
    let drawn = values
        .f_uniform_(-INSIDE, INSIDE)?
        .f_erfinv()?
        .f_mul_scalar(deviation * std::f64::consts::SQRT_2)?;
    Ok(values.f_copy_(&drawn).map(|()| values.shallow_clone())?)
}

/// Describes a dense layer as an operation of a stage.
pub(crate) fn dense_operation(weight: &Tensor, bias: Option<&Tensor>) -> Operation {
    let parameters = weight.numel() + bias.map_or(0, Tensor::numel);
    Operation {
        kind: OperationKind::Dense,
        name: "dense",
        settings: format!("{} units", weight.size()[0]),
        parameters: parameters as i64,
    }
}

/// Computes `x · weightᵀ + bias`.
pub(crate) fn dense(layer: &Linear, x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_linear(&layer.ws, layer.bs.as_ref())?)
}

/// A convolution along one axis (`[n, channels, frames]`) or two (`[n, channels, bands, frames]`), without bias: each
/// convolution is followed by batch norm, which would cancel the bias.
#[derive(Debug)]
pub(crate) struct Conv {
    weight: Tensor,
    windows: Vec<Window>,
    groups: i64,
}

/// Arguments of [`Conv::new`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvArgs<'a> {
    /// Input channels.
    pub from: i64,
    /// Output channels.
    pub to: i64,
    /// One window per axis.
    pub windows: &'a [Window],
    /// 1, or `from` for one filter per channel.
    pub groups: i64,
    /// Initial values of the weight.
    pub start: Initializer,
}

impl Conv {
    /// Creates the variable `weight` in `scope`.
    pub(crate) fn new(scope: &VarScope<'_>, args: ConvArgs<'_>) -> Result<Self, ModelError> {
        // torch's order: output channels, input channels of a group, then the window.
        let mut dims = vec![args.to, args.from / args.groups];
        dims.extend(args.windows.iter().map(|window| window.kernel));
        let weight = scope.variable("weight", &dims, args.start)?;
        Ok(Self {
            weight,
            windows: args.windows.to_vec(),
            groups: args.groups,
        })
    }

    /// Creates a convolution over both axes of a picture, initialized as in torchvision and timm.
    pub(crate) fn over_picture(
        scope: &VarScope<'_>,
        from: i64,
        to: i64,
        window: Window,
        groups: i64,
    ) -> Result<Self, ModelError> {
        let args = ConvArgs {
            from,
            to,
            windows: &[window; 2],
            groups,
            start: Initializer::FanOut,
        };
        Self::new(scope, args)
    }

    /// Returns the number of output channels.
    pub(crate) fn channels(&self) -> i64 {
        self.weight.size()[0]
    }

    /// Returns the stride along the first axis.
    pub(crate) fn stride(&self) -> i64 {
        self.windows.first().map_or(1, |window| window.stride)
    }

    /// Describes the convolution as an operation of a stage.
    pub(crate) fn operation(&self) -> Operation {
        let windows = describe_windows(&self.windows, |_| 1);
        Operation {
            kind: OperationKind::Convolution,
            name: match self.windows.len() {
                1 => "1-D convolution",
                _ => "2-D convolution",
            },
            settings: format!("{windows}, {} channels", self.channels()),
            parameters: self.weight.numel() as i64,
        }
    }

    /// Returns a tensor `[n, output channels, …]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let stride: Vec<i64> = self.windows.iter().map(|w| w.stride).collect();
        let padding: Vec<i64> = self.windows.iter().map(|w| w.padding).collect();
        let dilation = vec![1; self.windows.len()];
        let bias = None::<&Tensor>;
        Ok(match self.windows.len() {
            1 => x.f_conv1d(&self.weight, bias, stride, padding, dilation, self.groups)?,
            _ => x.f_conv2d(&self.weight, bias, stride, padding, dilation, self.groups)?,
        })
    }
}

/// Describes max pooling as an operation of a stage; `None` without windows.
pub(crate) fn pool_operation(windows: &[Window]) -> Option<Operation> {
    // Pooling windows are adjacent by default, so a stride is named only if it differs from the kernel.
    (!windows.is_empty()).then(|| {
        Operation::fixed(
            "max pool",
            describe_windows(windows, |window| window.kernel),
        )
    })
}

/// Applies max pooling with one window per axis, or returns `x` if `windows` is empty.
pub(crate) fn max_pool(x: &Tensor, windows: &[Window]) -> Result<Tensor, ModelError> {
    let kernel: Vec<i64> = windows.iter().map(|w| w.kernel).collect();
    let stride: Vec<i64> = windows.iter().map(|w| w.stride).collect();
    let padding: Vec<i64> = windows.iter().map(|w| w.padding).collect();
    let dilation = vec![1; windows.len()];
    Ok(match windows.len() {
        0 => x.shallow_clone(),
        1 => x.f_max_pool1d(kernel, stride, padding, dilation, false)?,
        _ => x.f_max_pool2d(kernel, stride, padding, dilation, false)?,
    })
}

/// Activation function after batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// max(0, x).
    Relu,
    /// x, or e^x − 1 for negative x.
    Elu,
}

impl Activation {
    /// Describes the activation as an operation of a stage.
    fn operation(self) -> Operation {
        Operation::fixed(
            match self {
                Self::Relu => "ReLU",
                Self::Elu => "ELU",
            },
            "",
        )
    }
}

/// Kind and rate of dropout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dropout {
    /// No dropout.
    None,
    /// Drops single values.
    Values(f64),
    /// Drops whole channels of a row.
    Channels(f64),
}

impl Dropout {
    /// Returns this dropout with the configured rate, if the configuration sets one.
    #[must_use]
    pub(crate) fn at(self, scope: &VarScope<'_>) -> Self {
        match self {
            Self::None => self,
            Self::Values(own) => Self::Values(scope.dropout(own)),
            Self::Channels(own) => Self::Channels(scope.dropout(own)),
        }
    }

    /// Describes the dropout as an operation of a stage; `None` if nothing is dropped.
    pub(crate) fn operation(self) -> Option<Operation> {
        let (name, share) = match self {
            Self::None => return None,
            Self::Values(share) => ("dropout", share),
            Self::Channels(share) => ("channel dropout", share),
        };
        (share > 0.0).then(|| Operation::fixed(name, share.to_string()))
    }
}

/// Sets the dropped parts of `x` to 0 and scales up the rest in training; returns `x` otherwise.
pub(crate) fn drop(x: &Tensor, dropout: Dropout, train: bool) -> Result<Tensor, ModelError> {
    Ok(match dropout {
        Dropout::None => x.shallow_clone(),
        Dropout::Values(share) => x.f_dropout(share, train)?,
        Dropout::Channels(share) => x.f_feature_dropout(share, train)?,
    })
}

/// Convolution, batch norm, activation, max pooling and dropout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Output channels.
    pub width: i64,
    /// One window per axis.
    pub conv: &'static [Window],
    /// Applied after batch norm.
    pub activation: Activation,
    /// One window per axis, or empty for no pooling.
    pub pool: &'static [Window],
    /// Applied last.
    pub dropout: Dropout,
}

/// A convolution followed by batch norm.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    pub conv: Conv,
    pub norm: BatchNorm,
}

impl ConvNorm {
    /// Creates a convolution over both axes of a picture, and its batch norm.
    pub(crate) fn over_picture(
        [conv, norm]: [&VarScope<'_>; 2],
        from: i64,
        to: i64,
        window: Window,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            conv: Conv::over_picture(conv, from, to, window, 1)?,
            norm: BatchNorm::new(norm, to)?,
        })
    }

    /// Describes both layers as operations of a stage.
    pub(crate) fn operations(&self) -> [Operation; 2] {
        [self.conv.operation(), self.norm.operation()]
    }

    /// Returns a tensor `[n, output channels, …]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        self.norm.forward(&self.conv.forward(x)?, train)
    }
}

/// A dense layer, ReLU and dropout.
#[derive(Debug)]
pub(crate) struct DenseRelu {
    layer: Linear,
    dropout: f64,
}

impl DenseRelu {
    /// Creates a layer from `from` to `to` values in `scope`. `own_dropout` is the architecture's rate.
    pub(crate) fn new(
        scope: &VarScope<'_>,
        from: i64,
        to: i64,
        own_dropout: f64,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            layer: scope.linear(from, to)?,
            dropout: scope.dropout(own_dropout),
        })
    }

    /// Describes the layers as operations of a stage.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![
            dense_operation(&self.layer.ws, self.layer.bs.as_ref()),
            Operation::fixed("ReLU", ""),
        ];
        operations.extend(Dropout::Values(self.dropout).operation());
        operations
    }

    /// Maps `[n, from]` to `[n, to]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        Ok(dense(&self.layer, x)?
            .f_relu()?
            .f_dropout(self.dropout, train)?)
    }
}

/// A sequence of blocks. Variables: `convI.weight` and `normI.*`, I from 1.
#[derive(Debug)]
pub(crate) struct Blocks {
    layers: Vec<BlockLayers>,
}

/// The layers built from a [`Block`].
#[derive(Debug)]
struct BlockLayers {
    conv_norm: ConvNorm,
    activation: Activation,
    pool: &'static [Window],
    dropout: Dropout,
}

impl BlockLayers {
    /// Describes the layers as operations of a stage.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = self.conv_norm.operations().to_vec();
        operations.push(self.activation.operation());
        operations.extend(pool_operation(self.pool));
        operations.extend(self.dropout.operation());
        operations
    }
}

impl Blocks {
    /// Creates the layers of `blocks`. `from` is the number of input channels.
    pub(crate) fn new(
        scope: &VarScope<'_>,
        mut from: i64,
        blocks: &[Block],
    ) -> Result<Self, ModelError> {
        let mut layers = Vec::with_capacity(blocks.len());

        for (i, block) in blocks.iter().enumerate() {
            let args = ConvArgs {
                from,
                to: block.width,
                windows: block.conv,
                groups: 1,
                start: Initializer::Torch,
            };
            let conv = Conv::new(&scope.at(format!("conv{}", i + 1)), args)?;
            let norm = BatchNorm::new(&scope.at(format!("norm{}", i + 1)), block.width)?;

            layers.push(BlockLayers {
                conv_norm: ConvNorm { conv, norm },
                activation: block.activation,
                pool: block.pool,
                dropout: block.dropout.at(scope),
            });
            from = block.width;
        }

        Ok(Self { layers })
    }

    /// Maps `[n, channels, …]` to `[n, width of the last block, …]`. Reports each block to `walk` as `convI`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        train: bool,
        walk: &mut Walk,
    ) -> Result<Tensor, ModelError> {
        let mut x = x.shallow_clone();

        for (i, block) in self.layers.iter().enumerate() {
            x = block.conv_norm.forward(&x, train)?;
            x = match block.activation {
                Activation::Relu => x.f_relu()?,
                Activation::Elu => x.f_elu()?,
            };
            x = drop(&max_pool(&x, block.pool)?, block.dropout, train)?;

            walk.stage(format_args!("conv{}", i + 1), &x, || block.operations());
        }

        Ok(x)
    }
}

/// Returns the windows of `blocks` along an axis, counted from the last axis (0: frames, 1: bands).
pub(crate) fn windows_along(blocks: &[Block], from_last: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    for block in blocks {
        // In the order in which a block applies them. A block over frames only has no window along bands and keeps
        // their number.
        for step in [block.conv, block.pool] {
            windows.extend(step.iter().rev().nth(from_last));
        }
    }
    windows
}

/// Returns the length of an axis after `blocks`.
pub(crate) fn behind(blocks: &[Block], from_last: usize, length: i64) -> i64 {
    length_behind(&windows_along(blocks, from_last), length)
}

/// Returns the minimum number of bands and frames for which the output of `blocks` is not empty.
pub(crate) fn least_for(blocks: &[Block]) -> [i64; 2] {
    [
        least_before(&windows_along(blocks, 1)),
        least_before(&windows_along(blocks, 0)),
    ]
}

/// Computes the mean over `axes` in the tensor's own kind.
pub(crate) fn mean_over(x: &Tensor, axes: &[i64]) -> Result<Tensor, ModelError> {
    Ok(x.f_mean_dim(axes, false, None::<Kind>)?)
}
