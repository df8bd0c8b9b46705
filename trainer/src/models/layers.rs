//! Building blocks shared by the architectures: variables with their initial values, convolutions, dense layers,
//! pooling, dropout.
//!
//! Every operation returns a `Result`: lack of device memory or a lost rank is an error instead of a panic.

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

/// Distribution from which a variable's initial values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Initializer {
    /// All values equal this constant.
    Constant(f64),
    /// Uniform distribution in ±`bound`.
    Uniform(f64),
    /// Normal distribution with mean 0 and this standard deviation.
    Normal(f64),
    /// torch's default for convolutions and dense layers: uniform distribution in ±1 / √fan-in.
    Torch,
    /// Keras's `he_normal`: normal distribution, truncated at two standard deviations, then with variance 2 / fan-in.
    HeNormal,
    /// Default of torchvision and timm for convolutions: normal distribution with variance 2 / fan-out.
    FanOut,
}

/// Standard deviation of the standard normal distribution after truncation at ±2.
const CUT_NORMAL_STD: f64 = 0.879_625_661_034_239_8;

/// A path in the variable store, with the settings shared by all layers of a model.
#[derive(Clone)]
pub(crate) struct VarScope<'a> {
    path: Path<'a>,
    dropout: Option<f64>,
    dropped: Rc<RefCell<Vec<f64>>>,
    layers: Rc<RefCell<Vec<String>>>,
    frozen: bool,
    ranks: Option<&'static Group>,
}

