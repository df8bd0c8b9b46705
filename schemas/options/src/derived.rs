//! Features derived from the values of another feature: statistics over its frames, the tempo of a tempogram, or a
//! coloured picture.
//!
//! A derived feature uses the f32 values of its source after the logarithm, the cosine transform, deltas and cropping.
//! The source's normalization, order of axes and stored type come later, so they have no effect on it.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::op::Op;
use crate::pack::Dtype;
use crate::rhythm::TempoArgs;
use crate::words::Named;

/// Names of the statistics of a band, in the order of the tensor's rows and of the columns in FMA's `features.csv`.
pub const STATISTICS: [&str; 7] = ["kurtosis", "max", "mean", "median", "min", "skew", "std"];

/// Number of colour channels: red, green and blue.
pub const CHANNELS: usize = 3;

/// Maximum width or height of a picture in pixels: its f32 tensor is below 2 GiB, and no network takes larger input.
pub const PICTURE_SIDE_MAX: usize = 8192;

/// Operation that computes a derived feature from the values of its source feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "op")]
pub enum Derived {
    /// [`STATISTICS`] of every band over its frames: `[7, bands]`.
    Statistics,
    /// The tempo of a tempogram in beats per minute: `[1]`.
    Tempo(TempoArgs),
    /// A picture with one row of pixels per band, lowest at the bottom, and one column per frame: `[3, height, width]`.
    Picture(PictureArgs),
}

/// Options of a picture: values are scaled to [0, 1] by the row's minimum and maximum, resized, then coloured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureArgs {
    /// Colour map for values from 0 to 1.
    pub colour_map: ColourMap,
    /// Height of the picture in pixels; one pixel per band if absent.
    pub height: Option<usize>,
    /// Width of the picture in pixels; one pixel per frame if absent.
    pub width: Option<usize>,
}

/// A map of values to 256 colours.
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
    /// Returns the operation's name as an [`Op`].
    pub(crate) const fn op(&self) -> Op {
        match self {
            Self::Statistics => Op::Statistics,
            Self::Tempo(_) => Op::Tempo,
            Self::Picture(_) => Op::Picture,
        }
    }

    /// Returns the default stored type: u8 for pictures, as in picture files; f32 for numbers, whose range is
    /// unknown.
    pub(crate) const fn default_dtype(&self) -> Dtype {
        match self {
            Self::Statistics | Self::Tempo(_) => Dtype::F32,
            Self::Picture(_) => Dtype::U8,
        }
    }

    /// Adds a fault for each invalid option of an operation on values of `source`.
    pub(crate) fn check(&self, source: Op, faults: &mut Faults) {
        match self {
            Self::Statistics => {}

            Self::Tempo(tempo) => {
                let problem = format!(
                    "has op = \"{}\"; allowed for tempo: a feature with op = \"tempogram\"",
                    source.name()
                );
                faults.unless(source == Op::Tempogram, "source", problem);
                tempo.check(faults);
            }

            Self::Picture(picture) => {
                for (side, key) in [(picture.height, "height"), (picture.width, "width")] {
                    if let Some(side) = side {
                        faults.count_within(side, 1..=PICTURE_SIDE_MAX, key);
                    }
                }
            }
        }
    }
}
