//! Reads the data that encoders announce in an Info, Xing or VBRI frame, which contains no audio.
//!
//! Source: the LAME "Mp3 Info Tag" description (rev. 1).

use super::frames::Frame;
use super::header::HEADER_BYTES;

/// Number of samples by which every decoder delays the signal (528 of the filter bank + 1).
const DECODER_DELAY_SAMPLES: u64 = 529;

/// The contents of an Info, Xing or VBRI frame. Compare them with the stream before use, because they may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// Announced number of audio frames; 0 if not given.
    pub n_frames: u64,
    /// Announced size of the stream in bytes; 0 if not given.
    pub n_bytes: u64,
    /// Number of samples to drop at the start and at the end, if the encoder states them.
    pub trim: Option<Trim>,
}

/// Gapless playback information as written by LAME and compatible encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trim {
    /// Number of samples to drop at the start, including the decoder's own delay.
    pub start_samples: u64,
    /// Number of samples to drop at the end of the announced frames.
    pub end_samples: u64,
}

impl Info {
    /// Reads the data announced in an Info, Xing or VBRI frame; `None` for an audio frame.
    pub(crate) fn parse(frame: &Frame) -> Option<Self> {
        // The offset of a Xing or Info signature does not include a checksum after the frame header.
        let body = frame
            .bytes
            .get(HEADER_BYTES + frame.header.side_info_bytes()..)?;
        if body.starts_with(b"Xing") || body.starts_with(b"Info") {
            return Some(Self::xing(body));
        }

        // VBRI has a fixed offset in the frame, independent of the length of the side info.
        let vbri = frame.bytes.get(HEADER_BYTES + 32..)?;
        if vbri.starts_with(b"VBRI") {
            return Some(Self {
                // The sizes follow VBRI's name, version, delay and quality.
                n_bytes: word(vbri, 10),
                n_frames: word(vbri, 14),
                trim: None,
            });
        }
        None
    }

    fn xing(body: &[u8]) -> Self {
        let mut fields = XingFields {
            body,
            flags: word(body, 4),
            at: 8,
        };
        // Order of the Xing header's flags and fields: frames, bytes, seek table, quality.
        let n_frames = fields.next(1, 4);
        let n_bytes = fields.next(2, 4);
        let _seek_table = fields.next(4, 100);
        let _quality = fields.next(8, 4);

        let extension = body.get(fields.at..);
        Self {
            n_frames,
            n_bytes,
            trim: extension.and_then(lame_trim),
        }
    }
}

/// The fields of a Xing header, each of which is present only if its flag is set.
struct XingFields<'a> {
    body: &'a [u8],
    flags: u64,
    at: usize,
}

impl XingFields<'_> {
    /// Returns the first four bytes of the Xing header's next field, which has `bytes` bytes; 0 if it is absent.
    fn next(&mut self, flag: u64, bytes: usize) -> u64 {
        if self.flags & flag == 0 {
            return 0;
        }
        let value = word(self.body, self.at);
        self.at += bytes;
        value
    }
}

/// Reads delay and padding from the LAME extension of a Xing header, 12 bits each.
fn lame_trim(extension: &[u8]) -> Option<Trim> {
    let encoder = extension.get(..4)?;
    let is_known = [b"LAME", b"Lavf", b"Lavc", b"L3.9", b"GOGO"]
        .iter()
        .any(|known| encoder == *known);
    // Delay and padding follow name, revision, low-pass, peak, gains, flags and bit rate.
    let &[a, b, c] = extension.get(21..24)?.first_chunk()?;
    let delay = u64::from(a) << 4 | u64::from(b >> 4);
    let padding = u64::from(b & 15) << 8 | u64::from(c);

    // The decoder's delay shifts the audio: drop more samples at the start, and equally fewer at the end.
    is_known.then(|| Trim {
        start_samples: delay + DECODER_DELAY_SAMPLES,
        end_samples: padding.saturating_sub(DECODER_DELAY_SAMPLES),
    })
}

/// Reads a four-byte big-endian number; 0 if the input is too short.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).map_or(0, |word| {
        word.iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xing_fields_follow_the_flags() {
        let mut body = b"Info\0\0\0\x0b\0\0\0\x07\0\0\x10\0\0\0\0\0LAME3.100".to_vec();
        body.extend([0; 12]);
        body.extend([0x24, 0x03, 0xE8]);

        let trim = Trim {
            start_samples: 576 + 529,
            end_samples: 1000 - 529,
        };
        assert_eq!(
            Info::xing(&body),
            Info {
                n_frames: 7,
                n_bytes: 4096,
                trim: Some(trim)
            }
        );

        assert_eq!(Info::xing(b"Xing\0\0\0\x01\0\0"), Info::default());
    }
}