impl<'a> VarScope<'a> {
    /// Creates the scope of a model's root path. `ranks` is ignored unless the model enables batch norm over ranks.
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
            layers: Rc::default(),
            frozen: model.freeze,
            ranks,
        }
    }

    /// Returns the path in the variable store.
    pub(crate) fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// Returns the scope of a child path. `name` must not contain a dot.
    pub(crate) fn at(&self, name: impl ToString) -> Self {
        // The clone shares `dropped`, so the model's list contains the dropout rates of all its layers.
        Self {
            path: self.path.sub(name),
            ..self.clone()
        }
    }

    /// Returns the same scope, in which new variables are trained even if the model is frozen.
    pub(crate) fn trained(&self) -> Self {
        Self {
            frozen: false,
            ..self.clone()
        }
    }

    /// Returns the configured dropout rate, or else the architecture's rate `own`. Adds the rate to [`Self::dropped`].
    pub(crate) fn dropout(&self, own: f64) -> f64 {
        let share = self.dropout.unwrap_or(own);
        self.dropped.borrow_mut().push(share);
        share
    }

    /// Returns the rates of all dropout layers created so far in the model, in order.
    pub(crate) fn dropped(&self) -> Vec<f64> {
        self.dropped.borrow().clone()
    }

    /// Returns the first components of the names of all variables created so far in the model, in order.
    pub(crate) fn layers(&self) -> Vec<String> {
        self.layers.borrow().clone()
    }

    /// Returns the ranks over which batch norm computes its statistics; `None` for this rank only.
    pub(crate) fn ranks(&self) -> Option<&'static Group> {
        self.ranks
    }

    /// Creates a variable with initial values drawn from `start`. It is trained unless the scope is frozen.
    pub(crate) fn variable(
        &self,
        name: &str,
        dims: &[i64],
        start: Initializer,
    ) -> Result<Tensor, ModelError> {
        // `dims` is `[out, in, window…]`, from which torch computes fan-in and fan-out.
        let field: i64 = dims.iter().skip(2).product();
        let fan_in = (dims.get(1).unwrap_or(&1) * field) as f64;
        let fan_out = (dims.first().unwrap_or(&1) * field) as f64;

        // Values are drawn immediately from the process's generator: initial weights depend on the order of creation.
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

        let layer = self.path.components().next().unwrap_or(name).to_owned();
        let mut layers = self.layers.borrow_mut();
        if !layers.contains(&layer) {
            layers.push(layer);
        }
        Ok(self.path.add(name, values, !self.frozen))
    }

    /// Creates a variable `[length]` that is stored with the weights but never trained.
    pub(crate) fn buffer(&self, name: &str, length: i64, value: f64) -> Result<Tensor, ModelError> {
        let values = Tensor::f_full([length], value, (self.path.kind(), self.path.device()))?;
        Ok(self.path.add(name, values, false))
    }

    /// Creates a dense layer from `from` to `to` values, initialised as in torch. Variables: `weight`, `bias`.
    pub(crate) fn linear(&self, from: i64, to: i64) -> Result<Linear, ModelError> {
        // The bias is drawn before the weight: another order would change the weights that a seed gives.
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

/// Fills `values` by the inverse distribution function with normal values truncated at ±2, times `deviation`.
fn cut_normal(values: &mut Tensor, deviation: f64) -> Result<Tensor, ModelError> {
    // erf(2 / √2): the share of a normal distribution within ±2 standard deviations.
    const INSIDE: f64 = 0.954_499_736_103_641_6;
    // Map uniform numbers to shares within ±2 standard deviations, then by the inverse error function; no redrawing.
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

/// Computes the output `x · weightᵀ + bias` of a dense layer.
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
    /// Number of input channels.
    pub from: i64,
    /// Number of output channels.
    pub to: i64,
    /// Kernel, stride and padding along each axis.
    pub windows: &'a [Window],
    /// Number of groups: 1, or `from` for a separate filter per channel.
    pub groups: i64,
    /// Distribution of the initial values of the weight.
    pub start: Initializer,
}

impl Conv {
    /// Creates the convolution and its variable `weight` in `scope`.
    pub(crate) fn new(scope: &VarScope<'_>, args: ConvArgs<'_>) -> Result<Self, ModelError> {
        // Order of dimensions as in torch: output channels, input channels of a group, then the window.
        let mut dims = vec![args.to, args.from / args.groups];
        dims.extend(args.windows.iter().map(|window| window.kernel));
        let weight = scope.variable("weight", &dims, args.start)?;
        Ok(Self {
            weight,
            windows: args.windows.to_vec(),
            groups: args.groups,
        })
    }

    /// Creates a convolution over both axes of a picture, initialised as in torchvision and timm.
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

    /// Returns the number of output channels of the convolution.
    pub(crate) fn channels(&self) -> i64 {
        self.weight.size()[0]
    }

    /// Returns the stride of the convolution along the first axis.
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

    /// Applies the convolution and returns a tensor `[n, output channels, …]`.
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

/// Describes max pooling as an operation of a stage, or returns `None` if there are no windows.
pub(crate) fn pool_operation(windows: &[Window]) -> Option<Operation> {
    // Pooling windows are adjacent by default, so a stride is named only if it differs from the kernel.
    (!windows.is_empty()).then(|| {
        Operation::fixed(
            "max pool",
            describe_windows(windows, |window| window.kernel),
        )
    })
}

/// Applies max pooling with one window per axis. Returns `x` if `windows` is empty.
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
    /// ReLU: max(0, x).
    Relu,
    /// ELU: x, or e^x − 1 for negative x.
    Elu,
}

impl Activation {
    /// Describes the activation function as an operation of a stage.
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
    /// No dropout is applied.
    None,
    /// Sets single values to 0, with this rate.
    Values(f64),
    /// Sets whole channels of a row to 0, with this rate.
    Channels(f64),
}

impl Dropout {
    /// Returns the same kind of dropout, with the configured rate if there is one.
    #[must_use]
    pub(crate) fn at(self, scope: &VarScope<'_>) -> Self {
        match self {
            Self::None => self,
            Self::Values(own) => Self::Values(scope.dropout(own)),
            Self::Channels(own) => Self::Channels(scope.dropout(own)),
        }
    }

    /// Describes the dropout as an operation of a stage. Returns `None` if the rate is 0.
    pub(crate) fn operation(self) -> Option<Operation> {
        let (name, share) = match self {
            Self::None => return None,
            Self::Values(share) => ("dropout", share),
            Self::Channels(share) => ("channel dropout", share),
        };
        (share > 0.0).then(|| Operation::fixed(name, share.to_string()))
    }
}

/// In training, sets values or channels of `x` to 0 and scales up the rest; otherwise returns `x`.
pub(crate) fn drop(x: &Tensor, dropout: Dropout, train: bool) -> Result<Tensor, ModelError> {
    Ok(match dropout {
        Dropout::None => x.shallow_clone(),
        Dropout::Values(share) => x.f_dropout(share, train)?,
        Dropout::Channels(share) => x.f_feature_dropout(share, train)?,
    })
}

/// Arguments of a block: convolution, batch norm, activation, max pooling and dropout, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Number of output channels of the block.
    pub width: i64,
    /// Window of the convolution along each axis.
    pub conv: &'static [Window],
    /// Activation function after batch norm.
    pub activation: Activation,
    /// Window of max pooling along each axis; empty for no pooling.
    pub pool: &'static [Window],
    /// Dropout at the end of the block.
    pub dropout: Dropout,
}

