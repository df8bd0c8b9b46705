//! Features derived from the values of another feature: statistics over its frames, or a coloured picture.
//!
//! A derived feature uses the f32 values of its source after the logarithm, the cosine transform, deltas and cropping.
//! The source's normalization, order of axes and stored type come later, so they have no effect on it.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::op::Op;
use crate::pack::Dtype;
use crate::words::Named;

/// Statistics of a band, in the order of the tensor's rows and of the columns in FMA's `features.csv`.
pub const STATISTICS: [&str; 7] = ["kurtosis", "max", "mean", "median", "min", "skew", "std"];

/// Number of channels: red, green and blue.
pub const CHANNELS: usize = 3;

/// Maximum side of a picture in pixels: fits into a row of 2 GiB in f32, and is far beyond the input of any network.
pub const PICTURE_SIDE_MAX: usize = 8192;

/// Operation on the values of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "op")]
pub enum Derived {
    /// [`STATISTICS`] of every band over its frames: `[7, bands]`.
    Statistics,
    /// A picture with one row of pixels per band, lowest at the bottom, and one column per frame: `[3, height, width]`.
    Picture(PictureArgs),
}

/// Conversion of values to pixels: scaled to [0, 1] by the minimum and maximum of the row, resized, then coloured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureArgs {
    /// Colours for values from 0 to 1.
    pub colour_map: ColourMap,
    /// Height in pixels; one pixel per band if absent.
    pub height: Option<usize>,
    /// Width in pixels; one pixel per frame if absent.
    pub width: Option<usize>,
}

/// A table of 256 colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourMap {
    /// matplotlib's `magma`, which librosa's `specshow` uses for spectrograms.
    #[default]
    Magma,
    /// matplotlib's `viridis`.
    Viridis,
    /// Shades of grey: the same value in all channels.
    Grey,
}

impl Named for ColourMap {
    const KEY: &'static str = "colour_map";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("magma", Self::Magma),
        ("viridis", Self::Viridis),
        ("grey", Self::Grey),
    ];
}

impl Derived {
    /// Returns the operation.
    pub(crate) const fn op(&self) -> Op {
        match self {
            Self::Statistics => Op::Statistics,
            Self::Picture(_) => Op::Picture,
        }
    }

    /// Returns the default type. Pictures use one byte per channel, as in picture files; the range of statistics is
    /// unknown.
    pub(crate) const fn default_dtype(&self) -> Dtype {
        match self {
            Self::Statistics => Dtype::F32,
            Self::Picture(_) => Dtype::U8,
        }
    }

    /// Adds faults for impossible sizes.
    pub(crate) fn check(&self, faults: &mut Faults) {
        let Self::Picture(picture) = self else {
            return;
        };
        for (side, key) in [(picture.height, "height"), (picture.width, "width")] {
            if let Some(side) = side {
                faults.count_within(side, 1..=PICTURE_SIDE_MAX, key);
            }
        }
    }
}
