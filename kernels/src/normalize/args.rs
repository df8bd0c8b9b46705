//! Which scaling.

use serde::{Deserialize, Serialize};

/// Scaling of a row (a clip or a segment) after everything else. Constant input gives all 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// Values as they are.
    #[default]
    None,
    /// `(x - min) / (max - min)`, so [0, 1].
    MinMax,
    /// `(x - mean) / std`, the population's.
    MeanVar,
}
