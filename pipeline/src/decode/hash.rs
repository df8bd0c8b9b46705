//! The hash of a clip's audio without decoding it: what tells a recording that is there twice.

use super::mp3::Surveyor;
use super::sniff::{Format, sniff};
use super::{FILE_BYTES_MAX, flac, ogg, wav};

/// Hashes audio; one a thread, its buffers are kept from clip to clip.
#[derive(Debug, Default)]
pub struct AudioHasher {
    surveyor: Surveyor,
}

impl AudioHasher {
    /// The `audio_blake3` that decoding this file gives; `None` for a file in which no audio is found.
    pub fn hash(&mut self, bytes: &[u8]) -> Option<blake3::Hash> {
        if bytes.len() > FILE_BYTES_MAX {
            return None;
        }
        match sniff(bytes) {
            Format::Mpeg => {
                let survey = self.surveyor.survey(bytes);
                survey
                    .stream
                    // Files of the other layers are rejects, which have no `audio_blake3`.
                    .filter(|stream| stream.layer == 3)
                    .map(|_| survey.audio_blake3)
            }
            Format::Unsupported(_) => None,
            Format::Flac => flac::hash(bytes),
            Format::Wav => wav::hash(bytes),
            Format::Ogg if ogg::holds_flac(bytes) => flac::hash(bytes),
            Format::Ogg => ogg::hash(bytes),
        }
    }
}
