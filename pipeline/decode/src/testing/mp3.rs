//! Builders of MP3 files for tests.

use super::bits::BitWriter;
use super::tags::{ape, id3v1, id3v2};
use super::{Part, audio, other, text};

/// Size of the test MP3 frames in bytes: 64 kbit/s, mono, at 44.1 kHz.
pub(crate) const MP3_FRAME_BYTES: usize = 208;
/// Size of a test frame's header and side info in bytes.
const MP3_SIDE_BYTES: usize = 4 + 17;
const MP3_HEADER: [u8; 4] = [0xFF, 0xFB, 0x50, 0xC4];

/// Returns an MP3 frame of noise. All frames except number 0 take 20 bytes of main data from the previous frame.
pub(crate) fn mp3_frame(number: u8) -> Vec<u8> {
    let mut side = BitWriter::default();
    // Side info: distance to the start of the main data in bytes; private bits; no shared scale factors.
    side.write(if number == 0 { 0 } else { 20 }, 9);
    side.write(0, 5 + 4);

    for _ in 0..2 {
        // For each granule: size in bits, number of line pairs, gain, scale factors of zero bits, long blocks.
        side.write(600, 12);
        side.write(80, 9);
        side.write(180, 8);
        side.write(0, 4 + 1);

        // Huffman table 1, in which every bit sequence is valid, for three regions, and the ends of the regions.
        side.write(1, 5);
        side.write(1, 5);
        side.write(1, 5);
        side.write(5, 4);
        side.write(3, 3);
        side.write(0, 3);
    }

    let mut state = u32::from(number) + 1;
    let mut main_data = Vec::new();
    for _ in MP3_SIDE_BYTES..MP3_FRAME_BYTES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Keep bytes below 0x80, so that none of them can begin a frame header.
        main_data.push((state >> 24) as u8 & 0x7F);
    }
    [&MP3_HEADER[..], &side.bytes, &main_data].concat()
}

pub(crate) fn mp3_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(mp3_frame).collect()
}

/// The data that LAME announces in an Info frame.
#[derive(Clone, Copy)]
pub(crate) struct Announced {
    pub n_frames: u32,
    pub n_bytes: u32,
    pub delay_samples: u16,
    pub padding_samples: u16,
}

impl Announced {
    /// Creates the data of an Info frame that announces `n_frames` test frames.
    pub(crate) fn with_frames(n_frames: u32) -> Self {
        Self {
            n_frames,
            n_bytes: n_frames * MP3_FRAME_BYTES as u32,
            delay_samples: 576,
            padding_samples: 1_000,
        }
    }

    pub(crate) fn frame(self) -> Vec<u8> {
        let mut frame = MP3_HEADER.to_vec();
        frame.resize(MP3_SIDE_BYTES, 0);

        // The flags of the Info frame: numbers of frames and bytes are present.
        frame.extend(b"Info\0\0\0\x03");
        frame.extend(self.n_frames.to_be_bytes());
        frame.extend(self.n_bytes.to_be_bytes());
        frame.extend(b"LAME3.100");
        frame.extend([0; 12]);

        // Delay and padding in samples, 12 bits each.
        let trim = u32::from(self.delay_samples) << 12 | u32::from(self.padding_samples);
        frame.extend(&trim.to_be_bytes()[1..]);

        frame.resize(MP3_FRAME_BYTES, 0);
        frame
    }
}

pub(crate) fn parts(n_tag_bytes: usize) -> Vec<Part> {
    vec![
        other(id3v2(n_tag_bytes)),
        other(Announced::with_frames(25).frame()),
        audio(mp3_frames(0..10)),
        other(text(333)),
        audio(mp3_frames(11..22)),
        other(ape(n_tag_bytes)),
        other(id3v1()),
    ]
}
