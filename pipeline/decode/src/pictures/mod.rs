//! Decodes PNG and JPEG files to RGB tensors, or rejects them. The crate `image` decodes and resizes; this module sets
//! the limits.

mod header;
#[cfg(test)]
mod testing;

use std::io::Cursor;

use half::f16;
use image::codecs::png::PngDecoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use wavemill_schemas::recipe::{
    CropBox, DECODED_SIDE_MAX as SIDE_MAX, Dtype, ImageArgs, ImageFilter,
};
use wavemill_schemas::reject::{Reason, Reject, Stage};

use self::header::{Header, NoHeader, jpeg_segments};

/// Name and version of the picture decoder. They are part of the engine and of every feature's identity.
pub const NAME: &str = "image 0.25";

/// Bytes per pixel of the decoded RGB picture: red, green and blue.
const RGB_BYTES: u64 = 3;
/// Bytes per pixel between the two passes of resizing: four f32.
const RESIZING_BYTES: u64 = 16;
/// Maximum number of bytes of memory for the color profile and the texts of a PNG. A profile that inflates to more is
/// ignored, and longer texts make the picture a reject.
const METADATA_BYTES_MAX: u64 = 8 << 20;
/// Maximum number of segments before the first scan of a JPEG: 64 MB of metadata. The decoder searches all segments of
/// extended XMP data after each segment.
const SEGMENTS_MAX: usize = 1_000;

/// Returns the maximum number of bytes of memory that a picture needs while its tensors are made, in addition to its
/// file. Returns 0 if the picture will be rejected because of its first bytes.
///
/// `pixels_max` is the maximum number of pixels of a picture to be decoded. `heights` are the heights of the tensors.
pub fn held_bytes(file: &[u8], pixels_max: u64, heights: impl Iterator<Item = usize>) -> u64 {
    let Ok(header) = checked_header(file, pixels_max) else {
        return 0;
    };

    // Profiles and texts of a PNG are in buffers that grow by doubling.
    let metadata = match header.format {
        ImageFormat::Png => 2 * METADATA_BYTES_MAX,
        _ => 0,
    };
    // The JPEG decoder copies its file. The decoded picture is converted to RGB, and a part may be cropped.
    let decoded = header.pixels() * (header.pixel_bytes + 2 * RGB_BYTES) + file.len() as u64;
    let rows = heights.max().unwrap_or(0) as u64;
    metadata + decoded + u64::from(header.width) * rows * RESIZING_BYTES
}

/// Decodes a picture of at most `pixels_max` pixels to RGB, without transparency.
///
/// # Errors
/// A [`Reject`] (its clip fields are empty, because the caller knows the clip): `empty`, `not_image`, `too_large`,
/// `damaged`, `unsupported_codec`.
pub fn decode(file: &[u8], pixels_max: u64) -> Result<RgbImage, Reject> {
    if file.is_empty() {
        return Err(reject(Reason::Empty, "the file has no bytes"));
    }
    let header = checked_header(file, pixels_max)?;

    let bytes = Cursor::new(file);
    let decoded = if header.format == ImageFormat::Png {
        // The limit does not include the pixels, whose number was checked.
        PngDecoder::with_limits(bytes, limits(METADATA_BYTES_MAX))
            .and_then(DynamicImage::from_decoder)
    } else {
        check_jpeg(file)?;
        let mut reader = ImageReader::with_format(bytes, header.format);
        reader.limits(limits(header.pixels() * RGB_BYTES));
        reader.decode()
    };
    let picture = decoded.map_err(|error| undecodable(&error))?;

    // Memory was reserved for the picture size in the header, so the decoded picture must have that size.
    if (picture.width(), picture.height()) != (header.width, header.height) {
        return Err(reject(
            Reason::Damaged,
            "a picture of another size than its header says",
        ));
    }
    Ok(match picture {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => other.into_rgb8(),
    })
}

