//! Arguments of features computed from picture files: crop, size and stored type.

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};
use crate::pack::Dtype;
use crate::words::Named;

/// Maximum width or height of a stored picture in pixels: no network takes larger input.
pub const IMAGE_SIDE_MAX: usize = 8192;

/// Maximum width or height of a decoded picture file in pixels.
pub const DECODED_SIDE_MAX: u32 = 16_384;

/// Maximum number of pixels of a decoded picture, 8192 × 8192: a quarter of a square with the maximum width and height.
pub const DECODED_PIXELS_MAX: u64 = 1 << 26;

/// Channels of a stored picture: red, green and blue.
const CHANNELS: usize = 3;

/// Filter for resizing pictures, with the names of the crate `image`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFilter {
    /// Takes the nearest pixel.
    Nearest,
    /// Bilinear; when reducing a picture, averages all pixels that the new pixel covers.
    #[default]
    Triangle,
    /// Cubic (Catmull–Rom).
    CatmullRom,
    /// Gaussian, which blurs slightly.
    Gaussian,
    /// Windowed sinc of radius 3.
    Lanczos3,
}

impl Named for ImageFilter {
    const KEY: &'static str = "filter";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("nearest", Self::Nearest),
        ("triangle", Self::Triangle),
        ("catmull_rom", Self::CatmullRom),
        ("gaussian", Self::Gaussian),
        ("lanczos3", Self::Lanczos3),
    ];
}

/// A rectangular part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CropBox {
    /// Number of columns to the left of the rectangle.
    pub left: u32,
    /// Number of rows above the rectangle.
    pub top: u32,
    /// Width of the rectangle in pixels.
    pub width: u32,
    /// Height of the rectangle in pixels.
    pub height: u32,
}

impl CropBox {
    /// Reports whether a picture within the decoding limits can contain this rectangle.
    fn fits_a_picture(self) -> bool {
        let [columns, rows] = self.least_picture();
        let side_max = u64::from(DECODED_SIDE_MAX);
        columns <= side_max && rows <= side_max && columns * rows <= DECODED_PIXELS_MAX
    }

    /// Returns the width and height in pixels of the smallest picture that contains this rectangle.
    fn least_picture(self) -> [u64; 2] {
        [
            u64::from(self.left) + u64::from(self.width),
            u64::from(self.top) + u64::from(self.height),
        ]
    }
}

/// Formats the error message for a crop that lies outside of every picture within the decoding limits.
fn beyond(crop: CropBox) -> String {
    let [columns, rows] = crop.least_picture();
    format!(
        "exceeds every picture that can be decoded: it ends at column {columns} and row {rows}, and a picture has at \
         most {DECODED_SIDE_MAX} pixels per side and {DECODED_PIXELS_MAX} in total"
    )
}

impl From<[u32; 4]> for CropBox {
    /// Converts `[left, top, width, height]` in pixels.
    fn from([left, top, width, height]: [u32; 4]) -> Self {
        Self {
            left,
            top,
            width,
            height,
        }
    }
}

/// All arguments of a feature computed from picture files. Its tensor is `[3, height, width]`: red, green and blue from
/// 0 to 1.
///
/// The serialized form of the arguments identifies the stored values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageArgs {
    /// Width of the resized picture: the number of columns of the tensor.
    pub width: usize,
    /// Height of the resized picture: the number of rows of the tensor.
    pub height: usize,
    /// Rectangle of the picture to use; the whole picture if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<CropBox>,
    /// Filter for resizing the cropped picture.
    pub filter: ImageFilter,
    /// Type in which values are stored.
    pub dtype: Dtype,
}

impl ImageArgs {
    /// Returns the tensor's shape: `[3, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [CHANNELS, self.height, self.width]
    }

    /// Returns the names of the tensor's axes.
    pub const fn dim_names() -> [&'static str; 3] {
        ["channel", "row", "column"]
    }

    /// Returns the size of the tensor in bytes.
    pub fn row_bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype.bytes()
    }

    /// Returns a fault for each invalid argument.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        for (side, key) in [(self.width, "width"), (self.height, "height")] {
            faults.within(Some(side as f64), 1.0..=IMAGE_SIDE_MAX as f64, key);
        }
        let problem = "allowed for image: u8, f16, f32";
        faults.unless(self.dtype != Dtype::S16, "dtype", problem);
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
    fn crop_must_lie_within_the_picture() {
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
    fn invalid_options_name_their_key() {
        assert_eq!(args(0, None).faults()[0].key, "width");
        assert_eq!(args(100_000, None).faults()[0].key, "width");
        assert_eq!(args(1, Some([5, 5, 0, 1])).faults()[0].key, "crop");
        assert_eq!(args(1, Some([5, 5, 0, 1])).faults().len(), 1);
        assert!(ImageFilter::named("bicubic").is_err());

        let samples = ImageArgs {
            dtype: Dtype::S16,
            ..args(1, None)
        };
        assert_eq!(samples.faults()[0].key, "dtype");
    }
}
