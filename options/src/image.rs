//! What is made of a picture: which part of it, in which size, stored how.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};
use crate::pack::Dtype;
use crate::words::named;

/// Longest side of a stored picture, pixels: far beyond any network.
pub const IMAGE_SIDE_MAX: usize = 8192;

/// Longest side of a picture that is decoded, pixels.
pub const DECODED_SIDE_MAX: u32 = 16_384;

/// Most pixels of a picture that is decoded: an eighth of what the sides allow, 8192 × 8192.
pub const DECODED_PIXELS_MAX: u64 = 1 << 26;

/// Channels of a stored picture: red, green and blue.
const CHANNELS: usize = 3;

/// How pixels of another size are made, as the crate `image` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFilter {
    /// The nearest pixel.
    Nearest,
    /// Bilinear; over all pixels that a smaller picture's pixel covers.
    #[default]
    Triangle,
    /// Cubic.
    CatmullRom,
    /// Gaussian, which blurs a little.
    Gaussian,
    /// Windowed sinc of radius 3.
    Lanczos3,
}

const FILTERS: [(&str, ImageFilter); 5] = [
    ("nearest", ImageFilter::Nearest),
    ("triangle", ImageFilter::Triangle),
    ("catmull_rom", ImageFilter::CatmullRom),
    ("gaussian", ImageFilter::Gaussian),
    ("lanczos3", ImageFilter::Lanczos3),
];

impl FromStr for ImageFilter {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        named("filter", &FILTERS, name)
    }
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CropBox {
    /// Columns left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

impl CropBox {
    /// Whether there can be a picture that it lies in.
    fn fits_a_picture(self) -> bool {
        let [columns, rows] = self.least_picture();
        let side_max = u64::from(DECODED_SIDE_MAX);
        columns <= side_max && rows <= side_max && columns * rows <= DECODED_PIXELS_MAX
    }

    /// Columns and rows of the smallest picture that it lies in.
    fn least_picture(self) -> [u64; 2] {
        [
            u64::from(self.left) + u64::from(self.width),
            u64::from(self.top) + u64::from(self.height),
        ]
    }
}

/// Why no picture holds a part.
fn beyond(crop: CropBox) -> String {
    let [columns, rows] = crop.least_picture();
    format!(
        "lies in no picture that is decoded: it ends at column {columns} and row {rows}, and a picture has at most \
         {DECODED_SIDE_MAX} pixels a side and {DECODED_PIXELS_MAX} in all"
    )
}

impl From<[u32; 4]> for CropBox {
    /// `[left, top, width, height]`.
    fn from([left, top, width, height]: [u32; 4]) -> Self {
        Self {
            left,
            top,
            width,
            height,
        }
    }
}

/// A picture's tensor with nothing left to decide: `[3, height, width]`, red, green and blue from 0 to 1.
///
/// Serialised it identifies the values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageArgs {
    /// Columns of the tensor.
    pub width: usize,
    /// Rows of the tensor.
    pub height: usize,
    /// The part of the picture that is taken; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<CropBox>,
    /// How that part gets its size.
    pub filter: ImageFilter,
    /// Stored type.
    pub dtype: Dtype,
}

impl ImageArgs {
    /// `[3, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [CHANNELS, self.height, self.width]
    }

    /// Names of the axes.
    pub const fn dim_names() -> [&'static str; 3] {
        ["channel", "row", "column"]
    }

    /// Bytes of the tensor.
    pub fn row_bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype.bytes()
    }

    /// Everything that cannot work.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        for (side, key) in [(self.width, "width"), (self.height, "height")] {
            faults.within(Some(side as f64), 1.0..=IMAGE_SIDE_MAX as f64, key);
        }
        if let Some(crop) = self.crop {
            let problem =
                "allowed: [left, top, width, height] with a width and a height of at least 1 pixel";
            let has_pixels = crop.width > 0 && crop.height > 0;
            faults.unless(has_pixels, "crop", problem);
            faults.unless(!has_pixels || crop.fits_a_picture(), "crop", beyond(crop));
        }
        faults.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(width: usize, crop: Option<[u32; 4]>) -> ImageArgs {
        ImageArgs {
            width,
            height: 200,
            crop: crop.map(CropBox::from),
            filter: ImageFilter::default(),
            dtype: Dtype::F16,
        }
    }

    #[test]
    fn a_picture_is_rows_and_columns_of_three_colours() {
        assert_eq!(args(224, None).shape(), [3, 200, 224]);
        assert_eq!(args(224, None).row_bytes(), 3 * 200 * 224 * 2);
        assert!(args(224, Some([0, 0, 1, 1])).faults().is_empty());
    }

    #[test]
    fn a_part_lies_in_a_picture_that_can_be() {
        for crop in [
            [0, 0, 16_384, 4096],
            [16_383, 0, 1, 1],
            [4096, 4096, 4096, 4096],
        ] {
            assert!(args(1, Some(crop)).faults().is_empty(), "{crop:?}");
        }

        let beyond = [
            [16_384, 0, 1, 1],
            [0, 16_000, 1, 400],
            [8192, 8192, 1, 1],
            [u32::MAX; 4],
        ];
        for crop in beyond {
            let faults = args(1, Some(crop)).faults();
            assert_eq!(faults.len(), 1, "{crop:?}");
            assert_eq!(faults[0].key, "crop");
        }
    }

    #[test]
    fn what_cannot_be_names_its_key() {
        assert_eq!(args(0, None).faults()[0].key, "width");
        assert_eq!(args(100_000, None).faults()[0].key, "width");
        assert_eq!(args(1, Some([5, 5, 0, 1])).faults()[0].key, "crop");
        assert_eq!(args(1, Some([5, 5, 0, 1])).faults().len(), 1);
        assert!("bicubic".parse::<ImageFilter>().is_err());
    }
}
