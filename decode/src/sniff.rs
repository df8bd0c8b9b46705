//! Detects the format of an audio file from its bytes, because extensions in archives can be wrong.

use super::{adts, mp4, tags, wav};

/// The format of an audio file, which determines the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// MPEG audio frames or an unknown signature. The search for frames decides whether the file contains audio.
    Mpeg,
    /// RIFF WAVE with any codec except MP3, or AIFF.
    Wav,
    /// AAC frames with ADTS headers.
    Adts,
    /// An MP4 container.
    Mp4,
    /// FLAC without a container.
    Flac,
    /// An Ogg container.
    Ogg,
    /// A known format that is not decoded, with its name.
    Unsupported(&'static str),
}

/// Signatures of formats that are not decoded: offset in the file, bytes, and name of the format.
const UNSUPPORTED: [(usize, &[u8], &str); 13] = [
    (0, b"\x1A\x45\xDF\xA3", "Matroska or WebM"),
    (0, b"FORM", "IFF"),
    (0, b"caff", "CAF"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvPk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"#!AMR", "AMR"),
    (0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media"),
    (0, b".snd", "AU"),
    (0, b"riff\x2E\x91\xCF\x11", "Wave64"),
    (0, b"FLV\x01", "Flash Video"),
    (8, b"AVI LIST", "AVI"),
];

/// Detects a file's format from its first bytes, after any tags.
pub(super) fn sniff(file: &[u8]) -> Format {
    let bytes = &file[tags::skip(file, 0)..];

    if bytes.starts_with(b"fLaC") {
        Format::Flac
    } else if bytes.starts_with(b"OggS") {
        Format::Ogg
    } else if wav::is_wave(bytes) {
        // A WAV file may contain MPEG frames.
        if wav::holds_mp3(bytes) {
            Format::Mpeg
        } else {
            Format::Wav
        }
    } else if wav::is_aiff(bytes) {
        Format::Wav
    } else if mp4::is_mp4(bytes) {
        Format::Mp4
    } else if let Some(name) = unsupported(bytes) {
        Format::Unsupported(name)
    } else if adts::find(bytes).is_some() {
        Format::Adts
    } else {
        Format::Mpeg
    }
}

/// Returns the name of a file's format if the format is known and not decoded.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    for (at, signature, name) in UNSUPPORTED {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.starts_with(signature) {
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_detected_even_after_a_tag() {
        assert_eq!(sniff(b"fLaC\0\0\0\x22"), Format::Flac);
        assert_eq!(sniff(b"ID3\x03\0\0\0\0\0\x02..OggS\0"), Format::Ogg);

        assert_eq!(
            sniff(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0"),
            Format::Wav
        );
        for name in [b"RIFF", b"RIFX", b"RF64", b"BW64"] {
            assert_eq!(sniff(&[&name[..], b"\0\0\0\0WAVE"].concat()), Format::Wav);
        }
        assert_eq!(
            sniff(b"RIFF\0\0\0\0WAVEfmt \x1E\0\0\0\x55\0\x02\0"),
            Format::Mpeg
        );

        assert_eq!(sniff(b"FORM\0\0\0\0AIFC"), Format::Wav);
        assert_eq!(sniff(b"FORM\0\0\0\08SVX"), Format::Unsupported("IFF"));
        assert_eq!(sniff(b"RIFF\0\0\0\0AVI LIST"), Format::Unsupported("AVI"));
        assert_eq!(sniff(b"\0\0\0\x20ftypM4A "), Format::Mp4);
        // Files of QuickTime without `ftyp`, and a text that only begins like a box.
        assert_eq!(sniff(b"\0\0\x20\0moov"), Format::Mp4);
        assert_eq!(sniff(b"\0\0\0\x08wide\0\0\x20\0mdat"), Format::Mp4);
        assert_eq!(sniff(b"\0\0\0\x01mdat\0\0\0\0\0\0\x20\0"), Format::Mp4);
        assert_eq!(
            sniff(b"The free encyclopedia, and the wide world"),
            Format::Mpeg
        );
        assert_eq!(
            sniff(&[0xFF, 0xF1, 0x50, 0x80, 0x01, 0x1F, 0xFC, 0].repeat(3)),
            Format::Adts
        );

        assert_eq!(sniff(b"\xFF\xFB\x90\x64"), Format::Mpeg);
        assert_eq!(sniff(b""), Format::Mpeg);
    }

    #[test]
    fn single_aac_header_is_not_aac() {
        let mut file = vec![0; 4_096];
        file[..2].copy_from_slice(&[0xFF, 0xF1]);
        assert_eq!(sniff(&file), Format::Mpeg);
    }
}
