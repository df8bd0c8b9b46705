//! Finds AAC frames with ADTS headers, which are files without a container.
//!
//! Source: ISO/IEC 13818-7 §6.2.

use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::output::STRETCHES_MAX;
use super::packets::{AudioTrack, Content, Format, Packet, PacketFormat};
use super::{reject, tags};

/// Size of a header without its checksum, in bytes.
const HEADER_BYTES: usize = 7;
/// Number of samples of one block of AAC.
const BLOCK_SAMPLES: u64 = 1_024;
/// Largest size of a frame in bytes.
const FRAME_BYTES_MAX: usize = (1 << 13) - 1;
/// Number of consecutive frames that identify a file.
const N_FRAMES_MIN: usize = 3;
/// The profile of AAC with low complexity, which is one less than its object type in MP4.
const PROFILE_LC: u8 = 1;
/// Sample rates in Hz (ISO/IEC 14496-3 §1.6.3.4).
pub(super) const RATES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// The fields that all headers of a stream have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed {
    has_checksum: bool,
    profile: u8,
    /// Index of the sample rate in [`RATES_HZ`].
    rate: u8,
    n_channels: u8,
}

impl Fixed {
    /// Returns the rate in Hz; 0 for a reserved one.
    fn rate_hz(self) -> u32 {
        RATES_HZ.get(usize::from(self.rate)).copied().unwrap_or(0)
    }

    /// Returns the configuration as it is stored in MP4: object type, rate and channels in 5, 4 and 4 bits.
    fn config(self) -> [u8; 2] {
        let high = (self.profile + 1) << 3 | self.rate >> 1;
        [high, self.rate << 7 | self.n_channels << 3]
    }

    /// Reports whether frames with these fields can be decoded.
    fn is_decoded(self) -> bool {
        self.profile == PROFILE_LC
            && matches!(self.n_channels, 1 | 2)
            && (MIN_HZ..=MAX_FROM_HZ).contains(&self.rate_hz())
    }
}

/// A header of an ADTS frame.
#[derive(Clone, Copy, Debug)]
struct Header {
    fixed: Fixed,
    /// Size of the frame with its header, in bytes.
    frame_bytes: usize,
    n_blocks: u64,
}

impl Header {
    /// Parses the header at the start of `bytes`; `None` if there is no valid header.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xFF, b1, b2, b3, b4, b5, b6] = bytes.first_chunk::<HEADER_BYTES>()? else {
            return None;
        };
        // The rest of the sync word, and the layer, which is 0. In MPEG audio it is not.
        if b1 & 0xF6 != 0xF0 {
            return None;
        }

        let header = Self {
            fixed: Fixed {
                has_checksum: b1 & 1 == 0,
                profile: b2 >> 6,
                rate: b2 >> 2 & 15,
                n_channels: (b2 & 1) << 2 | b3 >> 6,
            },
            // The size has 13 bits in three bytes.
            frame_bytes: usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5),
            n_blocks: u64::from(b6 & 3) + 1,
        };
        (header.frame_bytes >= header.header_bytes()).then_some(header)
    }

    /// Returns the size of the header and its checksum in bytes.
    fn header_bytes(&self) -> usize {
        HEADER_BYTES + if self.fixed.has_checksum { 2 } else { 0 }
    }
}

/// Returns the offset of the first of three consecutive frames of one stream. A recording of a broadcast begins within a
/// frame, so the search covers two frames of the largest size.
fn find(bytes: &[u8]) -> Option<usize> {
    let begin = &bytes[..bytes.len().min(2 * FRAME_BYTES_MAX)];
    memchr::memchr_iter(0xFF, begin).find(|&at| begins_stream(&bytes[at..]).is_some())
}

/// Returns the common fields of three consecutive frames of one stream, if `bytes` begin with them.
fn begins_stream(bytes: &[u8]) -> Option<Fixed> {
    let first = Header::parse(bytes)?.fixed;
    let mut rest = bytes;
    for _ in 0..N_FRAMES_MIN {
        let header = Header::parse(rest).filter(|header| header.fixed == first)?;
        rest = rest.get(header.frame_bytes..).unwrap_or_default();
    }
    Some(first)
}

