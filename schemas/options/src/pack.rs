//! Types in which values are stored, and the conversion of f32 values to them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::named_enum;

named_enum! {
    /// Type in which values are stored.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Dtype {
        /// IEEE half precision: 11 significant bits, up to 65,504.
        F16 = "f16",
        /// IEEE single precision.
        F32 = "f32",
        /// 256 steps over a range determined by the arguments.
        U8 = "u8",
        /// Samples of 16 bits: 65,536 steps of 1/32,768, from −1.
        S16 = "s16",
    }
}

impl Dtype {
    /// Returns the type called `name` in recipes and manifests; `None` for an unknown name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Returns the size of a value in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::S16 => 2,
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }

    /// Returns NumPy's name: byte order, kind, bytes per value.
    pub const fn numpy_name(self) -> &'static str {
        match self {
            Self::F16 => "<f2",
            Self::F32 => "<f4",
            Self::U8 => "|u1",
            Self::S16 => "<i2",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Conversion of values to bytes: `value = stored · step + low`, with step 1 and low 0 for float types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    /// Rounds to the nearest half-precision number, ties to even.
    F16,
    /// Stores the values unchanged.
    F32,
    /// Rounds to the nearest of 256 steps from `low` to `high`.
    U8 {
        /// Value that is stored as 0.
        low: f32,
        /// Value that is stored as 255.
        high: f32,
    },
}

impl Packing {
    /// Returns the type of the stored values.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
            Self::U8 { .. } => Dtype::U8,
        }
    }

    /// Returns `(step, low)`: the value is the stored number times `step` plus `low`.
    pub fn scale(self) -> (f64, f64) {
        match self {
            Self::F16 | Self::F32 => (1.0, 0.0),
            Self::U8 { low, high } => ((f64::from(high) - f64::from(low)) / 255.0, f64::from(low)),
        }
    }
}
