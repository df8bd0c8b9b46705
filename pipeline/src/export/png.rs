//! Pictures of 8 bits a channel as PNG: <https://www.w3.org/TR/png-3/>. The bytes depend on the pixels alone.

use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Widest and highest picture of the format.
pub(super) const SIDE_MAX: usize = (1 << 31) - 1;

/// Colours of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// One byte a pixel.
    Grey,
    /// Red, green and blue: three bytes a pixel.
    Rgb,
}

impl Colour {
    /// Bytes a pixel.
    #[must_use]
    pub(super) const fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Grey => 0,
            Self::Rgb => 2,
        }
    }
}

/// How a line is written: as it is, or as differences, which deflate better. Numbered as in the format.
const FILTERS: [Filter; 3] = [Filter::None, Filter::Sub, Filter::Up];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Filter {
    None = 0,
    /// From the pixel to the left.
    Sub = 1,
    /// From the pixel above.
    Up = 2,
}

impl Filter {
    fn apply(self, line: &[u8], above: &[u8], channels: usize, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::None => out.extend_from_slice(line),
            Self::Sub => {
                let (first, _) = line.split_at(channels.min(line.len()));
                out.extend_from_slice(first);
                let left = line.iter().zip(line.iter().skip(channels));
                out.extend(left.map(|(left, x)| x.wrapping_sub(*left)));
            }
            Self::Up => {
                let above = line.iter().zip(above);
                out.extend(above.map(|(x, above)| x.wrapping_sub(*above)));
            }
        }
    }
}

/// A whole file. `pixels`: lines from the top, pixels from the left, channels side by side.
///
/// # Panics
/// If `pixels` has another length than the sides say, or a side is 0 or over [`SIDE_MAX`].
#[must_use]
pub(super) fn encode(width: usize, height: usize, colour: Colour, pixels: &[u8]) -> Vec<u8> {
    let line_bytes = width * colour.channels();
    assert_eq!(pixels.len(), line_bytes * height, "lines of one length");
    assert!((1..=SIDE_MAX).contains(&width) && (1..=SIDE_MAX).contains(&height));

    let mut head = Vec::new();
    head.extend((width as u32).to_be_bytes());
    head.extend((height as u32).to_be_bytes());
    // Bits a channel, colour, and the only compression, filters and interlacing that are of use here.
    head.extend([8, colour.code(), 0, 0, 0]);

    let mut png = SIGNATURE.to_vec();
    chunk(&mut png, b"IHDR", &head);
    let data = deflated(line_bytes, colour, pixels).expect("a vector takes all that is written");
    chunk(&mut png, b"IDAT", &data);
    chunk(&mut png, b"IEND", &[]);
    png
}

fn deflated(line_bytes: usize, colour: Colour, pixels: &[u8]) -> io::Result<Vec<u8>> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());

    // Above the first line there are zeros.
    let zeros = vec![0; line_bytes];
    let mut above: &[u8] = &zeros;

    let mut tried = Vec::new();
    let mut best = Vec::new();

    for line in pixels.chunks_exact(line_bytes) {
        let mut best_filter = Filter::None;
        let mut best_cost = u64::MAX;
        for filter in FILTERS {
            filter.apply(line, above, colour.channels(), &mut tried);
            let cost = cost(&tried);
            if cost < best_cost {
                best_cost = cost;
                best_filter = filter;
                // The other buffer is free for the next filter.
                std::mem::swap(&mut best, &mut tried);
            }
        }

        zlib.write_all(&[best_filter as u8])?;
        zlib.write_all(&best)?;
        above = line;
    }
    zlib.finish()
}

/// What a line is likely to take: the sum of its bytes as signed numbers, as the format's authors advise.
fn cost(line: &[u8]) -> u64 {
    line.iter()
        .map(|&byte| u64::from((byte as i8).unsigned_abs()))
        .sum()
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a picture of less than 4 GiB");
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    png.extend(length.to_be_bytes());
    png.extend(kind);
    png.extend(data);
    png.extend(crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;

    use super::*;

    /// Chunks by name, with every checksum compared.
    fn chunks(png: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut rest = png.strip_prefix(SIGNATURE).expect("the signature");
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (body, after) = rest[4..].split_at(4 + length);
            let mut crc = Crc::new();
            crc.update(body);
            assert_eq!(after[..4], crc.sum().to_be_bytes());
            let kind = String::from_utf8(body[..4].to_vec()).unwrap();
            found.push((kind, body[4..].to_vec()));
            rest = &after[4..];
        }
        found
    }

    /// The pixels of what [`encode`] wrote, by the definition of the filters.
    fn decode(png: &[u8], line_bytes: usize, channels: usize) -> Vec<u8> {
        let chunks = chunks(png);
        let names: Vec<&str> = chunks.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["IHDR", "IDAT", "IEND"]);
        let mut filtered = Vec::new();
        ZlibDecoder::new(&chunks[1].1[..])
            .read_to_end(&mut filtered)
            .unwrap();

        let mut pixels: Vec<u8> = Vec::new();
        for line in filtered.chunks_exact(1 + line_bytes) {
            for (x, &byte) in line[1..].iter().enumerate() {
                let at = pixels.len();
                let left = if x < channels {
                    0
                } else {
                    pixels[at - channels]
                };
                let above = if at < line_bytes {
                    0
                } else {
                    pixels[at - line_bytes]
                };
                pixels.push(match line[0] {
                    0 => byte,
                    1 => byte.wrapping_add(left),
                    2 => byte.wrapping_add(above),
                    other => panic!("filter {other}"),
                });
            }
        }
        pixels
    }

    #[test]
    fn pixels_come_back() {
        for colour in [Colour::Grey, Colour::Rgb] {
            for (width, height) in [(1, 1), (7, 5), (1, 9), (300, 40)] {
                let line_bytes = width * colour.channels();
                let noise = |i: usize| (i * i * 31 % 251) as u8;
                let ramp = |i: usize| (i % line_bytes) as u8;
                let even = |_: usize| 200;
                let kinds: [&dyn Fn(usize) -> u8; 3] = [&noise, &ramp, &even];
                for kind in kinds {
                    let pixels: Vec<u8> = (0..line_bytes * height).map(kind).collect();
                    let png = encode(width, height, colour, &pixels);
                    assert_eq!(decode(&png, line_bytes, colour.channels()), pixels);
                    let head = &chunks(&png)[0].1;
                    assert_eq!(head[..4], (width as u32).to_be_bytes());
                    assert_eq!(head[4..8], (height as u32).to_be_bytes());
                }
            }
        }
    }
}
