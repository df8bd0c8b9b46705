//! What is known of a clip without decoding it: hashes that tell a recording that is there twice, and an input that
//! decodes as it did before.

use super::mp3::Surveyor;
use super::sniff::{Format, sniff};
use super::{FILE_BYTES_MAX, flac, ogg, wav};

/// The hashes of one file. Both are there, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputFacts {
    /// The `audio_blake3` that decoding gives; `None` for a file in which no audio is found.
    pub audio: Option<blake3::Hash>,
    /// The [decode key](super::Pcm::decode_key) that decoding gives; `None` for a file in which no audio is found.
    pub decode: Option<blake3::Hash>,
}

impl InputFacts {
    /// Of a file with audio in it.
    pub(super) fn of_audio(audio_blake3: blake3::Hash, decode_key: blake3::Hash) -> Self {
        Self {
            audio: Some(audio_blake3),
            decode: Some(decode_key),
        }
    }
}

/// Hashes files without decoding them; one a thread, its buffers are kept from clip to clip.
#[derive(Debug, Default)]
pub struct InputHasher {
    surveyor: Surveyor,
}

impl InputHasher {
    /// Walks over a whole file, as decoding does before it decodes: both always give the same hashes.
    ///
    /// There may be hashes of a file that decodes to a reject, for example where it is too short.
    pub fn read(&mut self, bytes: &[u8]) -> InputFacts {
        if bytes.len() > FILE_BYTES_MAX {
            return InputFacts::default();
        }
        match sniff(bytes) {
            Format::Mpeg => self.surveyor.survey(bytes).facts(),
            Format::Unsupported(_) => InputFacts::default(),
            Format::Flac => flac::facts(bytes),
            Format::Wav => wav::facts(bytes),
            Format::Ogg if ogg::holds_flac(bytes) => flac::facts(bytes),
            Format::Ogg => ogg::facts(bytes),
        }
    }
}
