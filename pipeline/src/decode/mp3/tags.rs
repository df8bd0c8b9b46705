//! What stands in MP3 files and is no audio: ID3 and APE tags, and the Info, Xing or VBRI frame.
//!
//! Lyrics3 needs no code: it stands behind the last frame, where foreign bytes cost nothing.
//!
//! Sources: id3.org (2.4.0 structure §3), the APEv2 specification, the LAME "Mp3 Info Tag" description (rev. 1).

use super::frames::Frame;
use super::header::HEADER_BYTES;

/// Bytes of an ID3v2 header, and of its footer.
const ID3V2_HEADER_BYTES: usize = 10;
/// Samples by which every decoder delays the signal (528 of the filter bank + 1).
const DECODER_DELAY_SAMPLES: u64 = 529;

/// Where the tags that start at `at` end; `at` itself if none does. Tags that claim more than there is count as their
/// header alone, so that a lying size swallows no audio.
pub fn skip(bytes: &[u8], mut at: usize) -> usize {
    while let Some(tag_bytes) = tag_bytes(&bytes[at..]) {
        at += tag_bytes;
    }
    at
}

fn tag_bytes(bytes: &[u8]) -> Option<usize> {
    let rest_or =
        |claimed: usize, header: usize| Some(if claimed <= bytes.len() { claimed } else { header.min(bytes.len()) });
    if let Some(&[b'I' | b'3', b'D', b'3' | b'I', major, revision, flags, a, b, c, d]) = bytes.first_chunk() {
        if major == 0xFF || revision == 0xFF || (a | b | c | d) & 0x80 != 0 {
            return None;
        }
        if bytes[0] == b'3' {
            return Some(ID3V2_HEADER_BYTES);
        }
        let size = [a, b, c, d].iter().fold(0, |size, &byte| size << 7 | usize::from(byte));
        let footer = if flags & 0x10 != 0 { ID3V2_HEADER_BYTES } else { 0 };
        return rest_or(ID3V2_HEADER_BYTES + size + footer, ID3V2_HEADER_BYTES);
    }
    if bytes.starts_with(b"APETAGEX") && bytes.len() >= 32 {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let is_header = word(20) & 1 << 29 != 0;
        return rest_or(if is_header { 32 + word(12) as usize } else { 32 }, 32);
    }
    if bytes.starts_with(b"TAG+") {
        rest_or(227, 4)
    } else if bytes.starts_with(b"TAG") {
        rest_or(128, 3)
    } else {
        None
    }
}

/// What an Info, Xing or VBRI frame announces. Nothing here is believed before it was compared with the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Audio frames; 0 where not given.
    pub n_frames: u64,
    /// Bytes of the stream; 0 where not given.
    pub n_bytes: u64,
    /// Samples to drop at the start and at the end, of an encoder that says so.
    pub trim: Option<Trim>,
}

/// Gapless playback as LAME, and the programs that follow it, announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Samples to drop at the start, the decoder's own delay included.
    pub start_samples: u64,
    /// Samples to drop at the end of the announced frames.
    pub end_samples: u64,
}

impl Info {
    /// The announcement in a frame that holds one, and so no audio.
    pub fn of(frame: &Frame) -> Option<Self> {
        // The position of Xing and Info does not count a checksum.
        let body = frame.bytes.get(HEADER_BYTES + frame.header.side_info_bytes()..)?;
        if body.starts_with(b"Xing") || body.starts_with(b"Info") {
            return Some(Self::xing(body));
        }
        let vbri = frame.bytes.get(HEADER_BYTES + 32..)?;
        if vbri.starts_with(b"VBRI") {
            return Some(Self { n_bytes: word(vbri, 10), n_frames: word(vbri, 14), trim: None });
        }
        None
    }

    fn xing(body: &[u8]) -> Self {
        let flags = word(body, 4);
        let mut at = 8;
        let mut field = |flag: u64, bytes: usize| {
            let value = if flags & flag != 0 { word(body, at) } else { 0 };
            at += if flags & flag != 0 { bytes } else { 0 };
            value
        };
        let (n_frames, n_bytes) = (field(1, 4), field(2, 4));
        let _ = (field(4, 100), field(8, 4));
        Self { n_frames, n_bytes, trim: body.get(at..).and_then(lame_trim) }
    }
}

/// Delay and padding of the LAME extension, 12 bits each.
fn lame_trim(extension: &[u8]) -> Option<Trim> {
    let encoder = extension.get(..4)?;
    let is_known = [b"LAME", b"Lavf", b"Lavc", b"L3.9", b"GOGO"].iter().any(|known| encoder == *known);
    let &[a, b, c] = extension.get(21..24)?.first_chunk()?;
    let (delay, padding) = (u64::from(a) << 4 | u64::from(b >> 4), u64::from(b & 15) << 8 | u64::from(c));
    is_known.then(|| Trim {
        start_samples: delay + DECODER_DELAY_SAMPLES,
        end_samples: padding.saturating_sub(DECODER_DELAY_SAMPLES),
    })
}

/// Four bytes, most significant first; 0 where they are missing.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).map_or(0, |word| word.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
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
        let trim = Trim { start_samples: 576 + 529, end_samples: 1000 - 529 };
        assert_eq!(Info::xing(&body), Info { n_frames: 7, n_bytes: 4096, trim: Some(trim) });
        assert_eq!(Info::xing(b"Xing\0\0\0\x01\0\0"), Info::default());
    }
}