impl Block {
    /// Creates a block with the activation ReLU.
    pub(crate) const fn relu(
        width: i64,
        conv: &'static [Window],
        pool: &'static [Window],
        dropout: Dropout,
    ) -> Self {
        Self {
            width,
            conv,
            activation: Activation::Relu,
            pool,
            dropout,
        }
    }
}

/// A convolution followed by batch norm.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    pub conv: Conv,
    pub norm: BatchNorm,
}

impl ConvNorm {
    /// Creates a convolution over both axes of a picture, followed by batch norm.
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

    /// Describes the convolution and the batch norm as operations of a stage.
    pub(crate) fn operations(&self) -> [Operation; 2] {
        [self.conv.operation(), self.norm.operation()]
    }

    /// Applies convolution and batch norm, and returns a tensor `[n, output channels, …]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        self.norm.forward(&self.conv.forward(x)?, train)
    }
}

/// A dense layer, followed by ReLU and dropout.
#[derive(Debug)]
pub(crate) struct DenseRelu {
    layer: Linear,
    dropout: f64,
}

impl DenseRelu {
    /// Creates a dense layer from `from` to `to` values in `scope`. `own_dropout` is the architecture's dropout rate.
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

    /// Describes the dense layer, ReLU and dropout as operations of a stage.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![
            dense_operation(&self.layer.ws, self.layer.bs.as_ref()),
            Operation::fixed("ReLU", ""),
        ];
        operations.extend(Dropout::Values(self.dropout).operation());
        operations
    }

    /// Maps values `[n, from]` to `[n, to]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        Ok(dense(&self.layer, x)?
            .f_relu()?
            .f_dropout(self.dropout, train)?)
    }
}

/// A sequence of blocks. Variables of block I (from 1): `convI.weight` and `normI.*`.
#[derive(Debug)]
pub(crate) struct Blocks {
    layers: Vec<BlockLayers>,
}

/// The layers built from the arguments in a [`Block`].
#[derive(Debug)]
struct BlockLayers {
    conv_norm: ConvNorm,
    activation: Activation,
    pool: &'static [Window],
    dropout: Dropout,
}

impl BlockLayers {
    /// Describes the layers of the block as operations of a stage.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = self.conv_norm.operations().to_vec();
        operations.push(self.activation.operation());
        operations.extend(pool_operation(self.pool));
        operations.extend(self.dropout.operation());
        operations
    }
}

impl Blocks {
    /// Creates the layers of all `blocks`. `from` is the number of input channels.
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

    /// Maps `[n, channels, …]` to `[n, width of the last block, …]`. Reports block I to `walk` as the stage `convI`.
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

/// Returns the windows of the convolutions and poolings in `blocks` along frames (`from_last` 0) or bands (1).
pub(crate) fn windows_along(blocks: &[Block], from_last: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    for block in blocks {
        // Windows are listed in the order in which a block applies them. A block over frames only has no window along
        // bands and preserves their number.
        for step in [block.conv, block.pool] {
            windows.extend(step.iter().rev().nth(from_last));
        }
    }
    windows
}

/// Returns the length of an axis after `blocks`. `from_last` is 0 for frames and 1 for bands.
pub(crate) fn behind(blocks: &[Block], from_last: usize, length: i64) -> i64 {
    length_behind(&windows_along(blocks, from_last), length)
}

/// Returns the minimum number of bands and frames for which `blocks` leave at least one value.
pub(crate) fn least_for(blocks: &[Block]) -> [i64; 2] {
    [
        least_before(&windows_along(blocks, 1)),
        least_before(&windows_along(blocks, 0)),
    ]
}

/// Computes the mean over `axes`, in the kind of `x`.
pub(crate) fn mean_over(x: &Tensor, axes: &[i64]) -> Result<Tensor, ModelError> {
    Ok(x.f_mean_dim(axes, false, None::<Kind>)?)
}
