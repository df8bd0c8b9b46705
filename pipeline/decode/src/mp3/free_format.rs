//! MP3 files in free format, whose frames have an arbitrary bit rate, so that their length follows only from the
//! distance between headers. All frames of a stream have the same length, except for padding.
//!
//! Free-format layer III is decoded like any other stream once the frame length is known. The other layers are
//! recognised only for the message of the reject.

use memchr::memchr_iter;

use super::header::{HEADER_BYTES, Header};

/// Maximum length of a free-format frame in bytes. Frames of 640 kbit/s at 8 kHz would be longer, but are not written.
const FRAME_BYTES_MAX: usize = 4_608;
/// Maximum number of free-format headers to try, which bounds the time for a file with many false headers.
const CANDIDATES_MAX: usize = 64;

/// Returns the length in bytes of a layer III frame without padding, if the file contains three matching free-format
/// headers at that distance.
pub(super) fn frame_bytes(file: &[u8]) -> Option<usize> {
    repeated_headers(file).find_map(|(at, distance)| {
        let second = at + distance;
        let bytes = distance - padding(file, at);
        // Reject headers of other layers, and frames that are too short for their own side info.
        let is_frame = Header::parse_with(&file[at..], Some(bytes)).is_some();
        let third = second + bytes + padding(file, second);
        (is_frame && stream_key(file, third) == stream_key(file, at)).then_some(bytes)
    })
}

/// Returns the number of padding bytes of the layer III frame at `at`.
fn padding(file: &[u8], at: usize) -> usize {
    file.get(at + 2)
        .map_or(0, |byte| usize::from(byte >> 1 & 1))
}

/// Reports whether the file contains three matching free-format headers of any layer at equal distances, within one
/// byte of padding.
pub(super) fn is_free_format(file: &[u8]) -> bool {
    repeated_headers(file).any(|(at, distance)| {
        let mut thirds = 2 * distance - 1..=2 * distance + 1;
        thirds.any(|twice| stream_key(file, at + twice) == stream_key(file, at))
    })
}

/// Returns the offsets of free-format headers, each with the distance to a later header of the same stream.
fn repeated_headers(file: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let headers = memchr_iter(0xFF, file).filter(|&at| is_header(&file[at..]));
    headers.take(CANDIDATES_MAX).flat_map(move |at| {
        let window = &file[at..file.len().min(at + FRAME_BYTES_MAX)];
        memchr_iter(0xFF, window)
            .filter(move |&distance| {
                distance > HEADER_BYTES && stream_key(file, at + distance) == stream_key(file, at)
            })
            .map(move |distance| (at, distance))
    })
}

fn is_header(bytes: &[u8]) -> bool {
    let Some(&[sync, b1, b2, _]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    // Check the same conditions as `Header::parse_with`, but for bit-rate index 0.
    sync == 0xFF
        && b1 >= 0xE0
        && b1 >> 3 & 3 != 1
        && b1 >> 1 & 3 != 0
        && b2 >> 4 == 0
        && b2 >> 2 & 3 != 3
}

/// Returns the bytes of a header that identify its stream: version, layer and rate. Padding and the private bit can
/// change from frame to frame.
fn stream_key(file: &[u8], at: usize) -> Option<[u8; 3]> {
    let header = file.get(at..at + 3)?;
    Some([header[0], header[1], header[2] & 0xFC])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a free-format frame of 653 bytes plus padding.
    fn padded_frame(padding: u8) -> Vec<u8> {
        let mut frame = vec![0; 653 + usize::from(padding)];
        frame[..4].copy_from_slice(&[0xFF, 0xFB, padding << 1, 0x64]);
        frame
    }

    /// Returns a free-format frame of this length without padding.
    fn frame(n_bytes: usize) -> Vec<u8> {
        [&[0xFF, 0xFB, 0x00, 0x64][..], &vec![0; n_bytes - 4]].concat()
    }

    #[test]
    fn free_format_length_excludes_padding() {
        for paddings in [[0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]] {
            let file = [b"x".to_vec(), paddings.map(padded_frame).concat()].concat();
            assert_eq!(frame_bytes(&file), Some(653), "{paddings:?}");
        }

        assert_eq!(frame_bytes(&padded_frame(0).repeat(2)), None);
        let layer2 = [&[0xFF, 0xFD, 0x00, 0x64][..], &[0; 649]].concat();
        assert_eq!(frame_bytes(&layer2.repeat(3)), None);
        assert!(is_free_format(&layer2.repeat(3)));
    }

    #[test]
    fn equal_distances_are_detected_as_free_format() {
        assert!(is_free_format(
            &[frame(653), frame(654), frame(653)].concat()
        ));
        assert!(!is_free_format(
            &[frame(653), frame(700), frame(653)].concat()
        ));
        assert!(!is_free_format(&frame(653)));
        assert!(!is_free_format(&[0xFF; 10_000]));
    }
}
