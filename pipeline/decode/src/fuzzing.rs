//! Entry points for the fuzz tests in `tests/fuzz/`, which only their builds contain.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use crate::testing::{FORMATS, joined};

/// Returns a small file of each format of audio and pictures.
pub fn seeds() -> Vec<Vec<u8>> {
    let audio = FORMATS.map(|(_, make)| joined(&make(100)));
    let pictures = [ImageFormat::Png, ImageFormat::Jpeg].map(|format| {
        let picture = RgbImage::from_fn(9, 7, |x, y| Rgb([20 * x as u8, 30 * y as u8, 100]));
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, format).expect("a picture");
        file.into_inner()
    });
    audio.into_iter().chain(pictures).collect()
}
