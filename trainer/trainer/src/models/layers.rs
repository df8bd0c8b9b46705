//! Layers shared by the architectures, and variables with their initial values. A layer computes its output and
//! describes itself, so that a description cannot differ from the code.
//!
//! Every operation returns a `Result`: lack of device memory or a lost rank is an error instead of a panic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;

use tch::nn::Path;
use tch::{Kind, Tensor};
use wavemill_schemas::config;

use super::ModelError;
use super::norm::BatchNorm;
use super::walk::{Operation, OperationKind};
use super::window::{Window, describe_windows};
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
    /// Path in the variable store.
    pub path: Path<'a>,
    /// Configured dropout rate.
    dropout: Option<f64>,
    /// Configured numbers of filters and hidden sizes of the layers that are not created yet; empty if none are
    /// configured.
    widths: Rc<RefCell<[VecDeque<i64>; 2]>>,
    /// Rates of all dropout layers created so far in the model, in order.
    pub dropped: Rc<RefCell<Vec<f64>>>,
    /// First components of the names of all variables created so far in the model, in order.
    pub layers: Rc<RefCell<Vec<String>>>,
    frozen: bool,
    /// Ranks over which batch norm computes its statistics; `None` for this rank only.
    pub ranks: Option<&'static Group>,
}

impl<'a> VarScope<'a> {
    /// Creates the scope of a model's root path. `ranks` is ignored unless the model enables batch norm over ranks.
    pub(crate) fn new(
        path: &Path<'a>,
        model: &config::Model,
        ranks: Option<&'static Group>,
    ) -> Self {
        let ranks = ranks.filter(|_| model.sync_batch_norm);
        let widths = [&model.filters, &model.hidden];
        Self {
            path: path.clone(),
            dropout: model.dropout,
            widths: Rc::new(RefCell::new(widths.map(|widths| widths.clone().into()))),
            dropped: Rc::default(),
            layers: Rc::default(),
            frozen: model.freeze,
            ranks,
        }
    }

    /// Returns the scope of a child path. `name` must not contain a dot.
    pub(crate) fn at(&self, name: impl ToString) -> Self {
        // The clone shares the lists: `dropped` contains the dropout rates of all layers of the model.
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

    /// Returns the next configured width of a list, `FILTERS` or `HIDDEN`, or else the architecture's width `own`.
    pub(crate) fn width(&self, list: usize, own: i64) -> i64 {
        let next = self.widths.borrow_mut()[list].pop_front();
        next.unwrap_or(own)
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

/// A layer of a model.
pub(crate) trait Layer: Debug + Send {
    /// Computes the output of the layer. `train` enables dropout and makes batch norm use the statistics of the batch.
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError>;

    /// Describes the layer as operations of a stage.
    fn operations(&self) -> Vec<Operation>;
}

/// Layers that are applied one after another.
pub(crate) type Layers = Vec<Box<dyn Layer>>;

impl Layer for Layers {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let mut x = x.shallow_clone();
        for layer in self {
            x = layer.forward(&x, train)?;
        }
        Ok(x)
    }

    fn operations(&self) -> Vec<Operation> {
        self.iter().flat_map(|layer| layer.operations()).collect()
    }
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
}

impl Layer for Conv {
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor, ModelError> {
        let stride: Vec<i64> = self.windows.iter().map(|w| w.stride).collect();
        let padding: Vec<i64> = self.windows.iter().map(|w| w.padding).collect();
        let dilation = vec![1; self.windows.len()];
        let bias = None::<&Tensor>;
        Ok(match self.windows.len() {
            1 => x.f_conv1d(&self.weight, bias, stride, padding, dilation, self.groups)?,
            _ => x.f_conv2d(&self.weight, bias, stride, padding, dilation, self.groups)?,
        })
    }

    fn operations(&self) -> Vec<Operation> {
        let windows = describe_windows(&self.windows, |_| 1);
        let channels = self.weight.size()[0];
        vec![Operation {
            kind: OperationKind::Convolution,
            name: match self.windows.len() {
                1 => "1-D convolution",
                _ => "2-D convolution",
            },
            settings: format!("{windows}, {channels} channels"),
            parameters: self.weight.numel() as i64,
        }]
    }
}

/// Creates a convolution over both axes of a picture, followed by batch norm, in the scopes `names` of `scope`.
pub(crate) fn conv_norm(
    scope: &VarScope<'_>,
    names: [&str; 2],
    [from, to]: [i64; 2],
    window: Window,
) -> Result<Layers, ModelError> {
    let [conv, norm] = names.map(|name| scope.at(name));
    Ok(vec![
        Box::new(Conv::over_picture(&conv, from, to, window, 1)?),
        Box::new(BatchNorm::new(&norm, to)?),
    ])
}

/// Bias of a dense layer. If it were drawn at another time, a seed would give other weights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    /// Drawn before the weight.
    First,
    /// Drawn after the weight.
    Last,
    /// The layer has no bias, because batch norm would cancel it.
    None,
}

/// A dense layer: x · weightᵀ + bias.
#[derive(Debug)]
pub(crate) struct Dense {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Dense {
    /// Creates a dense layer from `from` to `to` values, initialised as in torch. Variables: `weight`, `bias`.
    pub(crate) fn new(
        scope: &VarScope<'_>,
        from: i64,
        to: i64,
        bias: Bias,
    ) -> Result<Self, ModelError> {
        let mut drawn = None;
        let bound = Initializer::Uniform((from as f64).powf(-0.5));
        if matches!(bias, Bias::First) {
            drawn = Some(scope.variable("bias", &[to], bound)?);
        }
        let weight = scope.variable("weight", &[to, from], Initializer::Torch)?;
        if matches!(bias, Bias::Last) {
            drawn = Some(scope.variable("bias", &[to], bound)?);
        }
        Ok(Self {
            weight,
            bias: drawn,
        })
    }
}

impl Layer for Dense {
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor, ModelError> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
    }

