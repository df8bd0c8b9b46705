//! Encodes pictures with 8 bits per channel as PNG. The bytes depend only on the pixels.

use png::{BitDepth, ColorType, Encoder};

/// Maximum width and height of a PNG picture, in pixels.
pub(super) const SIDE_MAX: usize = (1 << 31) - 1;

/// Encodes a picture as a complete PNG file. `pixels` contains the lines from top to bottom, each with its pixels from
/// left to right and with interleaved channels.
///
/// # Panics
/// If the length of `pixels` does not match the width and height, or if one of them is 0 or above [`SIDE_MAX`].
pub(super) fn encode(width: usize, height: usize, color: ColorType, pixels: &[u8]) -> Vec<u8> {
    assert!((1..=SIDE_MAX).contains(&width) && (1..=SIDE_MAX).contains(&height));
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(pixels)?;
            writer.finish()
        })
        .expect("writing to a vector cannot fail, and the pixels match the dimensions");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back() {
        for color in [ColorType::Grayscale, ColorType::Rgb] {
            for (width, height) in [(1, 1), (7, 5), (1, 9), (300, 40)] {
                let n = width * color.samples() * height;
                let pixels: Vec<u8> = (0..n).map(|i| (i * i * 31 % 251) as u8).collect();
                let file = encode(width, height, color, &pixels);

                let decoder = png::Decoder::new(std::io::Cursor::new(file));
                let mut reader = decoder.read_info().expect("a header");
                let mut read = vec![0; reader.output_buffer_size().expect("a size")];
                let info = reader.next_frame(&mut read).expect("pixels");
                assert_eq!((info.width as usize, info.height as usize), (width, height));
                assert_eq!((info.color_type, read), (color, pixels));
            }
        }
    }
}
