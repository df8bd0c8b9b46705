//! What stands in MP3 files and is no audio: ID3 and APE tags, and the Info, Xing or VBRI frame.
//!
//! Lyrics3 needs no code: it stands behind the last frame, where foreign bytes cost nothing.
//!
//! Sources: id3.org (2.4.0 structure §3), the APEv2 specification, the LAME "Mp3 Info Tag" description (rev. 1).

use super::frames::Frame;
use super::header::HEADER_BYTES;

/// Bytes of an ID3v2 header, and of its footer.
const ID3V2_HEADER_BYTES: usize = 10;
/// Bytes of an APEv2 header or footer.
const APE_HEADER_BYTES: usize = 32;
/// Samples by which every decoder delays the signal (528 of the filter bank + 1).
const DECODER_DELAY_SAMPLES: u64 = 529;

/// Where the tags that start at `at` end; `at` itself if none does. Tags that claim more than there is count as their
/// header alone, so that a lying size swallows no audio.
pub(super) fn skip(bytes: &[u8], mut at: usize) -> usize {
    while let Some(tag_bytes) = tag_bytes(&bytes[at..]) {
        at += tag_bytes;
    }
    at
}

fn tag_bytes(bytes: &[u8]) -> Option<usize> {
    id3v2_bytes(bytes)
        .or_else(|| ape_bytes(bytes))
        .or_else(|| id3v1_bytes(bytes))
}

/// What a tag takes of `bytes`: what it claims, or its header alone.
fn believed(bytes: &[u8], claimed: usize, header: usize) -> usize {
    if claimed <= bytes.len() {
        claimed
    } else {
        header.min(bytes.len())
    }
}

/// An ID3v2 tag, or the footer of one.
fn id3v2_bytes(bytes: &[u8]) -> Option<usize> {
    // `ID3` of a tag, or `3DI` of a footer.
    let &[
        b'I' | b'3',
        b'D',
        b'3' | b'I',
        major,
        revision,
        flags,
        a,
        b,
        c,
        d,
    ] = bytes.first_chunk()?
    else {
        return None;
    };
    // The pattern by which id3.org has tags found: no version is FF, and no byte of the size has its top bit set.
    if major == 0xFF || revision == 0xFF || (a | b | c | d) & 0x80 != 0 {
        return None;
    }
    // A footer without its tag, which was cut off: there is nothing but itself.
    if bytes[0] == b'3' {
        return Some(ID3V2_HEADER_BYTES);
    }

    // Seven bits a byte, so that no size looks like the start of a frame.
    let digits = [a, b, c, d];
    let size = digits
        .iter()
        .fold(0, |size, &byte| size << 7 | usize::from(byte));
    let has_footer = flags & 0x10 != 0;
    let footer = if has_footer { ID3V2_HEADER_BYTES } else { 0 };
    let claimed = ID3V2_HEADER_BYTES + size + footer;
    Some(believed(bytes, claimed, ID3V2_HEADER_BYTES))
}

/// An APE tag. The size in its header counts the items and the footer; of a tag without a header, only the footer is
/// known.
fn ape_bytes(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"APETAGEX") {
        return None;
    }
    let header = bytes.first_chunk::<APE_HEADER_BYTES>()?;
    let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let flags = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);

    // Bit 29 is set in a header, and not in a footer.
    let is_header = flags & 1 << 29 != 0;
    let content = if is_header { size as usize } else { 0 };
    Some(believed(
        bytes,
        APE_HEADER_BYTES + content,
        APE_HEADER_BYTES,
    ))
}

/// An ID3v1 tag, or the extended one before it.
fn id3v1_bytes(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"TAG+") {
        Some(believed(bytes, 227, 4))
    } else if bytes.starts_with(b"TAG") {
        Some(believed(bytes, 128, 3))
    } else {
        None
    }
}

/// What an Info, Xing or VBRI frame announces. Nothing here is believed before it was compared with the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// Audio frames; 0 where not given.
    pub n_frames: u64,
    /// Bytes of the stream; 0 where not given.
    pub n_bytes: u64,
    /// Samples to drop at the start and at the end, of an encoder that says so.
    pub trim: Option<Trim>,
}

/// Gapless playback as LAME, and the programs that follow it, announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trim {
    /// Samples to drop at the start, the decoder's own delay included.
    pub start_samples: u64,
    /// Samples to drop at the end of the announced frames.
    pub end_samples: u64,
}

impl Info {
    /// The announcement in a frame that holds one, and so no audio.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        // The position of Xing and Info does not count a checksum.
        let body = frame
            .bytes
            .get(HEADER_BYTES + frame.header.side_info_bytes()..)?;
        if body.starts_with(b"Xing") || body.starts_with(b"Info") {
            return Some(Self::xing(body));
        }

        // VBRI stands at one place, whatever length the side info has.
        let vbri = frame.bytes.get(HEADER_BYTES + 32..)?;
        if vbri.starts_with(b"VBRI") {
            return Some(Self {
                // Behind name, version, delay and quality.
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
        // Flags and fields in this order: frames, bytes, a table for seeking, quality.
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

/// The fields of a Xing header, of which each is there only if its flag is set.
struct XingFields<'a> {
    body: &'a [u8],
    flags: u64,
    at: usize,
}

impl XingFields<'_> {
    /// The first four bytes of the next field, which has `bytes`; 0 where it is not there.
    fn next(&mut self, flag: u64, bytes: usize) -> u64 {
        if self.flags & flag == 0 {
            return 0;
        }
        let value = word(self.body, self.at);
        self.at += bytes;
        value
    }
}

/// Delay and padding of the LAME extension, 12 bits each.
fn lame_trim(extension: &[u8]) -> Option<Trim> {
    let encoder = extension.get(..4)?;
    let is_known = [b"LAME", b"Lavf", b"Lavc", b"L3.9", b"GOGO"]
        .iter()
        .any(|known| encoder == *known);
    // Behind name, revision, low-pass, peak, gains, flags and bit rate.
    let &[a, b, c] = extension.get(21..24)?.first_chunk()?;
    let delay = u64::from(a) << 4 | u64::from(b >> 4);
    let padding = u64::from(b & 15) << 8 | u64::from(c);

    // The decoder's delay moves the audio: more of it is dropped at the start, and as much less at the end.
    is_known.then(|| Trim {
        start_samples: delay + DECODER_DELAY_SAMPLES,
        end_samples: padding.saturating_sub(DECODER_DELAY_SAMPLES),
    })
}

/// Four bytes, most significant first; 0 where they are missing.
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
    fn tags_in_a_row_are_skipped_and_lying_sizes_are_not_believed() {
        let mut file = b"ID3\x04\0\x10\0\0\0\x05hello3DI\x04\0\x10\0\0\0\x05".to_vec();
        file.extend(b"TAG");
        file.extend([0; 125]);
        assert_eq!(skip(&file, 0), file.len());
        assert_eq!(skip(b"ID3\x03\0\0\x7f\x7f\x7f\x7fabc", 0), 10);
        assert_eq!(skip(b"TAGabc", 0), 3);
        assert_eq!(skip(b"", 0), 0);
    }

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
