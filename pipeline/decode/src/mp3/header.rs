//! Parses MPEG audio frame headers.
//!
//! Sources: ISO/IEC 11172-3 §2.4.1.3, ISO/IEC 13818-3 §2.4.1.3; MPEG-2.5 as written by all encoders.

/// Size of a frame header in bytes.
pub(super) const HEADER_BYTES: usize = 4;

/// Bit rates in kbit/s by bit-rate index. Rows: MPEG-1 layer I, II, III, MPEG-2 layer I, MPEG-2 layer II and III.
const KBPS: [[u16; 15]; 5] = [
    [
        0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
    ],
    [
        0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
    ],
    [
        0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
    ],
    [
        0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
    ],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// A valid MPEG audio frame header. A free-format header does not contain the frame length, so it is valid only if the
/// length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// True for MPEG-1, false for MPEG-2 and MPEG-2.5.
    pub mpeg1: bool,
    /// MPEG audio layer, 1 to 3.
    pub layer: u8,
    /// Sample rate, Hz, which distinguishes MPEG-2 from MPEG-2.5.
    pub rate_hz: u32,
    /// Number of channels, 1 or 2.
    pub channels: u8,
    /// True if a two-byte checksum follows the header.
    pub has_crc: bool,
    /// Length of the frame in bytes, including its header.
    pub bytes: usize,
}

impl Header {
    /// Parses the frame header at the start of `bytes`; `None` if the header is invalid or in free format.
    #[cfg(test)]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse_with(bytes, None)
    }

    /// Parses the frame header at the start of `bytes`; `None` if the header is invalid. A free-format frame, supported
    /// for layer III only, has `free_bytes` bytes plus padding.
    pub(crate) fn parse_with(bytes: &[u8], free_bytes: Option<usize>) -> Option<Self> {
        let &[sync, b1, b2, b3] = bytes.first_chunk()?;
        let version = b1 >> 3 & 3;
        let layer_bits = b1 >> 1 & 3;
        let kbps_index = b2 >> 4;
        let rate_index = b2 >> 2 & 3;
        // Check the eleven sync bits. Version 1, layer 0, rate 3 and bit rate 15 are reserved.
        if sync != 0xFF
            || b1 < 0xE0
            || version == 1
            || layer_bits == 0
            || kbps_index == 15
            || rate_index == 3
        {
            return None;
        }

        let mpeg1 = version == 3;
        let layer = 4 - layer_bits;
        // The sample rates of MPEG-2 are half of those of MPEG-1, the rates of MPEG-2.5 a quarter.
        let rate_hz =
            [44_100, 48_000, 32_000][usize::from(rate_index)] >> [2, 0, 1, 0][usize::from(version)];

        let padding_slots = usize::from(b2 >> 1 & 1);
        let bytes = if kbps_index == 0 {
            let free_bytes = free_bytes.filter(|_| layer == 3)?;
            free_bytes + padding_slots
        } else {
            let row = if mpeg1 {
                usize::from(layer) - 1
            } else {
                3 + usize::from(layer > 1)
            };
            let bits_per_second = u32::from(KBPS[row][usize::from(kbps_index)]) * 1000;

            // Samples per frame divided by bits per slot: layer I has slots of four bytes, the others of one byte.
            let slots_factor = match layer {
                1 => 12,
                3 if !mpeg1 => 72,
                _ => 144,
            };
            let slots = (slots_factor * bits_per_second / rate_hz) as usize + padding_slots;
            slots * if layer == 1 { 4 } else { 1 }
        };

        let header = Self {
            mpeg1,
            layer,
            rate_hz,
            channels: if b3 >> 6 == 3 { 1 } else { 2 },
            has_crc: b1 & 1 == 0,
            bytes,
        };
        // Frames with a bit-rate index always have room for their side info. Free-format frames can be of any length.
        (kbps_index > 0 || header.main_data_offset() <= bytes).then_some(header)
    }

    /// Reports whether two frames belong to one stream: version, layer and rate are equal; channel mode and bit rate
    /// may differ.
    pub(crate) fn same_stream(&self, other: &Self) -> bool {
        (self.mpeg1, self.layer, self.rate_hz) == (other.mpeg1, other.layer, other.rate_hz)
    }

    /// Reports whether one decoder can decode both frames: same stream and same number of channels.
    pub(crate) fn same_decoder(&self, other: &Self) -> bool {
        self.same_stream(other) && self.channels == other.channels
    }

    /// Returns the number of samples per channel of an MPEG audio frame.
    pub(crate) fn samples(&self) -> u64 {
        match self.layer {
            1 => 384,
            3 if !self.mpeg1 => 576,
            _ => 1152,
        }
    }

    /// Returns the size of the layer III side info in bytes, without the checksum.
    pub(crate) fn side_info_bytes(&self) -> usize {
        match (self.mpeg1, self.channels) {
            (true, 1) | (false, 2) => 17,
            (true, _) => 32,
            (false, _) => 9,
        }
    }

    /// Returns the offset of the main data in a layer III frame.
    pub(crate) fn main_data_offset(&self) -> usize {
        HEADER_BYTES + if self.has_crc { 2 } else { 0 } + self.side_info_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_side_info_of_known_headers() {
        let fma = Header::parse(&[0xFF, 0xFB, 0xD0, 0x64]).unwrap();
        assert_eq!(
            (
                fma.rate_hz,
                fma.bytes,
                fma.channels,
                fma.layer,
                fma.main_data_offset()
            ),
            (44_100, 835, 2, 3, 36)
        );

        let mpeg25_mono = Header::parse(&[0xFF, 0xE3, 0x28, 0xC4]).unwrap();
        assert_eq!(
            (
                mpeg25_mono.rate_hz,
                mpeg25_mono.bytes,
                mpeg25_mono.main_data_offset()
            ),
            (8_000, 144, 13)
        );

        let layer1 = Header::parse(&[0xFF, 0xFF, 0x40, 0x00]).unwrap();
        assert_eq!(
            (layer1.layer, layer1.bytes, layer1.samples()),
            (1, 136, 384)
        );

        let layer2 = Header::parse(&[0xFF, 0xF5, 0x40, 0x00]).unwrap();
        assert_eq!((layer2.layer, layer2.samples()), (2, 1152));
    }

    #[test]
    fn free_format_size_is_the_known_length_plus_padding() {
        for (bytes, n_bytes) in [
            ([0xFF, 0xFB, 0x00, 0x64], Some(653)),
            ([0xFF, 0xFB, 0x02, 0x64], Some(654)),
            ([0xFF, 0xFB, 0x90, 0x64], Some(417)),
            // Layer II in free format is not supported.
            ([0xFF, 0xFD, 0x00, 0x64], None),
        ] {
            let header = Header::parse_with(&bytes, Some(653));
            assert_eq!(header.map(|header| header.bytes), n_bytes, "{bytes:02x?}");
        }
    }

    #[test]
    fn reserved_values_and_free_format_are_rejected() {
        for bytes in [
            [0xFF, 0xFB, 0xF0, 0x64],
            [0xFF, 0xFB, 0x00, 0x64],
            [0xFF, 0xFB, 0x9C, 0x64],
            [0xFF, 0xF9, 0x90, 0x64],
            [0xFF, 0xEB, 0x90, 0x64],
            [0xFF, 0xDB, 0x90, 0x64],
        ] {
            assert_eq!(Header::parse(&bytes), None, "{bytes:02x?}");
        }

        assert_eq!(Header::parse(&[0xFF, 0xFB, 0x90]), None);
    }
}
