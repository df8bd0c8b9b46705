//! Parses the STREAMINFO block of a FLAC file and the header of each FLAC frame.
//!
//! Source: RFC 9639 §8.2 (STREAMINFO), §9.1 (frame header).

use symphonia::core::checksum::Crc8Ccitt;
use symphonia::core::io::Monitor;

/// First bytes of a FLAC file.
pub(super) const MARKER: &[u8; 4] = b"fLaC";
/// Size in bytes of a metadata block's type and size fields.
const BLOCK_HEADER_BYTES: usize = 4;
/// Size of a STREAMINFO block in bytes.
const STREAM_INFO_BYTES: usize = 34;
/// Minimum size of a frame header in bytes: sync code, four codes and CRC-8, without number, size and rate.
const FRAME_HEADER_BYTES_MIN: usize = 6;

/// A FLAC file's STREAMINFO block. If frame headers differ from it, they take precedence: they have checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// Sample rate, Hz; not validated.
    pub rate_hz: u32,
    /// Bits per sample, 1 to 32.
    pub bits: u8,
    /// Total number of samples per channel; `None` if not stated.
    pub n_samples: Option<u64>,
}

impl StreamInfo {
    /// Parses the first metadata block of a FLAC file; `None` if that block is not STREAMINFO.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        let block = file.strip_prefix(MARKER)?;
        let is_stream_info = block.first()? & 0x7F == 0;
        let body = block.get(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + STREAM_INFO_BYTES)?;

        // 20 bits of rate, 3 of channels, 5 of bits per sample, 36 of length.
        let numbers = u64::from_be_bytes(*body[10..].first_chunk()?);
        let n_samples = numbers & ((1 << 36) - 1);
        let rate_hz = (numbers >> 44) as u32;
        let bits = (numbers >> 36 & 0x1F) as u8 + 1;
        is_stream_info.then_some(Self {
            rate_hz,
            bits,
            // Encoders store 0 if they do not know the number of samples.
            n_samples: (n_samples > 0).then_some(n_samples),
        })
    }

    /// Returns the bits per sample for frames that do not state them; `None` if symphonia does not support that number.
    pub(super) fn decodable_bits(&self) -> Option<u8> {
        (self.bits >= 4).then_some(self.bits)
    }

    /// Returns a STREAMINFO block with these values, the same size for all frames and no total length. symphonia's
    /// decoder receives it instead of the file's own block.
    pub(super) fn block(rate_hz: u32, channels: u8, bits: u8, frame_samples: u32) -> Box<[u8]> {
        let mut block = [0; STREAM_INFO_BYTES];
        // symphonia rejects frame sizes below 16 samples, but the last frame may be shorter.
        let frame_samples = frame_samples.clamp(16, 65_535) as u16;
        block[..2].copy_from_slice(&frame_samples.to_be_bytes());
        block[2..4].copy_from_slice(&frame_samples.to_be_bytes());

        let numbers =
            u64::from(rate_hz) << 44 | u64::from(channels - 1) << 41 | u64::from(bits - 1) << 36;
        block[10..18].copy_from_slice(&numbers.to_be_bytes());
        Box::new(block)
    }
}

/// Returns the offset of the end of the metadata that start at `at`, or `at` if there are none. A block whose size
/// reaches beyond the end of the file is not part of the metadata, so that a wrong size does not skip audio.
pub(super) fn skip_metadata(file: &[u8], at: usize) -> usize {
    if !file.get(at..).is_some_and(|rest| rest.starts_with(MARKER)) {
        return at;
    }

    let mut at = at + MARKER.len();
    while let Some(&[kind, a, b, c]) = file.get(at..).and_then(<[u8]>::first_chunk) {
        let end = at + BLOCK_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        if end > file.len() {
            break;
        }
        at = end;
        let is_last = kind & 0x80 != 0;
        if is_last {
            break;
        }
    }
    at
}

/// Position of a FLAC frame in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Number of frames before this one, in streams with a fixed frame size.
    Frame(u64),
    /// Number of samples before the frame, in streams with a variable frame size.
    Sample(u64),
}

