//! Pictures as PNG files with 8 bits per channel. The bytes depend only on the pixels.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Encoder, EncodingError};

/// Key colours of the colour map, from dark to bright; colours in between are interpolated. The values are those of
/// matplotlib's magma at the same positions.
const COLOURS: [[u8; 3]; 9] = [
    [0, 0, 4],
    [28, 16, 68],
    [79, 18, 123],
    [129, 37, 129],
    [181, 54, 122],
    [229, 80, 100],
    [251, 135, 97],
    [254, 194, 135],
    [252, 253, 191],
];

/// Encodes a picture as a PNG file. `pixels` contains the lines from top to bottom, each with its pixels from left to
/// right and with interleaved channels. The pixels of an indexed picture are indices into the colour map.
///
/// # Errors
/// The length of `pixels` does not match the width and height, or one of them is 0. Neither may exceed 2³¹ − 1.
pub fn encode_png(
    width: usize,
    height: usize,
    colours: ColorType,
    pixels: &[u8],
) -> Result<Vec<u8>, EncodingError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(colours);
    encoder.set_depth(BitDepth::Eight);
    if colours == ColorType::Indexed {
        encoder.set_palette(colour_map());
    }

    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

/// Returns a picture as a data URL.
pub(super) fn data_url(width: usize, colours: ColorType, pixels: &[u8]) -> String {
    let height = pixels.len().checked_div(width * colours.samples());
    // Encoding fails only for a picture without pixels, which no chart contains.
    let file = encode_png(width, height.unwrap_or(0), colours, pixels).unwrap_or_default();
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

fn colour_map() -> Vec<u8> {
    let mut map = Vec::with_capacity(3 * 256);
    let spans = COLOURS.len() - 1;
    for place in 0..256 {
        let at = place * spans;
        let corner = (at / 255).min(spans - 1);
        let share = at as f64 / 255.0 - corner as f64;
        for (from, to) in COLOURS[corner].iter().zip(COLOURS[corner + 1]) {
            let mixed = f64::from(*from) * (1.0 - share) + f64::from(to) * share;
            map.push(mixed.round() as u8);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_map_goes_from_dark_to_bright() {
        let map = colour_map();
        assert_eq!(map.len(), 768);
        assert_eq!(map[..3], COLOURS[0]);
        assert_eq!(map[765..], COLOURS[8]);
        let sums: Vec<u32> = map
            .chunks(3)
            .map(|c| c.iter().map(|&b| u32::from(b)).sum())
            .collect();
        assert!(sums.is_sorted());
    }

    #[test]
    fn a_picture_has_its_size_and_chunks() {
        let png = encode_png(3, 2, ColorType::Indexed, &[0, 128, 255, 1, 2, 3]).unwrap();
        assert_eq!(&png[16..24], [0, 0, 0, 3, 0, 0, 0, 2]);
        for kind in [&b"IHDR"[..], b"PLTE", b"IDAT", b"IEND"] {
            assert!(png.windows(4).any(|part| part == kind));
        }
        let png = encode_png(3, 2, ColorType::Rgb, [[1, 2, 3]; 6].as_flattened()).unwrap();
        assert_eq!(&png[16..24], [0, 0, 0, 3, 0, 0, 0, 2]);
        // The checksum of an empty IEND chunk is the same in every PNG file.
        assert!(png.ends_with(&[0xae, 0x42, 0x60, 0x82]));
    }

    #[test]
    fn pixels_come_back() {
        for color in [ColorType::Grayscale, ColorType::Rgb] {
            for (width, height) in [(1, 1), (7, 5), (1, 9), (300, 40)] {
                let n = width * color.samples() * height;
                let pixels: Vec<u8> = (0..n).map(|i| (i * i * 31 % 251) as u8).collect();
                let file = encode_png(width, height, color, &pixels).unwrap();

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
