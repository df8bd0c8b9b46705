//! Classifies packets and parses the identification headers of Vorbis (Vorbis I §4.2) and Opus.

use wavemill_schemas::reject::{Reason, Reject};

use super::super::opus::{self, OpusHead};
use super::super::reject;

/// Length of a Vorbis identification header in bytes.
pub(super) const IDENT_BYTES: usize = 30;
/// Allowed block sizes as powers of two: 64 to 8192 samples (Vorbis I §4.2.2).
const BLOCK_EXPONENTS: std::ops::RangeInclusive<u8> = 6..=13;

/// Kind of a packet according to its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketKind {
    /// The identification header.
    Ident,
    /// The comment header.
    Comment,
    /// The set-up header, which Opus does not have.
    Setup,
    /// Audio, which in Vorbis is recognized by the packet's first bit.
    Audio,
    /// Not a valid packet.
    Other,
}

impl PacketKind {
    /// Returns the kind of a Vorbis packet that begins with `bytes`. Seven bytes are sufficient.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Self::Ident,
            [3, b'v', b'o', b'r', b'b', b'i', b's', ..] => Self::Comment,
            [5, b'v', b'o', b'r', b'b', b'i', b's', ..] => Self::Setup,
            [first, ..] if first & 1 == 0 => Self::Audio,
            _ => Self::Other,
        }
    }
}

/// The identification header of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Vorbis(Ident),
    Opus(OpusHead),
}

impl Head {
    /// Parses an identification header; `None` if the packet is not one.
    ///
    /// # Errors
    /// A [`Reject`] if the header is broken or not supported.
    pub(super) fn parse(packet: &[u8]) -> Option<Result<Self, Reject>> {
        if packet.starts_with(b"OpusHead") {
            return Some(OpusHead::parse(packet).map(Self::Opus));
        }
        let is_vorbis = PacketKind::from_bytes(packet) == PacketKind::Ident;
        is_vorbis.then(|| Ident::parse(packet).map(Self::Vorbis))
    }

    /// Returns the kind of a packet in a stream with this header.
    pub(super) fn kind(&self, packet: &[u8]) -> PacketKind {
        match self {
            Self::Vorbis(_) => PacketKind::from_bytes(packet),
            Self::Opus(_) if packet.starts_with(b"OpusHead") => PacketKind::Ident,
            Self::Opus(_) if packet.starts_with(b"OpusTags") => PacketKind::Comment,
            Self::Opus(_) if packet.is_empty() => PacketKind::Other,
            Self::Opus(_) => PacketKind::Audio,
        }
    }

    pub(super) fn n_channels(&self) -> u8 {
        match self {
            Self::Vorbis(ident) => ident.n_channels,
            Self::Opus(head) => head.layout.n_channels,
        }
    }

    pub(super) fn rate_hz(&self) -> u32 {
        match self {
            Self::Vorbis(ident) => ident.rate_hz,
            Self::Opus(_) => opus::RATE_HZ,
        }
    }

    /// Returns the maximum number of samples that one packet adds.
    pub(super) fn packet_samples_max(&self) -> u64 {
        match self {
            Self::Vorbis(ident) => ident.packet_samples_max(),
            Self::Opus(_) => opus::PACKET_SAMPLES_MAX,
        }
    }

    /// Returns the number of samples before the first sample of the recording.
    pub(super) fn pre_skip(&self) -> u64 {
        match self {
            Self::Vorbis(_) => 0,
            Self::Opus(head) => head.pre_skip,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Vorbis(ident) => &ident.bytes,
            Self::Opus(head) => head.bytes(),
        }
    }
}

/// A Vorbis identification header that conforms to the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ident {
    pub n_channels: u8,
    pub rate_hz: u32,
    /// Size of a short block in samples, as a power of two.
    pub short_exponent: u8,
    /// Size of a long block in samples, as a power of two; not less than that of a short block.
    pub long_exponent: u8,
    /// Bytes of the identification header, which symphonia needs.
    pub bytes: [u8; IDENT_BYTES],
}

impl Ident {
    /// Parses a Vorbis identification header.
    ///
    /// # Errors
    /// A [`Reject`] if the specification does not allow the header.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Reject> {
        let Some(&bytes) = packet.first_chunk::<IDENT_BYTES>() else {
            return Err(broken("it is cut short"));
        };
        if PacketKind::from_bytes(&bytes) != PacketKind::Ident {
            return Err(broken("its signature is missing"));
        }
        let version = word(&bytes, 7);
        if version != 0 {
            return Err(reject(
                Reason::UnsupportedCodec,
                format!("Vorbis of version {version}, only 0 is known"),
            ));
        }

        let ident = Self {
            n_channels: bytes[11],
            rate_hz: word(&bytes, 12),
            short_exponent: bytes[28] & 15,
            long_exponent: bytes[28] >> 4,
            bytes,
        };
        if ident.n_channels == 0 || ident.rate_hz == 0 {
            return Err(broken("it has no channels or no sample rate"));
        }
        let are_blocks_known = BLOCK_EXPONENTS.contains(&ident.short_exponent)
            && BLOCK_EXPONENTS.contains(&ident.long_exponent);
        if !are_blocks_known || ident.short_exponent > ident.long_exponent {
            return Err(broken("its block sizes are not allowed"));
        }
        if bytes[29] & 1 == 0 {
            return Err(broken("its last bit is not set"));
        }
        Ok(ident)
    }

    /// Returns the maximum number of samples that one Vorbis packet adds: half of a long block.
    pub(super) fn packet_samples_max(&self) -> u64 {
        1 << (self.long_exponent - 1)
    }
}

fn word(bytes: &[u8; IDENT_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn broken(what: &str) -> Reject {
    reject(
        Reason::Damaged,
        format!("broken identification header of Vorbis: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ogg as testing;

    #[test]
    fn identification_headers_are_parsed_or_rejected() {
        let good = testing::ident(2, 44_100);
        let ident = Ident::parse(&good).unwrap();
        assert_eq!((ident.n_channels, ident.rate_hz), (2, 44_100));
        assert_eq!(
            (
                ident.short_exponent,
                ident.long_exponent,
                ident.packet_samples_max()
            ),
            (8, 11, 1_024)
        );

        // Invalid fields: version, channels, rate, block sizes (too small, too large, short over long), last bit.
        let faults = [(7, 1), (11, 0), (28, 0xB5), (28, 0xE8), (28, 0x8B), (29, 0)];
        for (at, byte) in faults {
            let mut bad = good;
            bad[at] = byte;
            assert!(Ident::parse(&bad).is_err(), "byte {at} is {byte}");
        }

        let mut no_rate = good;
        no_rate[12..16].fill(0);
        assert!(Ident::parse(&no_rate).is_err());
        assert!(Ident::parse(&good[..29]).is_err());
    }

    #[test]
    fn packet_kind_is_detected_from_the_first_bytes() {
        assert_eq!(PacketKind::from_bytes(b"\x03vorbis"), PacketKind::Comment);
        assert_eq!(PacketKind::from_bytes(b"\x05vorbis..."), PacketKind::Setup);
        assert_eq!(PacketKind::from_bytes(&[0x40]), PacketKind::Audio);
        assert_eq!(PacketKind::from_bytes(b"\x05vorbi"), PacketKind::Other);
        assert_eq!(PacketKind::from_bytes(b""), PacketKind::Other);
    }
}