    fn operations(&self) -> Vec<Operation> {
        let parameters = self.weight.numel() + self.bias.as_ref().map_or(0, Tensor::numel);
        vec![Operation {
            kind: OperationKind::Dense,
            name: "dense",
            settings: format!("{} units", self.weight.size()[0]),
            parameters: parameters as i64,
        }]
    }
}

/// A layer without variables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fixed {
    /// max(0, x).
    Relu,
    /// x, or e^x − 1 for negative x.
    Elu,
    /// In training, sets single values to 0 with this rate, and scales up the rest.
    Dropout(f64),
    /// In training, sets whole channels of a row to 0 with this rate, and scales up the rest.
    ChannelDropout(f64),
    /// Makes a picture with one channel of a spectrogram: `[n, bands, frames]` → `[n, 1, bands, frames]`.
    AddChannel,
    /// Concatenates all values of a row, as input of a dense layer.
    Flatten,
    /// The mean of each channel over bands and frames.
    Mean,
    /// The mean and the maximum of each channel over frames, concatenated.
    MeanMax,
    /// Makes a step of each frame: `[n, values, frames]` → `[n, frames, values]`. Channels and bands are concatenated.
    Steps,
    /// [`Self::Steps`] of rows with channels and bands, which a description states.
    BandSteps,
    /// The state after the last step.
    LastStep,
    /// The last state of each direction of a recurrent layer that processes the steps both ways, concatenated.
    LastStates,
    /// The mean of the states over all steps.
    StepMean,
    /// Mean and maximum of the states over all steps, concatenated.
    StepMeanMax,
}