impl Number {
    /// Reports whether the frame is the first one of its stream.
    pub(super) fn is_first(self) -> bool {
        matches!(self, Self::Frame(0) | Self::Sample(0))
    }
}

/// A FLAC frame header with a correct checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Position of the frame in its stream.
    pub number: Number,
    /// Samples per channel in the frame, 1 to 65,535.
    pub n_samples: u32,
    /// Sample rate, Hz; `None` if only the STREAMINFO block states it.
    pub rate_hz: Option<u32>,
    /// Number of channels, 1 to 8.
    pub channels: u8,
    /// True if one of two channels is stored as their difference, which takes one more bit per sample.
    pub has_side: bool,
    /// Bits per sample; `None` if only the STREAMINFO block states them.
    pub bits: Option<u8>,
    /// Size of the frame header in bytes, including its checksum.
    pub bytes: usize,
}

impl Header {
    /// Parses the frame header at the start of `bytes`; `None` if the header is invalid.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[sync, strategy, sizes, layout, ..] = bytes.first_chunk::<FRAME_HEADER_BYTES_MIN>()?;
        // Check the sync code, and the reserved bits that are always 0.
        if sync != 0xFF || strategy & 0xFE != 0xF8 || layout & 1 != 0 {
            return None;
        }

        let mut rest = HeaderTail { bytes, at: 4 };
        let count = rest.number()?;
        let number = match strategy & 1 {
            // Frame numbers have 31 bits, sample numbers 36 (§9.1.5).
            0 if count < 1 << 31 => Number::Frame(count),
            0 => return None,
            _ => Number::Sample(count),
        };
        let n_samples = rest.frame_samples(sizes >> 4)?;
        let rate_hz = rest.rate_hz(sizes & 15)?;

        // Up to eight independent channels, or two channels of which one is stored as the difference of both.
        let (channels, has_side) = match layout >> 4 {
            code @ 0..=7 => (code + 1, false),
            8..=10 => (2, true),
            _ => return None,
        };
        let bits = match layout >> 1 & 7 {
            0 => None,
            3 => return None,
            code => Some([0, 8, 12, 0, 16, 20, 24, 32][usize::from(code)]),
        };

        let mut crc = Crc8Ccitt::new(0);
        crc.process_buf_bytes(&bytes[..rest.at]);
        let is_right = rest.byte()? == crc.crc();
        is_right.then_some(Self {
            number,
            n_samples,
            rate_hz,
            channels,
            has_side,
            bits,
            bytes: rest.at,
        })
    }
}

