//! Parses the identification header of Opus and the lengths of its packets.
//!
//! Sources: RFC 7845 §5.1 (header), RFC 6716 §3.1 and §3.2 (packets).

use wavemill_schemas::reject::{Reason, Reject};

use crate::{CHANNELS_MAX, check_channels, reject};

/// Size of the header without a channel mapping, in bytes.
const HEAD_BYTES: usize = 19;
/// Size of the longest header with a channel mapping, in bytes: the numbers of streams, and a byte for each channel.
const HEAD_BYTES_MAX: usize = HEAD_BYTES + 2 + CHANNELS_MAX;
/// Channel whose samples are zeros, in a channel mapping.
const SILENT: u8 = 255;
/// Sample rate of the decoded audio in Hz. The rate in the header is only that of the encoder's input.
pub(crate) const RATE_HZ: u32 = 48_000;
/// Maximum number of samples of a packet: 120 ms.
pub(crate) const PACKET_SAMPLES_MAX: u64 = 5_760;
/// Number of samples of a frame by the upper five bits of a packet: four sizes each for four bandwidths in which only
/// SILK is used, two bandwidths with both codecs, and four with CELT only.
const SILK_SAMPLES: [u64; 4] = [480, 960, 1_920, 2_880];
const HYBRID_SAMPLES: [u64; 2] = [480, 960];
const CELT_SAMPLES: [u64; 4] = [120, 240, 480, 960];

/// The streams of which a packet of Opus consists, and the channels that they contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpusLayout {
    /// Number of channels, 1 to [`CHANNELS_MAX`].
    pub n_channels: u8,
    /// Number of streams, at least one. The first `n_coupled` have two channels, the others one.
    pub n_streams: u8,
    pub n_coupled: u8,
    /// For each channel, its number among the channels of all streams, or [`SILENT`].
    pub mapping: [u8; CHANNELS_MAX],
}

impl OpusLayout {
    /// Parses the channel mapping of a header; `None` if it is not supported.
    fn parse(n_channels: u8, family: u8, table: &[u8]) -> Option<Self> {
        // Family 0 has one stream of mono or stereo. The channels of family 1 belong to speakers, those of 255 to none.
        let plain = [1, n_channels - 1, 0, 1];
        let table = match family {
            0 if n_channels <= 2 => &plain,
            1 | 255 => table,
            _ => return None,
        };
        let (&[n_streams, n_coupled], channels) = table.split_first_chunk()?;
        let channels = channels.get(..usize::from(n_channels))?;

        // Every stream takes a decoder, so there are no more than the channels require.
        let n_decoded = n_streams.checked_add(n_coupled)?;
        let is_valid = n_streams > 0 && n_coupled <= n_streams && n_decoded <= n_channels;
        let mut each = channels.iter();
        let are_mapped = each.all(|&channel| channel < n_decoded || channel == SILENT);

        let mut mapping = [SILENT; CHANNELS_MAX];
        mapping[..channels.len()].copy_from_slice(channels);
        (is_valid && are_mapped).then_some(Self {
            n_channels,
            n_streams,
            n_coupled,
            mapping,
        })
    }
}

/// An identification header of Opus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpusHead {
    pub layout: OpusLayout,
    /// Number of samples before the first sample of the recording.
    pub pre_skip: u64,
    /// Gain in dB times 256.
    pub gain: i16,
    /// Bytes of the header; only family 0 has no channel mapping.
    bytes: [u8; HEAD_BYTES_MAX],
}

impl OpusHead {
    /// Parses an identification header.
    ///
    /// # Errors
    /// A [`Reject`] if the header is broken, or its channels are not supported.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Reject> {
        let Some((head, table)) = packet.split_first_chunk::<HEAD_BYTES>() else {
            let detail = "broken identification header of Opus: it is cut short";
            return Err(reject(Reason::Damaged, detail));
        };
        let [version, n_channels, family] = [head[8], head[9], head[18]];

        // Versions with the same upper four bits have the same header.
        if version >> 4 != 0 {
            let detail = format!("Opus of version {version}, only 0 to 15 are known");
            return Err(reject(Reason::UnsupportedCodec, detail));
        }
        if n_channels == 0 {
            let detail = "broken identification header of Opus: it has no channels";
            return Err(reject(Reason::Damaged, detail));
        }
        check_channels(usize::from(n_channels), CHANNELS_MAX)?;
        let layout = OpusLayout::parse(n_channels, family, table).ok_or_else(|| {
            let detail =
                format!("Opus with {n_channels} channels in mapping {family} is not decoded");
            reject(Reason::UnsupportedCodec, detail)
        })?;

