//! Reads the format and size of a picture from its first bytes, and finds the end of a JPEG, without decoding or
//! allocating anything.

use image::ImageFormat;
use memchr::memchr;

/// First bytes of every PNG file.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// First bytes of every JPEG file: the start marker and the beginning of the first segment's marker.
const JPEG: &[u8] = &[0xff, 0xd8, 0xff];

/// Format, size and memory use of a picture, according to its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Format of the picture file.
    pub format: ImageFormat,
    /// Number of pixel columns, at least 1.
    pub width: u32,
    /// Number of pixel rows, at least 1.
    pub height: u32,
    /// Maximum number of bytes of memory that a pixel takes during decoding.
    pub pixel_bytes: u64,
}

/// Reason why a picture's header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// The file does not begin like a PNG or a JPEG.
    OtherFormat,
    /// The format is known, but the size of the picture cannot be read.
    NoSize(&'static str),
}

impl Header {
    /// Reads the header of a picture file.
    ///
    /// # Errors
    /// [`NoHeader`] if the file is not a PNG or JPEG, or its size cannot be read.
    pub(super) fn read(file: &[u8]) -> Result<Self, NoHeader> {
        if file.starts_with(PNG) {
            png(file).ok_or(NoHeader::NoSize("a PNG without the size of its picture"))
        } else if file.starts_with(JPEG) {
            jpeg(file).ok_or(NoHeader::NoSize("a JPEG without the size of its picture"))
        } else {
            Err(NoHeader::OtherFormat)
        }
    }

    /// Returns the number of pixels. The product cannot overflow, because width and height have 32 bits.
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads the IHDR chunk, which is the first chunk of every PNG: width and height, 32 bits each, and the bit depth of a
/// sample.
fn png(file: &[u8]) -> Option<Header> {
    let chunk = file.get(PNG.len()..)?;
    if chunk.get(4..8)? != b"IHDR" {
        return None;
    }
    let depth = *chunk.get(16)?;
    // A pixel takes four samples of one or two bytes each. Samples with fewer bits are widened.
    let pixel_bytes = if depth > 8 { 8 } else { 4 };
    header(
        ImageFormat::Png,
        be32(chunk.get(8..12)?),
        be32(chunk.get(12..16)?),
        pixel_bytes,
    )
}

/// Reads the first frame header (SOF) of a JPEG. Only segments with lengths come before it, and no image data.
///
/// Source: ITU-T T.81, B.1.1.2 and B.2.2.
fn jpeg(file: &[u8]) -> Option<Header> {
    // At most, a pixel takes four samples, their 16-bit coefficients, and four bytes of output.
    const PIXEL_BYTES: u64 = 4 + 4 * 2 + 4;

    let mut at = 2;
    loop {
        // Skip any number of fill bytes before a marker.
        let skipped = file.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        if skipped == 0 {
            return None;
        }
        let marker = file[at + skipped];
        let segment = file.get(at + skipped + 1..)?;

        // Markers SOF0 to SOF15, without the table markers (DHT, JPG, DAC) in the same range.
        let is_frame = (0xc0..=0xcf).contains(&marker) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if is_frame {
            let height = be16(segment.get(3..5)?);
            let width = be16(segment.get(5..7)?);
            return header(ImageFormat::Jpeg, width, height, PIXEL_BYTES);
        }
        // Image data or the end of the file come before any frame header.
        if matches!(marker, 0x00 | 0xd9 | 0xda) {
            return None;
        }

        let length = be16(segment.get(0..2)?) as usize;
        at += skipped + 1 + length.max(2);
    }
}

/// Returns the number of segments before the first scan of a JPEG, and whether an end marker follows a scan. After the
/// end marker, a file may contain other data, such as the movie of a motion photo.
///
/// Source: ITU-T T.81, B.1.1.2 and B.1.1.5.
pub(super) fn jpeg_segments(file: &[u8]) -> (usize, bool) {
    let mut n_segments = 0;
    let mut is_in_scan = false;
    let mut at = 2;
    while let Some(found) = file.get(at..).and_then(|rest| memchr(0xff, rest)) {
        at += found + 1;

        let has_length = match file.get(at) {
            // A fill byte before a marker, or a 0xff within a scan.
            Some(0x00 | 0xff) => false,
            Some(0xd9) => return (n_segments, is_in_scan),
            Some(0xda) => {
                is_in_scan = true;
                true
            }
            // The tables, comments and application data that may precede a further scan.
            Some(0xc4 | 0xcc | 0xdb..=0xdd | 0xe0..=0xef | 0xfe) => true,
            // Restart markers, and damage.
            Some(_) => !is_in_scan,
            None => break,
        };

        if has_length {
            n_segments += usize::from(!is_in_scan);
            let length = be16(file.get(at + 1..at + 3).unwrap_or_default());
            at += 1 + length.max(2) as usize;
        }
    }
    (n_segments, false)
}

fn header(format: ImageFormat, width: u32, height: u32, pixel_bytes: u64) -> Option<Header> {
    (width > 0 && height > 0).then_some(Header {
        format,
        width,
        height,
        pixel_bytes,
    })
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, &byte| n << 8 | u32::from(byte))
}

fn be16(bytes: &[u8]) -> u32 {
    be32(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{jpeg, png};
    use super::*;

    #[test]
    fn formats_and_sizes_are_read() {
        let of_png = Header::read(&png(31, 17)).unwrap();
        assert_eq!((of_png.width, of_png.height), (31, 17));
        assert_eq!(of_png.format, ImageFormat::Png);
        let of_jpeg = Header::read(&jpeg(31, 17)).unwrap();
        assert_eq!((of_jpeg.width, of_jpeg.height), (31, 17));
        assert_eq!(of_jpeg.format, ImageFormat::Jpeg);
    }

    #[test]
    fn end_of_a_jpeg_is_after_its_last_scan() {
        // Two scans with a table between them. The first scan contains a 0xff and a restart marker.
        let scans = b"\xff\xd8\xff\xda\0\x02a\xff\0\xff\xd0b\xff\xc4\0\x04\xff\xd9\xff\xda\0\x02c";
        assert_eq!(jpeg_segments(scans), (0, false));
        let whole = [&scans[..], b"\xff\xd9\xff\xda"].concat();
        assert_eq!(jpeg_segments(&whole), (0, true));

        // The end marker precedes all scans.
        assert_eq!(jpeg_segments(b"\xff\xd8\xff\xe0\0\x02\xff\xd9"), (1, false));
    }

    #[test]
    fn truncated_headers_never_panic() {
        for file in [png(9, 7), jpeg(9, 7)] {
            for end in 0..file.len() {
                let _ = Header::read(&file[..end]);
                let _ = jpeg_segments(&file[..end]);
            }
        }

        assert_eq!(Header::read(b"hello"), Err(NoHeader::OtherFormat));
        assert_eq!(Header::read(b""), Err(NoHeader::OtherFormat));
        assert!(matches!(
            Header::read(&[JPEG, &[0xff; 100]].concat()),
            Err(NoHeader::NoSize(_))
        ));
    }
}
