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
    let mut body = Vec::new();
    body.extend(width.to_be_bytes());
    body.extend(height.to_be_bytes());
    body.extend([8, 2, 0, 0, 0]);
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", &body)].concat()
}

/// Encodes the test picture as PNG, with a text of this many bytes.
pub(super) fn png_with_text(n_bytes: usize) -> Vec<u8> {
    let text = [b"Comment\0".to_vec(), vec![b'a'; n_bytes]].concat();
    let mut file = png(5, 3);
    let at = png_header(5, 3).len();
    file.splice(at..at, png_chunk(b"tEXt", &text));
    file
}

/// Returns a chunk of a PNG file.
fn png_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(body);
    let size = body.len() as u32;
    [
        &size.to_be_bytes()[..],
        kind,
        body,
        &crc.sum().to_be_bytes(),
    ]
    .concat()
}
