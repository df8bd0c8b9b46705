//! Convolutions with dense layers behind them: `cnn2d` and `cnn1d`.

use tch::Tensor;
use tch::nn::Linear;

use super::layers::{Activation, Block, Blocks, Dropout, Site, behind, dense, least_for, max_pool, mean_over};
use super::window::{Window, least_before, length_behind};
use super::{Backbone, Dims, Inputs, ModelError, Seen};

const HALVED: &[Window] = &[Window { kernel: 3, stride: 2, padding: 1 }; 2];
const PAIR: &[Window] = &[Window::tile(2); 2];

const CNN2D: &[Block] = &[
    Block {
        width: 32,
        conv: &[Window::same(3); 2],
        activation: Activation::Relu,
        pool: HALVED,
        dropout: Dropout::Values(0.2),
    },
    Block {
        width: 64,
        conv: &[Window::same(3); 2],
        activation: Activation::Relu,
        pool: HALVED,
        dropout: Dropout::Values(0.1),
    },
    Block {
        width: 64,
        conv: &[Window::valid(2); 2],
        activation: Activation::Relu,
        pool: &[Window { kernel: 2, stride: 2, padding: 1 }; 2],
        dropout: Dropout::Values(0.1),
    },
];

/// The two poolings behind the blocks, along either axis.
const BEHIND: [Window; 2] = [Window::tile(2); 2];

/// The fewest bands and frames of `cnn2d`.
pub fn least_2d() -> [i64; 2] {
    let along = |from_last| {
        let mut windows = super::layers::windows_along(CNN2D, from_last);
        windows.extend(BEHIND);
        least_before(&windows)
    };
    [along(1), along(0)]
}

/// `cnn2d` of document 000, as its authors' repository has it.
///
/// `[n, 1, bands, frames]` → 32 channels, halved → 64, halved → 64, halved → two poolings by 2 → all values in one row →
/// dense 1024 → dense 256. At 128 × 1292: 64 × 4 × 40 = 10,240 values before the first dense layer.
#[derive(Debug)]
pub struct Cnn2d {
    blocks: Blocks,
    dense: [(Linear, f64); 2],
}

impl Cnn2d {
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, dims: &Dims) -> Result<Self, ModelError> {
        let left = |from_last, length| length_behind(&BEHIND, behind(CNN2D, from_last, length));
        let values = 64 * left(1, dims.bands) * left(0, dims.frames);
        let blocks = Blocks::new(site, 1, CNN2D)?;
        let first = (site.at("dense1").linear(values, 1024)?, site.dropout(0.5));
        let second = (site.at("dense2").linear(1024, 256)?, site.dropout(0.4));
        Ok(Self { blocks, dense: [first, second] })
    }
}

impl Backbone for Cnn2d {
    fn embed(&self, inputs: &Inputs, train: bool, seen: Seen<'_>) -> Result<Tensor, ModelError> {
        let mut x = self.blocks.forward(&inputs.spectrogram.f_unsqueeze(1)?, train, seen)?;
        x = max_pool(&max_pool(&x, PAIR)?, PAIR)?;
        seen("pool", &x);
        x = x.f_flatten(1, -1)?;
        for (i, (layer, share)) in self.dense.iter().enumerate() {
            x = dense(layer, &x)?.f_relu()?.f_dropout(*share, train)?;
            seen(&format!("dense{}", i + 1), &x);
        }
        Ok(x)
    }

    fn width(&self) -> i64 {
        256
    }
}

const FIVE: &[Window] = &[Window::same(5)];
const QUARTER: &[Window] = &[Window::tile(4)];

const fn block_1d(width: i64) -> Block {
    Block { width, conv: FIVE, activation: Activation::Relu, pool: QUARTER, dropout: Dropout::Values(0.2) }
}

const CNN1D: &[Block] = &[block_1d(128), block_1d(128), block_1d(256)];

/// One band, and the fewest frames of `cnn1d`.
pub fn least_1d() -> [i64; 2] {
    [1, least_for(CNN1D)[1]]
}

/// `cnn1d` of document 002, which gives no widths; pooling over time after its reference (van den Oord, Dieleman and
/// Schrauwen, "Deep content-based music recommendation", 2013).
///
/// `[n, bands, frames]` → 128, 128, 256 channels, each time a quarter of the frames → mean and maximum over frames side
/// by side, 512 → dense 128.
#[derive(Debug)]
pub struct Cnn1d {
    blocks: Blocks,
    dense: Linear,
    share: f64,
}

impl Cnn1d {
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, dims: &Dims) -> Result<Self, ModelError> {
        let blocks = Blocks::new(site, dims.bands, CNN1D)?;
        Ok(Self { blocks, dense: site.at("dense").linear(512, 128)?, share: site.dropout(0.3) })
    }
}

impl Backbone for Cnn1d {
    fn embed(&self, inputs: &Inputs, train: bool, seen: Seen<'_>) -> Result<Tensor, ModelError> {
        let x = self.blocks.forward(&inputs.spectrogram, train, seen)?;
        let x = Tensor::f_cat(&[mean_over(&x, &[2])?, x.f_amax(2, false)?], 1)?;
        seen("mean, maximum", &x);
        let x = dense(&self.dense, &x)?.f_relu()?.f_dropout(self.share, train)?;
        seen("dense", &x);
        Ok(x)
    }

    fn width(&self) -> i64 {
        128
    }
}
