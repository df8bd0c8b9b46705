//! The instruction-set levels that numbers are promised for.
//!
//! A level is chosen once and named in every plan, never detected inside an operation: the same level gives the same
//! bits on every machine that has it.

use serde::{Deserialize, Serialize};

/// Which instructions a plan may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Portable code.
    #[serde(rename = "scalar")]
    Scalar,
    /// AVX2 and FMA, as the x86-64-v3 ABI names them.
    #[serde(rename = "x86-64-v3")]
    X86_64V3,
}

impl Level {
    /// The best level of this machine.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Self::X86_64V3;
        }
        Self::Scalar
    }
}
