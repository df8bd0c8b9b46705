//! Creates small pictures for tests.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

/// Returns the color of a test pixel. Colors change smoothly, so that JPEG preserves them. The channels differ.
pub(super) fn pixel(x: u32, y: u32) -> [u8; 3] {
    [(2 * x + 20) as u8, (2 * y + 60) as u8, (x + y + 100) as u8]
}

/// Encodes the test picture given by [`pixel`] as PNG.
pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    encoded(width, height, ImageFormat::Png)
}

/// Encodes the test picture given by [`pixel`] as JPEG.
pub(super) fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(width, height, ImageFormat::Jpeg)
}

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb(pixel(x, y)));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// Creates the beginning of a PNG file with this size in its header, and no image data.
pub(super) fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&chunk);

    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(13_u32.to_be_bytes());
    file.extend(chunk);
    file.extend(crc.sum().to_be_bytes());
    file
}
