//! Builders of AAC with ADTS headers for tests.

use super::bits::BitWriter;
use super::tags::{ape, id3v1, id3v2};
use super::{Part, audio, other, text};

/// Returns silent frames of AAC with different gains, at 44.1 kHz in mono.
pub(crate) fn aac_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    let frame = |number: u8| {
        let mut bits = BitWriter::default();
        // One channel with a gain, without bands and tools; the end.
        bits.write(0, 3 + 4);
        bits.write(u32::from(number), 8);
        bits.write(0, 1 + 2 + 1 + 6 + 1 + 3);
        bits.write(7, 3);
        let header = [0xFF, 0xF1, 0x50, 0x40, 1, 0x7F, 0xFC];
        [&header[..], &bits.bytes].concat()
    };
    numbers.flat_map(frame).collect()
}

pub(crate) fn parts(n_tag_bytes: usize) -> Vec<Part> {
    vec![
        other(id3v2(n_tag_bytes)),
        audio(aac_frames(0..80)),
        other(text(333)),
        audio(aac_frames(81..160)),
        other(ape(n_tag_bytes)),
        other(id3v1()),
    ]
}
