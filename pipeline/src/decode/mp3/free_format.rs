//! Free format: frames of any bit rate, whose length only the distance between headers tells. symphonia decodes none;
//! they are recognised so that the reject names them.

use memchr::memchr_iter;

use super::header::HEADER_BYTES;

/// Longest frame: 640 kbit/s at 8 kHz would be longer, and nobody writes it.
const FRAME_BYTES_MAX: usize = 4_608;
/// Headers that are tried, so that a file of false ones costs little.
const CANDIDATES_MAX: usize = 64;

/// Three equal headers without a bit rate stand at equal distances, within the one byte of padding.
pub(super) fn is_free_format(file: &[u8]) -> bool {
    let headers = memchr_iter(0xFF, file).filter(|&at| is_header(&file[at..]));
    headers
        .take(CANDIDATES_MAX)
        .any(|at| has_two_successors(file, at))
}

fn is_header(bytes: &[u8]) -> bool {
    let Some(&[sync, b1, b2, _]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    // As `Header::parse`, but with bit rate 0.
    sync == 0xFF
        && b1 >= 0xE0
        && b1 >> 3 & 3 != 1
        && b1 >> 1 & 3 != 0
        && b2 >> 4 == 0
        && b2 >> 2 & 3 != 3
}

fn has_two_successors(file: &[u8], at: usize) -> bool {
    let first = stream_key(file, at);
    let window = &file[at..file.len().min(at + FRAME_BYTES_MAX)];

    // The first one is the header at `at` itself.
    for distance in memchr_iter(0xFF, window).skip(1) {
        if distance <= HEADER_BYTES || stream_key(file, at + distance) != first {
            continue;
        }
        // The third header lies as far behind the second, give or take a byte of padding.
        let mut thirds = 2 * distance - 1..=2 * distance + 1;
        if thirds.any(|twice| stream_key(file, at + twice) == first) {
            return true;
        }
    }
    false
}

/// Version, layer and rate of a header; padding and the private bit change from frame to frame.
fn stream_key(file: &[u8], at: usize) -> Option<[u8; 3]> {
    let header = file.get(at..at + 3)?;
    Some([header[0], header[1], header[2] & 0xFC])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distances_make_a_stream() {
        let frame = |bytes: usize| [&[0xFF, 0xFB, 0x00, 0x64][..], &vec![0; bytes - 4]].concat();
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
