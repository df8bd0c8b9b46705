//! Stored types, and how values map to them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stored type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE half precision: 11 bits, up to 65,504.
    F16,
    /// IEEE single precision.
    F32,
    /// 256 steps over a range that the arguments fix.
    U8,
}

impl Dtype {
    /// Bytes a value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }

    /// `f16`, `f32`, `u8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::U8 => "u8",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How values become bytes: `value = stored · step + low`, with step 1 and low 0 for the float types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    /// Rounded to the nearest half, ties to even.
    F16,
    /// As they are.
    F32,
    /// Rounded to the nearest of 256 steps from `low` to `high`.
    U8 {
        /// Value of 0.
        low: f32,
        /// Value of 255.
        high: f32,
    },
}

impl Packing {
    /// The stored type.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
            Self::U8 { .. } => Dtype::U8,
        }
    }

    /// `(step, low)`: a stored number times `step` plus `low` is the value.
    pub fn scale(self) -> (f64, f64) {
        match self {
            Self::F16 | Self::F32 => (1.0, 0.0),
            Self::U8 { low, high } => ((f64::from(high) - f64::from(low)) / 255.0, f64::from(low)),
        }
    }
}
