//! Convolutions followed by dense layers: `cnn2d` and `cnn1d`.

use tch::Tensor;

use super::layers::{
    Block, Blocks, DenseRelu, Dropout, VarScope, behind, max_pool, mean_over, pool_operation,
    windows_along,
};
use super::walk::{Operation, Walk};
use super::window::{Window, least_before, length_behind};
use super::{Backbone, Dims, Inputs, ModelError};

const SAME: &[Window] = &[Window::same(3); 2];
const HALVED: &[Window] = &[Window::stepping(3, 2); 2];
const VALID: &[Window] = &[Window::valid(2); 2];
const HALVED_BY_TWO: &[Window] = &[Window::stepping(2, 2); 2];
const PAIR: &[Window] = &[Window::tile(2); 2];

const CNN2D: &[Block] = &[
    Block::relu(32, SAME, HALVED, Dropout::Values(0.2)),
    Block::relu(64, SAME, HALVED, Dropout::Values(0.1)),
    Block::relu(64, VALID, HALVED_BY_TWO, Dropout::Values(0.1)),
];

/// The two poolings after the blocks of `cnn2d`, the same for bands and frames.
const POOLINGS: [Window; 2] = [Window::tile(2); 2];

/// Returns the minimum number of bands and frames of `cnn2d`.
pub(crate) fn least_2d() -> [i64; 2] {
    [least_2d_along(1), least_2d_along(0)]
}

/// Returns the minimum length of an axis (0: frames, 1: bands) for which blocks and poolings leave one value.
fn least_2d_along(from_last: usize) -> i64 {
    let mut windows = windows_along(CNN2D, from_last);
    windows.extend(POOLINGS);
    least_before(&windows)
}

/// `cnn2d` of document 000, as in its authors' repository.
///
/// `[n, 1, bands, frames]` → 32 channels, halved → 64, halved → 64, halved → two poolings by 2 → flattened → dense 1024
/// → dense 256. At 128 × 1292: 64 × 4 × 40 = 10,240 values before the first dense layer.
#[derive(Debug)]
pub(crate) struct Cnn2d {
    blocks: Blocks,
    dense: [DenseRelu; 2],
}

impl Cnn2d {
    pub(crate) fn new(scope: &VarScope<'_>, dims: &Dims) -> Result<Self, ModelError> {
        // Number of values per row after the blocks and poolings.
        let bands = length_behind(&POOLINGS, behind(CNN2D, 1, dims.bands));
        let frames = length_behind(&POOLINGS, behind(CNN2D, 0, dims.frames));
        let values = 64 * bands * frames;

        Ok(Self {
            blocks: Blocks::new(scope, 1, CNN2D)?,
            dense: [
                DenseRelu::new(&scope.at("dense1"), values, 1024, 0.5)?,
                DenseRelu::new(&scope.at("dense2"), 1024, 256, 0.4)?,
            ],
        })
    }
}

impl Backbone for Cnn2d {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let mut x = self
            .blocks
            .forward(&inputs.spectrogram.f_unsqueeze(1)?, train, walk)?;
        x = max_pool(&max_pool(&x, PAIR)?, PAIR)?;
        walk.stage("pool", &x, || {
            [pool_operation(PAIR), pool_operation(PAIR)]
                .into_iter()
                .flatten()
                .collect()
        });

        x = x.f_flatten(1, -1)?;
        for (i, layer) in self.dense.iter().enumerate() {
            x = layer.forward(&x, train)?;
            walk.stage(format_args!("dense{}", i + 1), &x, || {
                let mut operations = layer.operations();
                if i == 0 {
                    operations.insert(0, Operation::flatten());
                }
                operations
            });
        }
        Ok(x)
    }

    fn width(&self) -> i64 {
        256
    }
}

const FIVE: &[Window] = &[Window::same(5)];
const QUARTER: &[Window] = &[Window::tile(4)];

/// The blocks of `cnn1d`.
pub(crate) const CNN1D: &[Block] = &[
    Block::relu(128, FIVE, QUARTER, Dropout::Values(0.2)),
    Block::relu(128, FIVE, QUARTER, Dropout::Values(0.2)),
    Block::relu(256, FIVE, QUARTER, Dropout::Values(0.2)),
];

/// `cnn1d` of document 002, which does not state widths. Pooling over time follows the document's reference (van den
/// Oord, Dieleman and Schrauwen, "Deep content-based music recommendation", 2013).
///
/// `[n, bands, frames]` → 128, 128, 256 channels, each time a quarter of the frames → mean and maximum over frames,
/// concatenated, 512 → dense 128.
#[derive(Debug)]
pub(crate) struct Cnn1d {
    blocks: Blocks,
    dense: DenseRelu,
}

impl Cnn1d {
    pub(crate) fn new(scope: &VarScope<'_>, dims: &Dims) -> Result<Self, ModelError> {
        Ok(Self {
            blocks: Blocks::new(scope, dims.bands, CNN1D)?,
            dense: DenseRelu::new(&scope.at("dense"), 512, 128, 0.3)?,
        })
    }
}

impl Backbone for Cnn1d {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let x = self.blocks.forward(&inputs.spectrogram, train, walk)?;

        // Mean and maximum accept any number of frames, so the model fits rows with any number of frames.
        let x = Tensor::f_cat(&[mean_over(&x, &[2])?, x.f_amax(2, false)?], 1)?;
        walk.stage("mean, maximum", &x, || {
            vec![Operation::fixed("mean and maximum", "over frames")]
        });

        let x = self.dense.forward(&x, train)?;
        walk.stage("dense", &x, || self.dense.operations());
        Ok(x)
    }

    fn width(&self) -> i64 {
        128
    }
}
