//! Convolutions followed by dense layers: `cnn2d`, `cnn1d` and `genregenie-cnn`.

use super::layers::{Fixed, Initializer};
use super::sequence::LayerArgs::{self, Norm, Pool};
use super::sequence::{ADD_CHANNEL, FLATTEN, RELU, StageArgs, conv, dense, dropout, pool, valid};
use super::window::Window;

const HALVED: LayerArgs = Pool([Window::stepping(3, 2); 2]);
const HALVED_BY_TWO: LayerArgs = Pool([Window::stepping(2, 2); 2]);

/// `cnn2d` of `fma-large`, as in its authors' repository.
///
/// `[n, 1, bands, frames]` → 32 channels, halved → 64, halved → 64, halved → two poolings by 2 → flattened → dense 1024
/// → dense 256. At 128 × 1292: 64 × 4 × 40 = 10,240 values before the first dense layer.
pub(crate) const CNN2D: &[StageArgs] = &[
    (
        "conv1",
        &[ADD_CHANNEL, conv(32, 3), Norm, RELU, HALVED, dropout(0.2)],
    ),
    ("conv2", &[conv(64, 3), Norm, RELU, HALVED, dropout(0.1)]),
    (
        "conv3",
        &[valid(64, 2), Norm, RELU, HALVED_BY_TWO, dropout(0.1)],
    ),
    ("pool", &[pool(2), pool(2)]),
    ("dense1", &[FLATTEN, dense(1024), RELU, dropout(0.5)]),
    ("dense2", &[dense(256), RELU, dropout(0.4)]),
];

/// `cnn1d` of `fma-small`, which does not state widths. Pooling over time follows the document's reference (van den
/// Oord, Dieleman and Schrauwen, "Deep content-based music recommendation", 2013). Mean and maximum accept any number of
/// frames.
///
/// `[n, bands, frames]` → 128, 128, 256 channels, each time a quarter of the frames → mean and maximum over frames,
/// concatenated, 512 → dense 128.
pub(crate) const CNN1D: &[StageArgs] = &[
    ("conv1", &[conv(128, 5), Norm, RELU, pool(4), dropout(0.2)]),
    ("conv2", &[conv(128, 5), Norm, RELU, pool(4), dropout(0.2)]),
    ("conv3", &[conv(256, 5), Norm, RELU, pool(4), dropout(0.2)]),
    ("mean, maximum", &[LayerArgs::Fixed(Fixed::MeanMax)]),
    ("dense", &[dense(128), RELU, dropout(0.3)]),
];

const fn he_conv(width: i64) -> LayerArgs {
    LayerArgs::Conv(width, Window::same(3), Initializer::HeNormal)
}

/// `genregenie-cnn` of `gtzan-segments`: three blocks in the document's order (convolution with `he_normal`, max pooling by
/// 2, batch norm, dropout), then a dense layer. ReLU follows batch norm, so a bias of the convolution would have no
/// effect and is omitted.
///
/// `[n, channels, bands, frames]` → 32, 64, 128 channels, halved each time → flattened, 32,768 values at 128 × 130 →
/// dense 128. The document uses coloured pictures of 128 × 130; here the input is a picture feature, or the single
/// channel of a spectrogram, used once or three times.
pub(crate) const GENREGENIE: &[StageArgs] = &[
    ("conv1", &[he_conv(32), pool(2), Norm, RELU, dropout(0.25)]),
    ("conv2", &[he_conv(64), pool(2), Norm, RELU, dropout(0.25)]),
    ("conv3", &[he_conv(128), pool(2), Norm, RELU, dropout(0.25)]),
    ("dense", &[FLATTEN, dense(128), RELU, dropout(0.5)]),
];