/// Iterator over the frames of a file and the holes between them.
#[derive(Clone, Debug)]
struct Frames<'a> {
    file: &'a [u8],
    at: usize,
    /// Fields of the current stream.
    fixed: Fixed,
    /// Number of streams that began after the first one.
    n_changes: u32,
}

impl Frames<'_> {
    /// Returns the header of the frame at `at`, if another frame or stream or a tag follows it, or the end of the file.
    fn frame(&self, at: usize) -> Option<Header> {
        let header = self.header(at)?;
        let end = at + header.frame_bytes;
        let rest = self.file.get(end..)?;
        let goes_on = self.header(end).is_some()
            || rest.is_empty()
            || tags::tag_bytes(rest).is_some()
            || self.other_stream(end).is_some();
        goes_on.then_some(header)
    }

    /// Returns the fields of another stream that begins at `at`, for example where files were joined. Streams that cannot
    /// be decoded are holes.
    fn other_stream(&self, at: usize) -> Option<Fixed> {
        let other = begins_stream(self.file.get(at..)?).filter(|other| *other != self.fixed);
        other.filter(|other| other.is_decoded() && self.n_changes < STRETCHES_MAX)
    }

    /// Returns the header at `at`, if it belongs to this stream.
    fn header(&self, at: usize) -> Option<Header> {
        let header = Header::parse(self.file.get(at..)?)?;
        (header.fixed == self.fixed).then_some(header)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        // Tags between and after the frames do not count.
        let offset = tags::skip(self.file, self.at);
        if let Some(header) = self.frame(offset) {
            self.at = offset + header.frame_bytes;
            // symphonia decodes only the first of several blocks.
            let data = &self.file[offset + header.header_bytes()..self.at];
            let content = match header.n_blocks {
                1 if data.is_empty() => Content::Absent,
                1 => Content::Bytes(data),
                _ => Content::Undecoded,
            };
            return Some(Packet {
                offset,
                n_samples: header.n_blocks * BLOCK_SAMPLES,
                content,
            });
        }

        if let Some(fixed) = self.other_stream(offset) {
            self.at = offset;
            self.fixed = fixed;
            self.n_changes += 1;
            return Some(Packet {
                offset,
                n_samples: 0,
                content: Content::Change(Format {
                    config: fixed.config(),
                    rate_hz: fixed.rate_hz(),
                }),
            });
        }

        let behind = self.file.get(offset + 1..)?;
        let mut candidates = memchr::memchr_iter(0xFF, behind).map(|at| offset + 1 + at);
        let next =
            candidates.find(|&at| self.frame(at).is_some() || self.other_stream(at).is_some());
        self.at = next.unwrap_or(self.file.len());
        // Foreign bytes after the last frame do not count, but the beginning of a frame does.
        let is_hole = next.is_some() || self.header(offset).is_some();
        is_hole.then_some(Packet {
            offset,
            n_samples: BLOCK_SAMPLES,
            content: Content::Hole(self.at - offset),
        })
    }
}

/// AAC frames with ADTS headers near the beginning of a file.
#[derive(Debug)]
pub(super) struct Adts;

impl PacketFormat for Adts {
    fn matches(bytes: &[u8]) -> bool {
        find(bytes).is_some()
    }