        let mut bytes = [0; HEAD_BYTES_MAX];
        let n_bytes = packet.len().min(HEAD_BYTES_MAX);
        bytes[..n_bytes].copy_from_slice(&packet[..n_bytes]);
        Ok(Self {
            layout,
            pre_skip: u64::from(u16::from_le_bytes([head[10], head[11]])),
            gain: i16::from_le_bytes([head[16], head[17]]),
            bytes,
        })
    }

    /// Returns the bytes of the header that are used.
    pub(crate) fn bytes(&self) -> &[u8] {
        let n_mapped = match self.bytes[HEAD_BYTES - 1] {
            0 => 0,
            _ => 2 + usize::from(self.layout.n_channels),
        };
        &self.bytes[..HEAD_BYTES + n_mapped]
    }
}

/// Returns the number of samples of a packet; `None` if the packet is not valid.
pub(crate) fn packet_samples(packet: &[u8]) -> Option<u64> {
    let first = *packet.first()?;
    let kind = usize::from(first >> 3);
    let frame_samples = match kind {
        0..12 => SILK_SAMPLES[kind % 4],
        12..16 => HYBRID_SAMPLES[kind % 2],
        _ => CELT_SAMPLES[kind % 4],
    };
    // The lower two bits tell whether the packet has one frame, two, or as many as the next byte states.
    let n_frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3F),
    };
    let samples = n_frames * frame_samples;
    (1..=PACKET_SAMPLES_MAX)
        .contains(&samples)
        .then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_mappings_of_up_to_eight_channels_are_decoded() {
        let reason = |n_channels: u8, family: u8, mapping: &[u8]| {
            let mut head = b"OpusHead\x01\0\0\0\0\0\0\0\0\0\0".to_vec();
            head[9] = n_channels;
            head[18] = family;
            head.extend(mapping);
            OpusHead::parse(&head).err().map(|reject| reject.reason)
        };

        for accepted in [
            reason(1, 0, &[]),
            reason(2, 1, &[1, 1, 0, 1]),
            reason(2, 1, &[2, 0, 0, 1]),
            reason(6, 1, &[4, 2, 0, 4, 1, 2, 3, 5]),
            reason(8, 255, &[8, 0, 0, 1, 2, 3, 4, 5, 6, 255]),
        ] {
            assert_eq!(accepted, None);
        }
        for refused in [
            reason(6, 0, &[]),
            // Decoders for 256 streams, and none; a table that is cut; a channel that does not exist; Ambisonics.
            reason(2, 1, &[1, 255, 0, 1]),
            reason(2, 1, &[255, 0, 0, 1]),
            reason(2, 1, &[0, 0, 255, 255]),
            reason(2, 1, &[]),
            reason(6, 1, &[4, 2, 0, 4, 1, 2, 3]),
            reason(6, 1, &[4, 2, 0, 4, 1, 2, 3, 6]),
            reason(4, 2, &[4, 0, 0, 1, 2, 3]),
        ] {
            assert_eq!(refused, Some(Reason::UnsupportedCodec));
        }
        assert_eq!(reason(0, 0, &[]), Some(Reason::Damaged));
        assert_eq!(reason(9, 255, &[]), Some(Reason::TooLarge));
    }

    #[test]
    fn packet_lengths_follow_the_first_bytes() {
        // 10 ms of SILK, 20 ms of both, 2.5 ms and 20 ms of CELT.
        assert_eq!(packet_samples(&[0]), Some(480));
        assert_eq!(packet_samples(&[13 << 3]), Some(960));
        assert_eq!(packet_samples(&[16 << 3]), Some(120));
        assert_eq!(packet_samples(&[31 << 3 | 1]), Some(1_920));
        assert_eq!(packet_samples(&[31 << 3 | 3, 6]), Some(5_760));
        // No frames, more than 120 ms, no number of frames.
        assert_eq!(packet_samples(&[3, 0]), None);
        assert_eq!(packet_samples(&[31 << 3 | 3, 7]), None);
        assert_eq!(packet_samples(&[3]), None);
        assert_eq!(packet_samples(&[]), None);
    }
}
