//! Builders of FLAC streams for tests: verbatim frames with 16 bits, mono, 44.1 kHz.

use symphonia::core::checksum::{Crc8Ccitt, Crc16Ansi};
use symphonia::core::io::Monitor;

use super::tags::{id3v1, id3v2};
use super::{Part, audio, other, text};

pub(crate) const RATE_HZ: u32 = 44_100;
pub(crate) const FRAME_SAMPLES: usize = 576;

/// Returns a FLAC frame with the given subframes and adds its checksums. `header` ends with the frame number, which
/// must be less than 128.
pub(crate) fn sealed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc8 = Crc8Ccitt::new(0);
    crc8.process_buf_bytes(header);
    let mut frame = [header, &[crc8.crc()], body].concat();
    let mut crc16 = Crc16Ansi::new(0);
    crc16.process_buf_bytes(&frame);
    frame.extend(crc16.crc().to_be_bytes());
    frame
}

/// Returns the FLAC frame with this number. Each of its samples is the number plus one, times 100.
pub(crate) fn frame(number: u8) -> Vec<u8> {
    let sample = (i16::from(number) + 1) * 100;
    let body = [&[0x02][..], &sample.to_be_bytes().repeat(FRAME_SAMPLES)].concat();
    sealed(&[0xFF, 0xF8, 0x29, 0x08, number], &body)
}

/// Returns the FLAC marker and a STREAMINFO block for 16 bits, mono, 44.1 kHz. With 0 samples, no length is given.
pub(crate) fn head(n_samples: u64) -> Vec<u8> {
    head_of(RATE_HZ, 16, n_samples)
}

/// Like [`head`], with the given sample rate and bits per sample.
pub(crate) fn head_of(rate_hz: u32, bits: u8, n_samples: u64) -> Vec<u8> {
    let mut info = [0; 34];
    let frame_samples = (FRAME_SAMPLES as u16).to_be_bytes();
    info[..2].copy_from_slice(&frame_samples);
    info[2..4].copy_from_slice(&frame_samples);
    // The rate, one less than the channels and than the bits, and the length, of 20, 3, 5 and 36 bits.
    let numbers = u64::from(rate_hz) << 44 | u64::from(bits - 1) << 36 | n_samples;
    info[10..18].copy_from_slice(&numbers.to_be_bytes());
    [&b"fLaC"[..], &[0x80, 0, 0, 34], &info].concat()
}

/// Returns a FLAC metadata block.
pub(crate) fn block(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32).to_be_bytes();
    [&[kind][..], &size[1..], body].concat()
}

pub(crate) fn flac_frames(numbers: std::ops::Range<u8>) -> Vec<u8> {
    numbers.flat_map(frame).collect()
}

pub(crate) fn parts(n_tag_bytes: usize) -> Vec<Part> {
    let mut head = head(15_000);
    // Clear the flag that marks the first metadata block as the last one.
    head[4] = 0;
    let info = head.split_off(8);

    vec![
        other(id3v2(n_tag_bytes)),
        audio(head),
        other(info),
        other(block(4, &text(n_tag_bytes))),
        other(block(6, &text(2 * n_tag_bytes))),
        other(block(0x81, &vec![0; n_tag_bytes])),
        audio(flac_frames(0..8)),
        other(text(100)),
        audio(flac_frames(10..20)),
        other(id3v1()),
    ]
}