impl Layer for Fixed {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        Ok(match *self {
            Self::Relu => x.f_relu()?,
            Self::Elu => x.f_elu()?,
            Self::Dropout(share) => x.f_dropout(share, train)?,
            Self::ChannelDropout(share) => x.f_feature_dropout(share, train)?,
            Self::AddChannel => x.f_unsqueeze(1)?,
            Self::Flatten => x.f_flatten(1, -1)?,
            Self::Mean => mean_over(x, &[2, 3])?,
            Self::MeanMax => mean_max(x, 2)?,
            Self::Steps | Self::BandSteps => match x.dim() {
                4 => x.f_permute([0, 3, 1, 2])?.f_flatten(2, 3)?,
                _ => x.f_transpose(1, 2)?,
            },
            Self::LastStep => x.f_select(1, -1)?,
            Self::LastStates => {
                // The reverse direction ends at the first step.
                let width = x.size()[2] / 2;
                let ahead = x.f_select(1, -1)?.f_narrow(1, 0, width)?;
                let back = x.f_select(1, 0)?.f_narrow(1, width, width)?;
                Tensor::f_cat(&[ahead, back], 1)?
            }
            Self::StepMean => mean_over(x, &[1])?,
            Self::StepMeanMax => mean_max(x, 1)?,
        })
    }

    /// Omits dropout with the rate 0.
    fn operations(&self) -> Vec<Operation> {
        let (name, settings) = match *self {
            Self::Dropout(share) if share > 0.0 => {
                return vec![Operation::fixed("dropout", share.to_string())];
            }
            Self::ChannelDropout(share) if share > 0.0 => {
                return vec![Operation::fixed("channel dropout", share.to_string())];
            }
            Self::Dropout(_) | Self::ChannelDropout(_) | Self::AddChannel => return Vec::new(),
            Self::Relu => ("ReLU", ""),
            Self::Elu => ("ELU", ""),
            Self::Flatten => ("flatten", ""),
            Self::Mean => ("mean", "over bands and frames"),
            Self::MeanMax => ("mean and maximum", "over frames"),
            Self::Steps => ("one step per frame", ""),
            Self::BandSteps => ("one step per frame", "channels and bands concatenated"),
            Self::LastStep => ("last state", ""),
            Self::LastStates => ("last state", "of each direction"),
            Self::StepMean => ("mean", "over steps"),
            Self::StepMeanMax => ("mean and maximum", "over steps"),
        };
        vec![Operation::fixed(name, settings)]
    }
}

/// Max pooling with one window per axis.
#[derive(Debug)]
pub(crate) struct MaxPool(pub Vec<Window>);

impl Layer for MaxPool {
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor, ModelError> {
        let kernel: Vec<i64> = self.0.iter().map(|w| w.kernel).collect();
        let stride: Vec<i64> = self.0.iter().map(|w| w.stride).collect();
        let padding: Vec<i64> = self.0.iter().map(|w| w.padding).collect();
        let dilation = vec![1; self.0.len()];
        Ok(match self.0.len() {
            1 => x.f_max_pool1d(kernel, stride, padding, dilation, false)?,
            _ => x.f_max_pool2d(kernel, stride, padding, dilation, false)?,
        })
    }

    fn operations(&self) -> Vec<Operation> {
        // Pooling windows are adjacent by default, so a stride is named only if it differs from the kernel.
        let settings = describe_windows(&self.0, |window| window.kernel);
        vec![Operation::fixed("max pool", settings)]
    }
}

/// Computes the mean over `axes`, in the kind of `x`.
pub(crate) fn mean_over(x: &Tensor, axes: &[i64]) -> Result<Tensor, ModelError> {
    Ok(x.f_mean_dim(axes, false, None::<Kind>)?)
}

fn mean_max(x: &Tensor, axis: i64) -> Result<Tensor, ModelError> {
    let most = x.f_amax(axis, false)?;
    Ok(Tensor::f_cat(&[mean_over(x, &[axis])?, most], 1)?)
}

/// Creates the layers between the convolutions of a published network and its head. The rate of dropout is 0, unless the
/// configuration sets a rate.
pub(crate) fn mean_and_dropout(scope: &VarScope<'_>) -> Layers {
    let dropout = Fixed::Dropout(scope.dropout(0.0));
    vec![Box::new(Fixed::Mean), Box::new(dropout)]
}

/// Layers whose output is added to their input, or to the output of a shortcut.
#[derive(Debug)]
pub(crate) struct Residual {
    pub body: Layers,
    /// Layers beside the body; empty if the input is added unchanged, since its shape equals the output's.
    pub shortcut: Layers,
}

impl Layer for Residual {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let y = self.body.forward(x, train)?;
        Ok(y.f_add(&self.shortcut.forward(x, train)?)?)
    }

    fn operations(&self) -> Vec<Operation> {
        [self.body.operations(), self.shortcut.operations()].concat()
    }
}

/// Layers with a shorter description than that of each layer.
#[derive(Debug)]
pub(crate) struct Described {
    pub layers: Layers,
    pub operations: Vec<Operation>,
}

impl Layer for Described {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        self.layers.forward(x, train)
    }

    fn operations(&self) -> Vec<Operation> {
        self.operations.clone()
    }
}
