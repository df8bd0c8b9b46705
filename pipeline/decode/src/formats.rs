//! The table of audio formats. A file's format is detected from its bytes, because extensions in archives can be wrong.

use wavemill_schemas::reject::Reason;

use super::adts::Adts;
use super::flac::Flac;
use super::format::{AudioFormat, DecoderParts};
use super::mp3::Surveyor;
use super::mp4::Mp4;
use super::ogg::Ogg;
use super::wav::Wav;
use super::{DecodeResult, FILE_BYTES_MAX, InputFacts, Pcm, mp3, reject, tags, wav};

/// All formats. A file has the first one that matches. ADTS comes last, because its frames need not be at the beginning.
static FORMATS: [&dyn AudioFormat; 19] = [
    &Flac,
    &Ogg,
    &Mp3,
    &Wav,
    &Mp4,
    &Undecoded(0, b"\x1A\x45\xDF\xA3", "Matroska or WebM"),
    &Undecoded(0, b"FORM", "IFF"),
    &Undecoded(0, b"caff", "CAF"),
    &Undecoded(0, b"MAC ", "Monkey's Audio"),
    &Undecoded(0, b"wvPk", "WavPack"),
    &Undecoded(0, b"TTA1", "True Audio"),
    &Undecoded(0, b"MPCK", "Musepack"),
    &Undecoded(0, b"#!AMR", "AMR"),
    &Undecoded(0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media"),
    &Undecoded(0, b".snd", "AU"),
    &Undecoded(0, b"riff\x2E\x91\xCF\x11", "Wave64"),
    &Undecoded(0, b"FLV\x01", "Flash Video"),
    &Undecoded(8, b"AVI LIST", "AVI"),
    &Adts,
];

/// Detects a file's format from its first bytes, after any tags. Every other file is searched for MPEG frames.
pub(super) fn detect(file: &[u8]) -> &'static dyn AudioFormat {
    let bytes = &file[tags::skip(file, 0)..];
    let found = FORMATS.iter().find(|format| format.matches(bytes));
    found.copied().unwrap_or(&Mp3)
}

impl InputFacts {
    /// Scans a whole file in the same way as the first pass of decoding, so that both always return the same hashes.
    ///
    /// A file can have hashes even if decoding rejects it, for example because it is too short.
    pub fn read(bytes: &[u8]) -> Self {
        if bytes.len() > FILE_BYTES_MAX {
            return Self::default();
        }
        detect(bytes).facts(bytes)
    }
}

/// MPEG audio of layer III, also in WAVE.
#[derive(Debug)]
struct Mp3;

impl AudioFormat for Mp3 {
    fn matches(&self, bytes: &[u8]) -> bool {
        // Files without a container have no signature: a search for frames decides whether they contain audio.
        wav::holds_mp3(bytes)
    }

    fn facts(&self, file: &[u8]) -> InputFacts {
        Surveyor::default().survey(file).facts()
    }

    fn longest_s(&self, file: &[u8]) -> f64 {
        mp3::longest_s(file)
    }

    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult {
        parts.mp3.decode(file, &mut parts.output, out)
    }
}

/// A known format that is not decoded: offset of its signature, the signature, and the name of the format.
#[derive(Debug)]
struct Undecoded(usize, &'static [u8], &'static str);

impl AudioFormat for Undecoded {
    fn matches(&self, bytes: &[u8]) -> bool {
        let Self(at, signature, _) = *self;
        bytes
            .get(at..)
            .is_some_and(|rest| rest.starts_with(signature))
    }

    fn facts(&self, _: &[u8]) -> InputFacts {
        InputFacts::default()
    }

    fn longest_s(&self, _: &[u8]) -> f64 {
        0.0
    }

    fn decode(&self, _: &[u8], _: &mut DecoderParts, _: &mut Pcm) -> DecodeResult {
        let detail = format!("{} is not decoded", self.2);
        Err(reject(Reason::UnsupportedCodec, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Returns the name of the type of a file's format.
    fn sniff(file: &[u8]) -> String {
        format!("{:?}", detect(file))
    }

    /// Returns the detail of the reject for a file.
    fn refused(file: &[u8]) -> String {
        let outcome = testing::decode(file, 44_100, &mut Pcm::default());
        outcome.unwrap_err().detail
    }

    #[test]
    fn formats_are_detected_even_after_a_tag() {
        assert_eq!(sniff(b"fLaC\0\0\0\x22"), "Flac");
        assert_eq!(sniff(b"ID3\x03\0\0\0\0\0\x02..OggS\0"), "Ogg");

        assert_eq!(sniff(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0"), "Wav");
        for name in [b"RIFF", b"RIFX", b"RF64", b"BW64"] {
            assert_eq!(sniff(&[&name[..], b"\0\0\0\0WAVE"].concat()), "Wav");
        }
        assert_eq!(sniff(b"RIFF\0\0\0\0WAVEfmt \x1E\0\0\0\x55\0\x02\0"), "Mp3");

        assert_eq!(sniff(b"FORM\0\0\0\0AIFC"), "Wav");
        assert_eq!(refused(b"FORM\0\0\0\08SVX"), "IFF is not decoded");
        assert_eq!(refused(b"RIFF\0\0\0\0AVI LIST"), "AVI is not decoded");
        assert_eq!(sniff(b"\0\0\0\x20ftypM4A "), "Mp4");
        // Files of QuickTime without `ftyp`, and a text that only begins like a box.
        assert_eq!(sniff(b"\0\0\x20\0moov"), "Mp4");
        assert_eq!(sniff(b"\0\0\0\x08wide\0\0\x20\0mdat"), "Mp4");
        assert_eq!(sniff(b"\0\0\0\x01mdat\0\0\0\0\0\0\x20\0"), "Mp4");
        assert_eq!(sniff(b"The free encyclopedia, and the wide world"), "Mp3");
        assert_eq!(
            sniff(&[0xFF, 0xF1, 0x50, 0x80, 0x01, 0x1F, 0xFC, 0].repeat(3)),
            "Adts"
        );

        assert_eq!(sniff(b"\xFF\xFB\x90\x64"), "Mp3");
        assert_eq!(sniff(b""), "Mp3");
    }

    #[test]
    fn single_aac_header_is_not_aac() {
        let mut file = vec![0; 4_096];
        file[..2].copy_from_slice(&[0xFF, 0xF1]);
        assert_eq!(sniff(&file), "Mp3");
    }
}
