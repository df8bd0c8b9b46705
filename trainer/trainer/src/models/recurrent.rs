//! The stages of eight architectures: recurrent layers over frames, in most of them after convolutions.

use super::layers::Fixed;
use super::sequence::LayerArgs::{self, Norm};
use super::sequence::{
    ADD_CHANNEL, RELU, StageArgs, TO_STEPS, bigru, bilstm, conv, dense, dropout, lstm, pool, valid,
};

/// Each frame becomes a step.
const STEPS: StageArgs = ("steps", &[TO_STEPS]);
/// The same for rows that still have bands.
const BAND_STEPS: StageArgs = ("steps", &[LayerArgs::Fixed(Fixed::BandSteps)]);
const LAST: StageArgs = ("summary", &[LayerArgs::Fixed(Fixed::LastStep)]);
const MEAN: StageArgs = ("summary", &[LayerArgs::Fixed(Fixed::StepMean)]);
const MEAN_MAX: StageArgs = ("summary", &[LayerArgs::Fixed(Fixed::StepMeanMax)]);

const CHANNEL_DROPOUT: LayerArgs = LayerArgs::Fixed(Fixed::ChannelDropout(0.4));

/// Three 1-D convolutions of `fma-large`: 128, 256, 512 channels; a quarter of the frames remains.
const XNAP_1D: [StageArgs; 3] = [
    ("conv1", &[conv(128, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(256, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(512, 3), Norm, RELU, dropout(0.4)]),
];

/// `cnn1d-gru` of `fma-large`, with its authors' widths: `[n, 512, frames / 4]` → 512 per step → mean → 128.
pub(crate) const CNN1D_GRU: &[StageArgs] = &[
    XNAP_1D[0],
    XNAP_1D[1],
    XNAP_1D[2],
    STEPS,
    ("recurrent", &[bigru(256), bigru(256)]),
    MEAN,
    ("dense", &[dense(128), RELU, dropout(0.4)]),
];

/// `cnn1d-lstm` of `fma-large`, with its authors' widths: `[n, 512, frames / 4]` → 256 per step → 512 → 128.
pub(crate) const CNN1D_LSTM: &[StageArgs] = &[
    XNAP_1D[0],
    XNAP_1D[1],
    XNAP_1D[2],
    STEPS,
    ("recurrent", &[bilstm(128), bilstm(128)]),
    MEAN_MAX,
    ("dense", &[dense(128), RELU, dropout(0.3)]),
];

/// `cnn2d-gru` of `fma-large`, with its authors' widths: three 2-D convolutions, after which a quarter of the bands and
/// frames remains, `[n, 512, bands / 4, frames / 4]` → channels and bands concatenated, 16,384 values per step at 128
/// bands → 256 per step → mean → 128.
pub(crate) const CNN2D_GRU: &[StageArgs] = &[
    ("conv1", &[ADD_CHANNEL, conv(128, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(256, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(512, 3), Norm, RELU, CHANNEL_DROPOUT]),
    BAND_STEPS,
    ("recurrent", &[bigru(128), dropout(0.4), bigru(128)]),
    MEAN,
    ("dense", &[dense(128), RELU, dropout(0.4)]),
];

/// `cnn2d-lstm` of `fma-large`, with its authors' widths: half as many channels, `[n, 256, bands / 4, frames / 4]` →
/// 8,192 values per step at 128 bands → 256 per step → mean and maximum, 512 → 128.
pub(crate) const CNN2D_LSTM: &[StageArgs] = &[
    ("conv1", &[ADD_CHANNEL, conv(64, 5), Norm, RELU, pool(2)]),
    ("conv2", &[conv(128, 3), Norm, RELU, pool(2)]),
    ("conv3", &[conv(256, 3), Norm, RELU, CHANNEL_DROPOUT]),
    BAND_STEPS,
    ("recurrent", &[bilstm(128), dropout(0.4), bilstm(128)]),
    MEAN_MAX,
    ("dense", &[dense(128), RELU, dropout(0.3)]),
];

const ELU: LayerArgs = LayerArgs::Fixed(Fixed::Elu);

/// `GenreClassifier` of `fma-small`, built like the repository named there: `[n, 128, frames / 48]` → last state 64 →
/// dropout, batch norm → 64.
pub(crate) const CRNN: &[StageArgs] = &[
    ("conv1", &[valid(64, 3), Norm, ELU, pool(3), dropout(0.1)]),
    ("conv2", &[valid(128, 3), Norm, ELU, pool(4), dropout(0.1)]),
    ("conv3", &[valid(128, 3), Norm, ELU, pool(4), dropout(0.1)]),
    STEPS,
    ("recurrent", &[lstm(64), lstm(64)]),
    LAST,
    (
        "dense",
        &[dropout(0.3), Norm, dense(64), RELU, dropout(0.3)],
    ),
];

/// `SimpleClassifier` of `fma-small`, with widths chosen here: `[n, 128, frames / 16]` → last state 64.
pub(crate) const CRNN_SIMPLE: &[StageArgs] = &[
    ("conv1", &[conv(64, 3), Norm, RELU, pool(4), dropout(0.2)]),
    ("conv2", &[conv(128, 3), Norm, RELU, pool(4), dropout(0.2)]),
    STEPS,
    ("recurrent", &[lstm(64)]),
    LAST,
];

/// `SimpleClassifier_RNN` of `fma-small`, with widths chosen here: `[n, frames, bands]` → last state 128 → 64.
pub(crate) const LSTM: &[StageArgs] = &[
    STEPS,
    ("recurrent", &[lstm(128), dropout(0.3), lstm(128)]),
    LAST,
    ("dense", &[dense(64), RELU, dropout(0.3)]),
];

const BLOCK_64: &[LayerArgs] = &[conv(64, 5), Norm, RELU, pool(2), dropout(0.4)];

/// "CRNN" of `fma-windows`, with its LSTM of width 64 and dropout in all layers; other widths are chosen here: `[n, 64,
/// frames / 8]` → last state 64 → 64.
pub(crate) const CRNN_LSTM64: &[StageArgs] = &[
    ("conv1", BLOCK_64),
    ("conv2", BLOCK_64),
    ("conv3", BLOCK_64),
    STEPS,
    ("recurrent", &[lstm(64)]),
    LAST,
    ("dense", &[dropout(0.4), dense(64), RELU, dropout(0.4)]),
];
