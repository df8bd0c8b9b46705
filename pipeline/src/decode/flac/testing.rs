//! FLAC for tests: verbatim frames of 16 bits, mono, 44.1 kHz.

use symphonia::core::checksum::{Crc8Ccitt, Crc16Ansi};
use symphonia::core::io::Monitor;

use super::header::{MARKER, StreamInfo};

pub(in crate::decode) const RATE_HZ: u32 = 44_100;
pub(in crate::decode) const FRAME_SAMPLES: usize = 576;

/// A header up to its number, which is below 128, and the subframes; checksums are added.
pub(in crate::decode) fn sealed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc8 = Crc8Ccitt::new(0);
    crc8.process_buf_bytes(header);
    let mut frame = [header, &[crc8.crc()], body].concat();
    let mut crc16 = Crc16Ansi::new(0);
    crc16.process_buf_bytes(&frame);
    frame.extend(crc16.crc().to_be_bytes());
    frame
}

/// The frame of this number, whose samples are its number plus one, times 100.
pub(in crate::decode) fn frame(number: u8) -> Vec<u8> {
    let sample = (i16::from(number) + 1) * 100;
    let body = [&[0x02][..], &sample.to_be_bytes().repeat(FRAME_SAMPLES)].concat();
    sealed(&[0xFF, 0xF8, 0x29, 0x08, number], &body)
}

/// Marker and STREAMINFO of 16 bits, mono, 44.1 kHz; 0 samples: the length is not said.
pub(in crate::decode) fn head(n_samples: u64) -> Vec<u8> {
    head_of(RATE_HZ, 16, n_samples)
}

/// The same of another rate, or another number of bits a sample.
pub(in crate::decode) fn head_of(rate_hz: u32, bits: u8, n_samples: u64) -> Vec<u8> {
    let mut info = StreamInfo::block(rate_hz, 1, bits, FRAME_SAMPLES as u32);
    let numbers = u64::from_be_bytes(info[10..18].try_into().unwrap()) | n_samples;
    info[10..18].copy_from_slice(&numbers.to_be_bytes());
    [&MARKER[..], &[0x80, 0, 0, 34], &info].concat()
}