    fn parse(
        file: &[u8],
    ) -> Result<(AudioTrack, impl Iterator<Item = Packet<'_>> + Clone), Reject> {
        let begin = tags::skip(file, 0);
        let at = begin + find(&file[begin..]).expect("the format was detected by these frames");
        let header = Header::parse(&file[at..]).expect("the search has parsed this header");
        let fixed @ Fixed {
            profile,
            n_channels,
            ..
        } = header.fixed;

        if profile != PROFILE_LC {
            let detail = format!("AAC of profile {profile} is not decoded, only of low complexity");
            return Err(reject(Reason::UnsupportedCodec, detail));
        }
        let track = AudioTrack {
            codec: CODEC_ID_AAC,
            config: fixed.config().to_vec(),
            n_channels: usize::from(n_channels),
            rate_hz: fixed.rate_hz(),
            start: 0,
            end: None,
        };
        let frames = Frames {
            file,
            at,
            fixed,
            n_changes: 0,
        };
        Ok((track, frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pcm;
    use crate::testing::bits::BitWriter;
    use crate::testing::{decode, n_lost};

    /// Returns a frame of AAC-LC at 44.1 kHz, mono, with this payload.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let size = HEADER_BYTES + payload.len();
        let sizes = [
            0x40 | (size >> 11) as u8,
            (size >> 3) as u8,
            (size << 5) as u8 | 0x1F,
        ];
        [&[0xFF, 0xF1, 0x50], &sizes[..], &[0xFC], payload].concat()
    }

    /// Returns the offset of each packet and the size of its payload, or of the hole.
    fn found(file: &[u8]) -> Vec<(usize, Result<usize, usize>)> {
        let (_, frames) = Adts::parse(file).unwrap();
        let sizes = frames.map(|packet| match packet.content {
            Content::Bytes(data) => (packet.offset, Ok(data.len())),
            Content::Hole(bytes) => (packet.offset, Err(bytes)),
            Content::Absent | Content::Undecoded | Content::Change(_) => (packet.offset, Err(0)),
        });
        sizes.collect()
    }

    #[test]
    fn frames_and_holes_are_found() {
        let three = frame(&[7; 13]).repeat(3);
        assert_eq!(find(&three), Some(0));
        assert_eq!(find(&[&three[5..], &three].concat()), Some(15));
        assert_eq!(find(&three[..40]), None);
        assert_eq!(found(&three), [(0, Ok(13)), (20, Ok(13)), (40, Ok(13))]);

        // A tag at the end is neither audio nor lost, and foreign bytes are not either.
        let tag = [&b"TAG"[..], &[b' '; 125]].concat();
        assert_eq!(found(&[&three[..], &tag].concat()).len(), 3);
        assert_eq!(found(&[&three[..], &tag, b"end"].concat()).len(), 3);

        // Damage to a header, and a file that ends inside a frame.
        let mut damaged = three.repeat(2);
        damaged[60] = 0;
        assert_eq!(found(&damaged)[2..4], [(40, Err(40)), (80, Ok(13))]);
        assert_eq!(found(&three[..50])[2..], [(40, Err(10))]);

        // Two blocks in one frame are not decoded.
        let mut blocks = three.clone();
        blocks[26] |= 1;
        assert_eq!(found(&blocks)[1], (20, Err(0)));
    }

    #[test]
    fn frames_of_several_blocks_are_lost() {
        let decoded = |file: &[u8]| {
            let mut out = Pcm::default();
            decode(file, 44_100, &mut out)?;
            Ok::<_, Reject>((out.n_samples, n_lost(&out, 44_100)))
        };

        // A channel without bands and tools, and the end.
        let mut silence = BitWriter::default();
        silence.write(0, 3 + 4 + 8 + 1 + 2 + 1 + 6 + 1 + 3);
        silence.write(7, 3);
        let one = frame(&silence.bytes);
        let mut two = one.clone();
        two[6] |= 1;

        // They have more than nine times the samples of the others.
        let file = [one.repeat(3), two.repeat(40)].concat();
        assert_eq!(decoded(&file), Ok((83 * 1_024, 80 * 1_024)));

        let reject = decoded(&two.repeat(3)).unwrap_err();
        assert_eq!(reject.reason, Reason::UnsupportedCodec);
        assert!(
            reject.detail.contains("several blocks"),
            "{}",
            reject.detail
        );
    }

    #[test]
    fn configuration_is_that_of_the_headers() {
        let (track, _) = Adts::parse(&frame(&[0; 9]).repeat(3)).unwrap();
        assert_eq!((track.rate_hz, track.n_channels), (44_100, 1));
        // Low complexity, 44.1 kHz, mono (ISO/IEC 14496-3 §1.6.2.1).
        assert_eq!(track.config, [0x12, 0x08]);

        let mut main = frame(&[0; 9]).repeat(3);
        for at in [2, 18, 34] {
            main[at] &= 0x3F;
        }
        assert_eq!(
            Adts::parse(&main).err().unwrap().reason,
            Reason::UnsupportedCodec
        );
    }
}
