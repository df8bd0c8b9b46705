//! Parses the identification header of Opus and the lengths of its packets.
//!
//! Sources: RFC 7845 §5.1 (header), RFC 6716 §3.1 and §3.2 (packets).

use wavemill_schemas::reject::{Reason, Reject};

use crate::reject;

/// Size of the header without a channel mapping, in bytes.
const HEAD_BYTES: usize = 19;
/// Sample rate of the decoded audio in Hz. The rate in the header is only that of the encoder's input.
pub(super) const RATE_HZ: u32 = 48_000;
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
        // In family 1, one and two channels are also one stream of mono or stereo, unless the header states otherwise.
        let is_one_stream = match packet.get(HEAD_BYTES..HEAD_BYTES + 2) {
            Some(&[n_streams, n_coupled]) => n_streams == 1 && n_coupled + 1 == n_channels,
            _ => false,
        };
        let is_many = n_channels > 2;
        if family > 1 || family == 1 && !is_one_stream && !is_many {
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
