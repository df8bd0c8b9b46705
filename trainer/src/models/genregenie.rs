//! The architecture `genregenie-cnn` of document 001.

use tch::Tensor;

use super::layers::{
    Conv, ConvArgs, DenseRelu, Dropout, Initializer, VarScope, max_pool, pool_operation,
};
use super::norm::BatchNorm;
use super::picture::as_picture;
use super::walk::{Operation, Walk};
use super::window::{Window, least_before, length_behind};
use super::{Backbone, Dims, Inputs, ModelError};

const WIDTHS: [i64; 3] = [32, 64, 128];
const CONV: Window = Window::same(3);
const POOL: Window = Window::tile(2);
const CHAIN: [Window; 6] = [CONV, POOL, CONV, POOL, CONV, POOL];
const DENSE: i64 = 128;

/// Returns the minimum number of bands and frames of a row: 8 of each.
pub(crate) fn least() -> [i64; 2] {
    [least_before(&CHAIN); 2]
}

/// Three blocks in the document's order (convolution with `he_normal`, max pooling by 2, batch norm, dropout), then a
/// dense layer. The document uses coloured pictures of 128 × 130; here the input is a picture feature, or the single
/// channel of a spectrogram, used once or three times.
///
/// `[n, channels, bands, frames]` → 32, 64, 128 channels, halved each time → flattened, 32,768 values at 128 × 130 →
/// dense 128. ReLU follows batch norm, so a bias of the convolution would have no effect and is omitted.
#[derive(Debug)]
pub(crate) struct GenreGenie {
    blocks: Vec<Block>,
    dense: DenseRelu,
    channels: i64,
}

#[derive(Debug)]
struct Block {
    conv: Conv,
    norm: BatchNorm,
    dropout: f64,
}

impl Block {
    /// Describes the operations of a block, in order.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![self.conv.operation()];
        operations.extend(pool_operation(&[POOL; 2]));
        operations.push(self.norm.operation());
        operations.push(Operation::fixed("ReLU", ""));
        operations.extend(Dropout::Values(self.dropout).operation());
        operations
    }
}

impl GenreGenie {
    pub(crate) fn new(
        scope: &VarScope<'_>,
        dims: &Dims,
        channels: i64,
    ) -> Result<Self, ModelError> {
        let mut blocks = Vec::new();
        let mut from = channels;
        for (i, to) in WIDTHS.into_iter().enumerate() {
            let args = ConvArgs {
                from,
                to,
                windows: &[CONV; 2],
                groups: 1,
                start: Initializer::HeNormal,
            };
            blocks.push(Block {
                conv: Conv::new(&scope.at(format!("conv{}", i + 1)), args)?,
                norm: BatchNorm::new(&scope.at(format!("norm{}", i + 1)), to)?,
                dropout: scope.dropout(0.25),
            });
            from = to;
        }

        // The dense layer reads all remaining values of a row, so the model fits rows of one shape only.
        let values = from * length_behind(&CHAIN, dims.bands) * length_behind(&CHAIN, dims.frames);
        Ok(Self {
            blocks,
            dense: DenseRelu::new(&scope.at("dense"), values, DENSE, 0.5)?,
            channels,
        })
    }
}

impl Backbone for GenreGenie {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let mut x = as_picture(&inputs.spectrogram, self.channels)?;

        for (i, block) in self.blocks.iter().enumerate() {
            // The document pools before batch norm.
            x = max_pool(&block.conv.forward(&x)?, &[POOL; 2])?;
            x = block
                .norm
                .forward(&x, train)?
                .f_relu()?
                .f_dropout(block.dropout, train)?;
            walk.stage(format_args!("conv{}", i + 1), &x, || block.operations());
        }

        x = self.dense.forward(&x.f_flatten(1, -1)?, train)?;
        walk.stage("dense", &x, || {
            let mut operations = vec![Operation::flatten()];
            operations.extend(self.dense.operations());
            operations
        });
        Ok(x)
    }

    fn width(&self) -> i64 {
        DENSE
    }
}