/// The end of a FLAC frame header, whose length varies: position, size and sample rate.
struct HeaderTail<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl HeaderTail<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from(self.byte()?) << 8 | u32::from(self.byte()?))
    }

    /// Reads a number of up to 36 bits in one to seven bytes, coded like UTF-8.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        // A single leading one marks a continuation byte, and eight leading ones are invalid.
        let n_more = match first.leading_ones() {
            0 => 0,
            n_bytes @ 2..=7 => n_bytes - 1,
            _ => return None,
        };

        // The mask also keeps the zero bit after the leading ones, which does not change the number.
        let mut number = u64::from(first) & (0x7F >> n_more);
        for _ in 0..n_more {
            let byte = self.byte()?;
            if byte & 0xC0 != 0x80 {
                return None;
            }
            number = number << 6 | u64::from(byte & 0x3F);
        }
        Some(number)
    }

    fn frame_samples(&mut self, code: u8) -> Option<u32> {
        match code {
            0 => None,
            1 => Some(192),
            2..=5 => Some(576 << (code - 2)),
            6 => Some(u32::from(self.byte()?) + 1),
            // A frame of 65,536 samples does not fit into the size fields of STREAMINFO, so reject it.
            7 => Some(self.word()? + 1).filter(|&n_samples| n_samples < 1 << 16),
            _ => Some(256 << (code - 8)),
        }
    }

    /// Reads the sample rate; the inner `None` means that only STREAMINFO states the rate.
    fn rate_hz(&mut self, code: u8) -> Option<Option<u32>> {
        const KNOWN: [u32; 12] = [
            0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
            96_000,
        ];
        Some(match code {
            0 => None,
            1..=11 => Some(KNOWN[usize::from(code)]),
            12 => Some(u32::from(self.byte()?) * 1_000),
            13 => Some(self.word()?),
            14 => Some(self.word()? * 10),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_crc(bytes: &[u8]) -> Vec<u8> {
        let mut crc = Crc8Ccitt::new(0);
        crc.process_buf_bytes(bytes);
        [bytes, &[crc.crc()]].concat()
    }

    #[test]
    fn numbers_sizes_and_rates_of_any_length_are_read() {
        let usual = with_crc(&[0xFF, 0xF8, 0xC9, 0xA8, 0x05]);
        let header = Header::parse(&usual).unwrap();
        assert_eq!(
            (header.number, header.n_samples, header.rate_hz),
            (Number::Frame(5), 4_096, Some(44_100))
        );
        assert_eq!(
            (header.channels, header.has_side, header.bits, header.bytes),
            (2, true, Some(16), 6)
        );

        let most = [
            0xFF, 0xF9, 0x7D, 0x00, 0xFE, 0xBF, 0xBF, 0xBF, 0xBF, 0xBF, 0xBF, 0xFF, 0xFE, 0x2B,
            0x11,
        ];
        let header = Header::parse(&with_crc(&most)).unwrap();
        assert_eq!(
            (header.number, header.n_samples),
            (Number::Sample((1 << 36) - 1), 65_535)
        );
        assert_eq!(
            (header.rate_hz, header.channels, header.bits, header.bytes),
            (Some(11_025), 1, None, 16)
        );
        assert_eq!(StreamInfo::parse(b"fLaC\0\0\0\x22"), None);
    }

    #[test]
    fn reserved_truncated_or_corrupt_headers_are_rejected() {
        let usual = [0xFF, 0xF8, 0xC9, 0xA8, 0x05];

        for (at, byte) in [
            (1, 0xFA),
            (2, 0x09),
            (2, 0xCF),
            (3, 0xB8),
            (3, 0xA9),
            (3, 0xA6),
            (4, 0x80),
            (4, 0xFF),
            (4, 0xC5),
        ] {
            let mut reserved = usual;
            reserved[at] = byte;
            assert_eq!(
                Header::parse(&[with_crc(&reserved), vec![0; 12]].concat()),
                None,
                "{at} {byte:#x}"
            );
        }

        let whole = with_crc(&usual);
        for n_bytes in 0..whole.len() {
            assert_eq!(Header::parse(&whole[..n_bytes]), None);
        }

        let mut wrong = whole;
        wrong[5] ^= 1;
        assert_eq!(Header::parse(&wrong), None);

        assert_eq!(
            Header::parse(&with_crc(&[0xFF, 0xF8, 0x79, 0xA8, 0x05, 0xFF, 0xFF])),
            None,
            "65,536 samples"
        );
    }

    #[test]
    fn oversized_metadata_blocks_skip_no_audio() {
        let file = [
            &MARKER[..],
            &[6, 0, 0, 3],
            b"pic",
            &[0x81, 0, 0, 1],
            b"p",
            &[0xFF, 0xF8],
        ]
        .concat();

        assert_eq!(skip_metadata(&file, 0), file.len() - 2);
        assert_eq!(
            skip_metadata(
                &[&MARKER[..], &[6, 0xFF, 0xFF, 0xFF, 0xFF, 0xF8]].concat(),
                0
            ),
            4
        );

        assert_eq!(skip_metadata(b"fLaC", 0), 4);
        assert_eq!(skip_metadata(b"other", 2), 2);
        assert_eq!(skip_metadata(b"", 0), 0);
    }

    #[test]
    fn stream_info_block_contains_the_given_values() {
        let block = StreamInfo::block(96_000, 2, 24, 4_608);
        let file = [&MARKER[..], &[0x80, 0, 0, 34], &block].concat();

        assert_eq!(
            StreamInfo::parse(&file),
            Some(StreamInfo {
                rate_hz: 96_000,
                bits: 24,
                n_samples: None
            })
        );
        assert_eq!(block[..4], [0x12, 0, 0x12, 0]);
    }
}
