//! `genregenie-cnn` of document 001.

use tch::Tensor;
use tch::nn::Linear;

use super::layers::{Conv, ConvArgs, Site, Start, dense, max_pool};
use super::norm::BatchNorm;
use super::picture::as_picture;
use super::window::{Window, least_before, length_behind};
use super::{Backbone, Dims, Inputs, ModelError, Seen};

const WIDTHS: [i64; 3] = [32, 64, 128];
const CONV: Window = Window::same(3);
const POOL: Window = Window::tile(2);
const CHAIN: [Window; 6] = [CONV, POOL, CONV, POOL, CONV, POOL];
const DENSE: i64 = 128;

/// The fewest bands and frames: 8 of each.
pub fn least() -> [i64; 2] {
    [least_before(&CHAIN); 2]
}

/// Three blocks in the document's order: convolution (`he_normal`), max pooling by 2, batch norm, dropout; then a dense
/// layer. The document sees coloured pictures of 128 × 130, here the one channel once or three times over.
///
/// `[n, channels, bands, frames]` → 32, 64, 128 channels, halved each time → all values in one row, 32,768 at 128 × 130
/// → dense 128. ReLU stands behind batch norm, so that a convolution's bias would change nothing and there is none.
#[derive(Debug)]
pub struct GenreGenie {
    blocks: Vec<(Conv, BatchNorm, f64)>,
    dense: Linear,
    share: f64,
    channels: i64,
}

impl GenreGenie {
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, dims: &Dims, channels: i64) -> Result<Self, ModelError> {
        let (mut blocks, mut from) = (Vec::new(), channels);
        for (i, to) in WIDTHS.into_iter().enumerate() {
            let args = ConvArgs { from, to, windows: &[CONV; 2], groups: 1, start: Start::HeNormal };
            let conv = Conv::new(&site.at(format!("conv{}", i + 1)), args)?;
            blocks.push((conv, BatchNorm::new(&site.at(format!("norm{}", i + 1)), to)?, site.dropout(0.25)));
            from = to;
        }
        let values = from * length_behind(&CHAIN, dims.bands) * length_behind(&CHAIN, dims.frames);
        Ok(Self { blocks, dense: site.at("dense").linear(values, DENSE)?, share: site.dropout(0.5), channels })
    }
}

impl Backbone for GenreGenie {
    fn embed(&self, inputs: &Inputs, train: bool, seen: Seen<'_>) -> Result<Tensor, ModelError> {
        let mut x = as_picture(&inputs.spectrogram, self.channels)?;
        for (i, (conv, norm, share)) in self.blocks.iter().enumerate() {
            x = max_pool(&conv.forward(&x)?, &[POOL; 2])?;
            x = norm.forward(&x, train)?.f_relu()?.f_dropout(*share, train)?;
            seen(&format!("conv{}", i + 1), &x);
        }
        x = dense(&self.dense, &x.f_flatten(1, -1)?)?.f_relu()?.f_dropout(self.share, train)?;
        seen("dense", &x);
        Ok(x)
    }

    fn width(&self) -> i64 {
        DENSE
    }
}
