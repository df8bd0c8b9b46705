//! Dense layers over a track's metadata: `mlp-4` and `mlp-1` of `fma-small`, which gives no widths; and the probes of
//! embeddings.
//!
//! In the document, the columns are the 140 MFCC statistics of the published `features.csv`. Here they can also be a
//! feature of vectors in a store: statistics or embeddings.

use super::layers::Bias;
use super::sequence::LayerArgs::{self, Norm};
use super::sequence::{RELU, StageArgs, dropout};

/// Dense layer that is followed by batch norm.
const fn without_bias(width: i64) -> LayerArgs {
    LayerArgs::Dense(width, Bias::None)
}

const fn dense(width: i64) -> LayerArgs {
    LayerArgs::Dense(width, Bias::Last)
}

/// `mlp-4`: `[n, columns]` → 512 → 256 → 128 → 64, each with batch norm, ReLU and dropout.
pub(crate) const FOUR: &[StageArgs] = &[
    ("dense1", &[without_bias(512), Norm, RELU, dropout(0.3)]),
    ("dense2", &[without_bias(256), Norm, RELU, dropout(0.3)]),
    ("dense3", &[without_bias(128), Norm, RELU, dropout(0.3)]),
    ("dense4", &[without_bias(64), Norm, RELU, dropout(0.3)]),
];

/// `mlp-1`: `[n, columns]` → 128, ReLU.
pub(crate) const ONE: &[StageArgs] = &[("dense1", &[dense(128), RELU])];

/// `mlp-probe`: `[n, columns]` → 512, ReLU, dropout.
pub(crate) const MLP_PROBE: &[StageArgs] = &[("dense1", &[dense(512), RELU, dropout(0.2)])];

/// `linear-probe`: nothing before the heads.
pub(crate) const LINEAR_PROBE: &[StageArgs] = &[];
