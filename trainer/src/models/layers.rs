//! The parts that architectures share: variables with their initial values, convolutions, dense layers, recurrent cells.
//!
//! Every step is a `Result`: no memory on the device, or a rank that is gone, is an error and no panic. Knows no
//! architecture.

use std::cell::RefCell;
use std::rc::Rc;

use tch::nn::{Linear, Path};
use tch::{Kind, Tensor};

use super::ModelError;
use super::norm::BatchNorm;
use super::window::{Window, least_before, length_behind};
use crate::config;
use crate::ffi::Group;

/// How a variable begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// This value.
    Constant(f64),
    /// Uniform in ±`bound`.
    Uniform(f64),
    /// Normal with this deviation.
    Normal(f64),
    /// torch's default for convolutions and dense layers: uniform in ±1 / √fan-in.
    Torch,
    /// Keras's `he_normal`: normal, cut at two deviations, with variance 2 / fan-in after the cut.
    HeNormal,
    /// torchvision's and timm's for convolutions: normal with variance 2 / fan-out.
    FanOut,
}

/// Deviation of a standard normal cut at ±2.
const CUT_NORMAL_STD: f64 = 0.879_625_661_034_239_8;

/// Where in the variable store a part is made, and what every part must know.
#[derive(Clone)]
pub struct Site<'a> {
    path: Path<'a>,
    dropout: Option<f64>,
    dropped: Rc<RefCell<Vec<f64>>>,
    frozen: bool,
    ranks: Option<&'static Group>,
}

impl std::fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path.components().collect::<Vec<_>>().join("."))
    }
}

impl<'a> Site<'a> {
    /// The root of a model. `ranks` counts only where the model asks for batch norm over them.
    #[must_use]
    pub fn new(path: &Path<'a>, model: &config::Model, ranks: Option<&'static Group>) -> Self {
        let ranks = ranks.filter(|_| model.sync_batch_norm);
        Self { path: path.clone(), dropout: model.dropout, dropped: Rc::default(), frozen: model.freeze, ranks }
    }

    /// A place below, by a name without a dot.
    #[must_use]
    pub fn at(&self, name: impl ToString) -> Self {
        Self { path: self.path.sub(name), ..self.clone() }
    }

    /// The same place, where variables are trained in any case.
    #[must_use]
    pub fn trained(&self) -> Self {
        Self { frozen: false, ..self.clone() }
    }

    /// The configuration's dropout, or the architecture's `own`; noted in [`Self::dropped`].
    #[must_use]
    pub fn dropout(&self, own: f64) -> f64 {
        let share = self.dropout.unwrap_or(own);
        self.dropped.borrow_mut().push(share);
        share
    }

    /// The shares of all dropouts made so far, in order.
    #[must_use]
    pub fn dropped(&self) -> Vec<f64> {
        self.dropped.borrow().clone()
    }

    /// The group that batch norm sums over.
    #[must_use]
    pub fn ranks(&self) -> Option<&'static Group> {
        self.ranks
    }

    /// A variable; trained, unless the place is frozen.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn variable(&self, name: &str, dims: &[i64], start: Start) -> Result<Tensor, ModelError> {
        let field: i64 = dims.iter().skip(2).product();
        let fan_in = (dims.get(1).unwrap_or(&1) * field) as f64;
        let fan_out = (dims.first().unwrap_or(&1) * field) as f64;
        let mut values = Tensor::f_zeros(dims, (self.path.kind(), self.path.device()))?;
        let _ = match start {
            Start::Constant(value) => values.f_fill_(value)?,
            Start::Uniform(bound) => values.f_uniform_(-bound, bound)?,
            Start::Normal(deviation) => values.f_normal_(0.0, deviation)?,
            Start::Torch => values.f_uniform_(-fan_in.powf(-0.5), fan_in.powf(-0.5))?,
            Start::HeNormal => cut_normal(&mut values, (2.0 / fan_in).sqrt() / CUT_NORMAL_STD)?,
            Start::FanOut => values.f_normal_(0.0, (2.0 / fan_out).sqrt())?,
        };
        Ok(self.path.add(name, values, !self.frozen))
    }

    /// A variable `[length]` that is kept with the weights and never trained.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn buffer(&self, name: &str, length: i64, value: f64) -> Result<Tensor, ModelError> {
        let values = Tensor::f_full([length], value, (self.path.kind(), self.path.device()))?;
        Ok(self.path.add(name, values, false))
    }

    /// A dense layer `from` → `to`, as torch begins it: `weight`, `bias`.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn linear(&self, from: i64, to: i64) -> Result<Linear, ModelError> {
        let bias = self.variable("bias", &[to], Start::Uniform((from as f64).powf(-0.5)))?;
        Ok(Linear { ws: self.variable("weight", &[to, from], Start::Torch)?, bs: Some(bias) })
    }
}

/// Standard normal by the inverse of its distribution, cut at ±2, times `deviation`.
fn cut_normal(values: &mut Tensor, deviation: f64) -> Result<Tensor, ModelError> {
    // erf(2 / √2): the share of a normal within two deviations.
    const INSIDE: f64 = 0.954_499_736_103_641_6;
    let drawn = values.f_uniform_(-INSIDE, INSIDE)?.f_erfinv()?.f_mul_scalar(deviation * std::f64::consts::SQRT_2)?;
    Ok(values.f_copy_(&drawn).map(|()| values.shallow_clone())?)
}

/// `x · weightᵀ + bias`.
///
/// # Errors
/// [`ModelError::Torch`].
pub fn dense(layer: &Linear, x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_linear(&layer.ws, layer.bs.as_ref())?)
}

