//! Small pictures as PNG files: with one byte per pixel, an index into a colour map, or with three, its colours.

use png::{BitDepth, ColorType, Encoder};

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

/// Encodes pixels, which are indices into the colour map, as a PNG. Rows begin at the top and have `width` pixels.
pub(super) fn palette(pixels: &[u8], width: usize) -> Vec<u8> {
    encode(pixels, width, ColorType::Indexed)
}

/// Encodes pixels of red, green and blue as a PNG. Rows begin at the top and have `width` pixels.
pub(super) fn colours(pixels: &[[u8; 3]], width: usize) -> Vec<u8> {
    encode(pixels.as_flattened(), width, ColorType::Rgb)
}

fn encode(bytes: &[u8], width: usize, colours: ColorType) -> Vec<u8> {
    let row_bytes = width * colours.samples();
    let height = bytes.len().checked_div(row_bytes).unwrap_or(0);
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(colours);
    encoder.set_depth(BitDepth::Eight);
    if colours == ColorType::Indexed {
        encoder.set_palette(colour_map());
    }

    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(bytes)?;
        writer.finish()
    });
    // Encoding fails only for a picture without pixels, which no chart contains.
    match written {
        Ok(()) => file,
        Err(_) => Vec::new(),
    }
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
        let png = palette(&[0, 128, 255, 1, 2, 3], 3);
        assert_eq!(&png[16..24], [0, 0, 0, 3, 0, 0, 0, 2]);
        for kind in [&b"IHDR"[..], b"PLTE", b"IDAT", b"IEND"] {
            assert!(png.windows(4).any(|part| part == kind));
        }
        let png = colours(&[[1, 2, 3]; 6], 3);
        assert_eq!(&png[16..24], [0, 0, 0, 3, 0, 0, 0, 2]);
        // The checksum of an empty IEND chunk is the same in every PNG file.
        assert!(png.ends_with(&[0xae, 0x42, 0x60, 0x82]));
    }
}
