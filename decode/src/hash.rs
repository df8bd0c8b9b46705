//! Hashes of a clip that are computed without decoding it: one identifies copies of a recording, the other one files
//! that decode to the same samples.

use super::mp3::Surveyor;
use super::sniff::{Format, sniff};
use super::{FILE_BYTES_MAX, adts, flac, mp4, ogg, wav};

/// Both hashes of a file. Either both are `Some`, or neither is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputFacts {
    /// The `audio_blake3` that decoding the file returns; `None` if the file contains no audio.
    pub audio: Option<blake3::Hash>,
    /// The [decode key](super::Pcm::decode_key) that decoding the file returns; `None` if the file contains no audio.
    pub decode: Option<blake3::Hash>,
}

impl InputFacts {
    /// Creates the pair of hashes of a file that contains audio.
    pub(super) fn from_audio(audio_blake3: blake3::Hash, decode_key: blake3::Hash) -> Self {
        Self {
            audio: Some(audio_blake3),
            decode: Some(decode_key),
        }
    }
}

/// Hashes files without decoding them. Each thread has its own hasher, whose buffers are reused from clip to clip.
#[derive(Debug, Default)]
pub struct InputHasher {
    surveyor: Surveyor,
}

impl InputHasher {
    /// Scans a whole file in the same way as the first pass of decoding, so that both always return the same hashes.
    ///
    /// A file can have hashes even if decoding rejects it, for example because it is too short.
    pub fn read(&mut self, bytes: &[u8]) -> InputFacts {
        if bytes.len() > FILE_BYTES_MAX {
            return InputFacts::default();
        }
        match sniff(bytes) {
            Format::Mpeg => self.surveyor.survey(bytes).facts(),
            Format::Unsupported(_) => InputFacts::default(),
            Format::Flac => flac::facts(bytes),
            Format::Wav => wav::facts(bytes),
            Format::Adts => adts::facts(bytes),
            Format::Mp4 => mp4::facts(bytes),
            Format::Ogg => ogg::facts(bytes),
        }
    }
}