/// A convolution along one axis (`[n, channels, frames]`) or two (`[n, channels, bands, frames]`), without bias: batch
/// norm follows each of them, and takes any bias out again.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    windows: Vec<Window>,
    groups: i64,
}

/// What a convolution is made from.
#[derive(Clone, Copy, Debug)]
pub struct ConvArgs<'a> {
    /// Channels in.
    pub from: i64,
    /// Channels out.
    pub to: i64,
    /// One window an axis.
    pub windows: &'a [Window],
    /// 1, or `from` for one filter a channel.
    pub groups: i64,
    /// Its first values.
    pub start: Start,
}

impl Conv {
    /// Makes `weight` at `site`.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, args: ConvArgs<'_>) -> Result<Self, ModelError> {
        let mut dims = vec![args.to, args.from / args.groups];
        dims.extend(args.windows.iter().map(|window| window.kernel));
        let weight = site.variable("weight", &dims, args.start)?;
        Ok(Self { weight, windows: args.windows.to_vec(), groups: args.groups })
    }

    /// To `[n, channels out, …]`.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
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

/// The largest value under each place of `windows`, one an axis; none: `x` itself.
///
/// # Errors
/// [`ModelError::Torch`].
pub fn max_pool(x: &Tensor, windows: &[Window]) -> Result<Tensor, ModelError> {
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

/// What follows batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// x, or e^x − 1 below 0.
    Elu,
}

/// What dropout drops, with its share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dropout {
    /// Nothing.
    None,
    /// Single values.
    Values(f64),
    /// Whole channels of a row.
    Channels(f64),
}

impl Dropout {
    /// With the configuration's share, where it has one.
    #[must_use]
    pub fn at(self, site: &Site<'_>) -> Self {
        match self {
            Self::None => self,
            Self::Values(own) => Self::Values(site.dropout(own)),
            Self::Channels(own) => Self::Channels(site.dropout(own)),
        }
    }
}

/// `x` with what is dropped set to 0 and the rest made larger, in training.
///
/// # Errors
/// [`ModelError::Torch`].
pub fn drop(x: &Tensor, dropout: Dropout, train: bool) -> Result<Tensor, ModelError> {
    Ok(match dropout {
        Dropout::None => x.shallow_clone(),
        Dropout::Values(share) => x.f_dropout(share, train)?,
        Dropout::Channels(share) => x.f_feature_dropout(share, train)?,
    })
}

/// Convolution, batch norm, activation, max pooling, dropout.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Channels out.
    pub width: i64,
    /// One window an axis.
    pub conv: &'static [Window],
    /// Behind batch norm.
    pub activation: Activation,
    /// One window an axis, or none.
    pub pool: &'static [Window],
    /// The last step.
    pub dropout: Dropout,
}

/// Blocks one after another: variables `convI.weight` and `normI.*`, I from 1.
#[derive(Debug)]
pub struct Blocks {
    layers: Vec<(Conv, BatchNorm, Block)>,
}

impl Blocks {
    /// `from`: channels in.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, mut from: i64, blocks: &[Block]) -> Result<Self, ModelError> {
        let mut layers = Vec::with_capacity(blocks.len());
        for (i, block) in blocks.iter().enumerate() {
            let args = ConvArgs { from, to: block.width, windows: block.conv, groups: 1, start: Start::Torch };
            let conv = Conv::new(&site.at(format!("conv{}", i + 1)), args)?;
            let norm = BatchNorm::new(&site.at(format!("norm{}", i + 1)), block.width)?;
            layers.push((conv, norm, Block { dropout: block.dropout.at(site), ..*block }));
            from = block.width;
        }
        Ok(Self { layers })
    }

    /// `[n, channels, …]` to `[n, width of the last, …]`; `seen` gets what each block gives, as `convI`.
    ///
    /// # Errors
    /// [`ModelError::Torch`], [`ModelError::Ranks`].
    pub fn forward(&self, x: &Tensor, train: bool, seen: super::Seen<'_>) -> Result<Tensor, ModelError> {
        let mut x = x.shallow_clone();
        for (i, (conv, norm, block)) in self.layers.iter().enumerate() {
            x = norm.forward(&conv.forward(&x)?, train)?;
            x = match block.activation {
                Activation::Relu => x.f_relu()?,
                Activation::Elu => x.f_elu()?,
            };
            x = drop(&max_pool(&x, block.pool)?, block.dropout, train)?;
            seen(&format!("conv{}", i + 1), &x);
        }
        Ok(x)
    }
}

/// The windows of `blocks` along an axis, counted from the last (0: frames, 1: bands).
#[must_use]
pub fn windows_along(blocks: &[Block], from_last: usize) -> Vec<Window> {
    let along = |windows: &[Window]| windows.iter().rev().nth(from_last).copied();
    blocks.iter().flat_map(|block| [along(block.conv), along(block.pool)]).flatten().collect()
}

/// Length of an axis behind `blocks`.
#[must_use]
pub fn behind(blocks: &[Block], from_last: usize, length: i64) -> i64 {
    length_behind(&windows_along(blocks, from_last), length)
}

/// The fewest bands and frames of which `blocks` leave one.
#[must_use]
pub fn least_for(blocks: &[Block]) -> [i64; 2] {
    [least_before(&windows_along(blocks, 1)), least_before(&windows_along(blocks, 0))]
}

/// Mean over an axis in the tensor's own kind.
///
/// # Errors
/// [`ModelError::Torch`].
pub fn mean_over(x: &Tensor, axes: &[i64]) -> Result<Tensor, ModelError> {
    Ok(x.f_mean_dim(axes, false, None::<Kind>)?)
}
