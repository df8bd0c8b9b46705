//! The interface of audio formats, which `formats.rs` lists.

use std::fmt::Debug;

use super::mp3::Mp3Decoder;
use super::output::Output;
use super::{DecodeResult, InputFacts, Pcm};

/// The parts of a decoder that are kept from clip to clip.
pub(super) struct DecoderParts {
    pub output: Output,
    pub mp3: Mp3Decoder,
}

/// An audio format. Its files may begin with tags.
pub(super) trait AudioFormat: Debug + Sync {
    /// Reports whether a file has this format. `bytes` is the file after any tags at its beginning.
    fn matches(&self, bytes: &[u8]) -> bool;

    /// Returns the same hashes of a file as decoding does; none if the file contains no audio.
    fn facts(&self, file: &[u8]) -> InputFacts;

    /// Returns an upper bound on the duration in seconds of the audio decoded from `file`.
    fn longest_s(&self, file: &[u8]) -> f64;

    /// Decodes a file into `out`, which is cleared first. Sets the decode key of `out` as soon as the key is known, since
    /// rejects have a key as well.
    ///
    /// # Errors
    /// A [`Reject`](wavemill_schemas::reject::Reject) if the file has no audio that can be decoded, or its values exceed a
    /// limit.
    fn decode(&self, file: &[u8], parts: &mut DecoderParts, out: &mut Pcm) -> DecodeResult;
}
