//! Parses the identification header of Opus and the lengths of its packets.
//!
//! Sources: RFC 7845 §5.1 (header), RFC 6716 §3.1 and §3.2 (packets).

use wavemill_schemas::reject::{Reason, Reject};

use crate::reject;

/// Size of the header without a channel mapping, in bytes.
const HEAD_BYTES: usize = 19;
/// Sample rate of the decoded audio in Hz. The rate in the header is only that of the encoder's input.
pub(crate) const RATE_HZ: u32 = 48_000;
/// Maximum number of samples of a packet: 120 ms.
pub(crate) const PACKET_SAMPLES_MAX: u64 = 5_760;
/// Number of samples of a frame by the upper five bits of a packet: four sizes each for four bandwidths in which only
/// SILK is used, two bandwidths with both codecs, and four with CELT only.
const SILK_SAMPLES: [u64; 4] = [480, 960, 1_920, 2_880];
const HYBRID_SAMPLES: [u64; 2] = [480, 960];
const CELT_SAMPLES: [u64; 4] = [120, 240, 480, 960];

/// An identification header of Opus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpusHead {
    pub n_channels: u8,
    /// Number of samples before the first sample of the recording.
    pub pre_skip: u64,
    /// Gain in dB times 256.
    pub gain: i16,
    /// Bytes of the header.
    pub bytes: [u8; HEAD_BYTES],
}

impl OpusHead {
    /// Parses an identification header.
    ///
    /// # Errors
    /// A [`Reject`] if the header is broken, or has more channels than mono and stereo have.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Reject> {
        let Some(&bytes) = packet.first_chunk::<HEAD_BYTES>() else {
            let detail = "broken identification header of Opus: it is cut short";
            return Err(reject(Reason::Damaged, detail));
        };
        let [version, n_channels, family] = [bytes[8], bytes[9], bytes[18]];

        // Versions with the same upper four bits have the same header.
        if version >> 4 != 0 {
            let detail = format!("Opus of version {version}, only 0 to 15 are known");
            return Err(reject(Reason::UnsupportedCodec, detail));
        }
        if n_channels == 0 {
            let detail = "broken identification header of Opus: it has no channels";
            return Err(reject(Reason::Damaged, detail));
        }

        // In family 1, the number of streams and of those in stereo follow. One and two channels are usually one stream
        // of mono or stereo, as in family 0. The caller refuses more channels.
        let is_decoded = match (family, packet.get(HEAD_BYTES..HEAD_BYTES + 2)) {
            (0, _) => true,
            (1, Some(&[n_streams, n_coupled])) => {
                n_channels > 2 || n_streams == 1 && n_coupled == n_channels - 1
            }
            _ => false,
        };
        if !is_decoded {
            let detail = format!("Opus with channel mapping {family} is not decoded");
            return Err(reject(Reason::UnsupportedCodec, detail));
        }

        Ok(Self {
            n_channels,
            pre_skip: u64::from(u16::from_le_bytes([bytes[10], bytes[11]])),
            gain: i16::from_le_bytes([bytes[16], bytes[17]]),
            bytes,
        })
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
    fn only_mono_and_stereo_in_one_stream_are_decoded() {
        let reason = |n_channels: u8, family: u8, mapping: &[u8]| {
            let mut head = b"OpusHead\x01\0\0\0\0\0\0\0\0\0\0".to_vec();
            head[9] = n_channels;
            head[18] = family;
            head.extend(mapping);
            OpusHead::parse(&head).err().map(|reject| reject.reason)
        };

        for accepted in [reason(1, 0, &[]), reason(2, 1, &[1, 1, 0, 1])] {
            assert_eq!(accepted, None);
        }
        for refused in [
            reason(2, 1, &[2, 0, 0, 1]),
            reason(2, 1, &[1, 255, 0, 1]),
            reason(2, 1, &[]),
            reason(2, 255, &[1, 1, 0, 1]),
        ] {
            assert_eq!(refused, Some(Reason::UnsupportedCodec));
        }
        assert_eq!(reason(0, 0, &[]), Some(Reason::Damaged));
        // More channels are refused by their number.
        assert_eq!(reason(6, 1, &[4, 2]), None);
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