/// Returns the packed tensor of a picture: `[3, height, width]`, little-endian.
///
/// # Errors
/// `too_short` if the crop box exceeds the picture.
///
/// # Panics
/// If the stored type is s16, which [`ImageArgs::faults`] does not permit.
pub fn tensor(picture: &RgbImage, args: &ImageArgs) -> Result<Vec<u8>, Reject> {
    let sized = match args.crop {
        Some(crop) => resized(&cropped(picture, crop)?, args),
        None => resized(picture, args),
    };

    let mut bytes = Vec::with_capacity(args.row_bytes());
    // The tensor stores the color channels one after the other; a picture stores them pixel by pixel.
    for channel in 0..3 {
        for pixel in sized.pixels() {
            let value = pixel.0[channel];
            match args.dtype {
                Dtype::U8 => bytes.push(value),
                Dtype::F16 => {
                    let value = f16::from_f32(f32::from(value) / 255.0);
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
                Dtype::F32 => bytes.extend_from_slice(&(f32::from(value) / 255.0).to_le_bytes()),
                Dtype::S16 => unreachable!("`ImageArgs::faults` does not permit s16"),
            }
        }
    }
    Ok(bytes)
}

fn cropped(picture: &RgbImage, crop: CropBox) -> Result<RgbImage, Reject> {
    let CropBox {
        left,
        top,
        width,
        height,
    } = crop;
    if !fits(left, width, picture.width()) || !fits(top, height, picture.height()) {
        let detail = format!(
            "{} x {} pixels do not hold the crop box [{left}, {top}, {width}, {height}]",
            picture.width(),
            picture.height()
        );
        return Err(Reject::new(Stage::Features, Reason::TooShort, detail));
    }
    Ok(imageops::crop_imm(picture, left, top, width, height).to_image())
}

/// Reports whether `length` pixels from pixel `from` on fit within a side of the picture.
fn fits(from: u32, length: u32, side: u32) -> bool {
    u64::from(from) + u64::from(length) <= u64::from(side)
}

fn resized(picture: &RgbImage, args: &ImageArgs) -> RgbImage {
    // The check of the recipe keeps width and height far below 2³².
    let width = args.width as u32;
    let height = args.height as u32;
    if picture.dimensions() == (width, height) {
        return picture.clone();
    }

    let filter = match args.filter {
        ImageFilter::Nearest => FilterType::Nearest,
        ImageFilter::Triangle => FilterType::Triangle,
        ImageFilter::CatmullRom => FilterType::CatmullRom,
        ImageFilter::Gaussian => FilterType::Gaussian,
        ImageFilter::Lanczos3 => FilterType::Lanczos3,
    };
    imageops::resize(picture, width, height, filter)
}

/// Reads the header of a picture and rejects pictures that exceed the limits.
fn checked_header(file: &[u8], pixels_max: u64) -> Result<Header, Reject> {
    let header = Header::read(file).map_err(|none| match none {
        NoHeader::OtherFormat => reject(
            Reason::NotImage,
            "neither a PNG nor a JPEG by its first bytes",
        ),
        NoHeader::NoSize(detail) => reject(Reason::NotImage, detail),
    })?;

    let is_large = header.width > SIDE_MAX || header.height > SIDE_MAX;
    if is_large || header.pixels() > pixels_max {
        let detail = format!(
            "{} x {} pixels, at most {SIDE_MAX} a side and {pixels_max} in all",
            header.width, header.height
        );
        return Err(reject(Reason::TooLarge, detail));
    }
    Ok(header)
}

/// Returns the same size limits for a decoder that may allocate `alloc_bytes` bytes.
fn limits(alloc_bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(alloc_bytes);
    limits
}

/// Checks that a JPEG has an end marker and not too many segments. Without the marker, decoders fill missing parts with
/// grey.
fn check_jpeg(file: &[u8]) -> Result<(), Reject> {
    let (n_segments, has_end) = jpeg_segments(file);
    if n_segments > SEGMENTS_MAX {
        let detail = format!("a JPEG of {n_segments} segments, at most {SEGMENTS_MAX}");
        return Err(reject(Reason::UnsupportedCodec, detail));
    }
    if !has_end {
        let detail = "a JPEG that ends before its picture does";
        return Err(reject(Reason::Damaged, detail));
    }
    Ok(())
}

fn undecodable(error: &ImageError) -> Reject {
    let reason = match error {
        ImageError::Unsupported(_) => Reason::UnsupportedCodec,
        ImageError::Limits(_) => Reason::TooLarge,
        _ => Reason::Damaged,
    };
    // Joins the lines of the decoder's message to one line.
    let words: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    reject(reason, words.join(", "))
}

fn reject(reason: Reason, detail: impl Into<String>) -> Reject {
    Reject::new(Stage::Decode, reason, detail)
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::recipe::DECODED_PIXELS_MAX as PIXELS_MAX;

    use super::testing::{jpeg, pixel, png, png_header, png_with_text};
    use super::*;

    fn decode(file: &[u8]) -> Result<RgbImage, Reject> {
        super::decode(file, PIXELS_MAX)
    }

    fn args(width: usize, height: usize, dtype: Dtype) -> ImageArgs {
        ImageArgs {
            width,
            height,
            crop: None,
            filter: ImageFilter::default(),
            dtype,
        }
    }

    fn reason(file: &[u8]) -> Reason {
        decode(file).unwrap_err().reason
    }

    #[test]
    fn png_pixels_are_decoded_by_channel() {
        let picture = decode(&png(5, 3)).unwrap();
        let bytes = tensor(&picture, &args(5, 3, Dtype::U8)).unwrap();
        let mut wanted = Vec::new();
        for channel in 0..3 {
            for y in 0..3 {
                wanted.extend((0..5).map(|x| pixel(x, y)[channel]));
            }
        }
        assert_eq!(bytes, wanted);

        let floats = tensor(&picture, &args(5, 3, Dtype::F32)).unwrap();
        let halves = tensor(&picture, &args(5, 3, Dtype::F16)).unwrap();
        for (index, &byte) in wanted.iter().enumerate() {
            let value = f32::from(byte) / 255.0;
            assert_eq!(floats[4 * index..][..4], value.to_le_bytes());
            assert_eq!(halves[2 * index..][..2], f16::from_f32(value).to_le_bytes());
        }
    }

    #[test]
    fn crop_is_applied_before_resizing() {
        let picture = decode(&png(8, 6)).unwrap();
        let mut args = args(2, 2, Dtype::U8);
        args.crop = Some(CropBox::from([3, 1, 2, 2]));
        let bytes = tensor(&picture, &args).unwrap();
        let reds = [
            pixel(3, 1)[0],
            pixel(4, 1)[0],
            pixel(3, 2)[0],
            pixel(4, 2)[0],
        ];
        assert_eq!(bytes[..4], reds);

        args.crop = Some(CropBox::from([7, 1, 2, 2]));
        let outside = tensor(&picture, &args).unwrap_err();
        assert_eq!(outside.reason, Reason::TooShort);
        assert!(
            outside.detail.contains("8 x 6 pixels"),
            "{}",
            outside.detail
        );
        args.crop = Some(CropBox::from([u32::MAX, 1, u32::MAX, 2]));
        assert!(tensor(&picture, &args).is_err());
    }

    /// The triangle filter halves the picture's size: its weights within the picture are 1, 3, 3, 1 eighths.
    #[test]
    fn downscaling_computes_weighted_means() {
        let picture = RgbImage::from_fn(8, 1, |x, _| image::Rgb([(x * x) as u8 * 5; 3]));
        let half = tensor(&picture, &args(4, 1, Dtype::U8)).unwrap();
        let [a, b, c, d] = [1, 4, 9, 16].map(|square| f64::from(square * 5));
        let wanted = (a + 3.0 * b + 3.0 * c + d) / 8.0;
        assert!(
            (f64::from(half[1]) - wanted).abs() <= 0.51,
            "{half:?}, not {wanted}"
        );
    }

    #[test]
    fn decoded_jpeg_is_close_to_the_original() {
        let picture = decode(&jpeg(64, 48)).unwrap();
        assert_eq!(picture.dimensions(), (64, 48));
        let far = picture
            .enumerate_pixels()
            .flat_map(|(x, y, found)| (0..3).map(move |c| found.0[c].abs_diff(pixel(x, y)[c])));
        assert!(far.max().unwrap() < 40);
    }

    #[test]
    fn files_that_are_not_pictures_are_rejected() {
        assert_eq!(reason(b""), Reason::Empty);
        assert_eq!(
            reason(b"a text that somebody called .png"),
            Reason::NotImage
        );
        assert_eq!(reason(&png(9, 9)[..12]), Reason::NotImage);

        let detail = decode(&png_header(100_000, 100_000)).unwrap_err();
        assert_eq!(detail.reason, Reason::TooLarge);
        assert!(
            detail.detail.starts_with("100000 x 100000 pixels"),
            "{}",
            detail.detail
        );

        // Width and height are each allowed, but not their product.
        assert_eq!(reason(&png_header(16_384, 16_384)), Reason::TooLarge);
        assert_eq!(
            held_bytes(&png_header(100_000, 100_000), PIXELS_MAX, [1].into_iter()),
            0
        );
    }

    #[test]
    fn truncated_pictures_are_damaged() {
        let whole = png(40, 40);
        assert_eq!(reason(&whole[..whole.len() / 2]), Reason::Damaged);
        let whole = jpeg(64, 48);
        let detail = decode(&whole[..whole.len() / 2]).unwrap_err();
        assert_eq!(detail.reason, Reason::Damaged);
        assert_eq!(detail.detail, "a JPEG that ends before its picture does");
        assert!(!detail.detail.contains('\n'));
        assert_eq!(reason(&png_header(100, 100)), Reason::Damaged);
    }

    #[test]
    fn metadata_of_a_png_is_limited() {
        assert_eq!(decode(&png_with_text(1 << 20)), decode(&png(5, 3)));
        assert_eq!(reason(&png_with_text(10 << 20)), Reason::TooLarge);

        let held_bytes = held_bytes(&png(5, 3), PIXELS_MAX, [1].into_iter());
        assert!(held_bytes >= 2 * METADATA_BYTES_MAX, "{held_bytes}");
    }

    #[test]
    fn segments_of_a_jpeg_are_limited() {
        let picture = jpeg(64, 48);
        let with_segments = |n: usize| {
            let segments = [0xff_u8, 0xe1, 0, 2].repeat(n);
            [&picture[..2], &segments, &picture[2..]].concat()
        };
        assert_eq!(decode(&with_segments(900)), decode(&picture));
        assert_eq!(reason(&with_segments(1_001)), Reason::UnsupportedCodec);
    }

    #[test]
    fn data_after_a_jpeg_is_ignored() {
        let picture = jpeg(64, 48);
        // The movie of a motion photo, with the marker of a scan by chance.
        let motion = [&picture[..], b"\0\0\0\x0cftypmp42\xff\xda\0\x08"].concat();
        assert_eq!(decode(&motion), decode(&picture));
    }

    #[test]
    fn changed_bytes_never_panic() {
        for file in [png(12, 9), jpeg(16, 16)] {
            for at in 0..file.len() {
                let mut broken = file.clone();
                broken[at] ^= 0x55;
                if let Ok(picture) = decode(&broken) {
                    let _ = tensor(&picture, &args(4, 4, Dtype::U8));
                }
            }
        }
    }
}
