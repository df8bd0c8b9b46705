//! Hashes of a clip that are computed without decoding it: one identifies copies of a recording, the other one files
//! that decode to the same samples.

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
