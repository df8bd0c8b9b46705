//! What is made of another feature's values: statistics over its frames, or a coloured picture.
//!
//! A derived feature starts from the f32 values of its source after the logarithm, the cosine transform, deltas and
//! the crop, and before scaling, the order of axes and the stored type, which therefore do not matter to it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};
use crate::pack::Dtype;
use crate::words::named;

/// The statistics of a band, in the order of the rows of a tensor and of the columns of FMA's `features.csv`.
pub const STATISTICS: [&str; 7] = ["kurtosis", "max", "mean", "median", "min", "skew", "std"];

/// Red, green and blue.
pub const CHANNELS: usize = 3;

/// Longest side of a picture that is asked for, pixels: what fits a row of 2 GiB in f32, and far beyond any network.
pub const PICTURE_SIDE_MAX: usize = 8192;

/// What is made of the source's values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "op")]
pub enum Derived {
    /// [`STATISTICS`] of every band over its frames: `[7, bands]`.
    Statistics,
    /// Bands and frames as rows and columns of pixels, low bands at the bottom: `[3, height, width]`.
    Picture(PictureArgs),
}

/// How values become pixels: scaled to [0, 1] by the row's own least and greatest, resized, coloured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureArgs {
    /// Colours of 0 to 1.
    pub colour_map: ColourMap,
    /// Rows of pixels; absent: one a band.
    pub height: Option<usize>,
    /// Columns of pixels; absent: one a frame.
    pub width: Option<usize>,
}

/// A table of 256 colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourMap {
    /// matplotlib's `magma`, which librosa's `specshow` takes for spectrograms.
    #[default]
    Magma,
    /// matplotlib's `viridis`.
    Viridis,
    /// All channels alike.
    Grey,
}

const COLOUR_MAPS: [(&str, ColourMap); 3] = [
    ("magma", ColourMap::Magma),
    ("viridis", ColourMap::Viridis),
    ("grey", ColourMap::Grey),
];

impl FromStr for ColourMap {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        named("colour_map", &COLOUR_MAPS, name)
    }
}

impl Derived {
    /// As in a recipe: `statistics`, `picture`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Statistics => "statistics",
            Self::Picture(_) => "picture",
        }
    }

    /// Bytes of a pixel are what picture files hold; statistics have no range that is known.
    pub(crate) const fn default_dtype(&self) -> Dtype {
        match self {
            Self::Statistics => Dtype::F32,
            Self::Picture(_) => Dtype::U8,
        }
    }

    /// Sizes that are impossible.
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
