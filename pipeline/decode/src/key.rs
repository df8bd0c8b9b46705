//! The decode key: a hash over everything in a file that affects decoding.
//!
//! Two files with equal keys decode to equal samples, losses and `audio_blake3`, no matter how their tags, pictures,
//! text chunks and lengths differ. A clip with a known key therefore need not be decoded again. `audio_blake3` is not
//! sufficient for that: it does not cover the encoder's announcements, the sample rate of a WAV file, or the positions
//! of gaps.
//!
//! The key is computed from the results of the first pass over a file, because decoding repeats the same pass and uses
//! nothing else. A change that lets a decoder use another property of the file must add that property to the key. If
//! the key covers too much, a clip is decoded again unnecessarily; if it covers too little, samples are wrong. The key
//! does not depend on the decoder, so only keys of the same version can be compared.

#[cfg(test)]
mod tests;

/// Separates the decode key from every other hash. Change this whenever the items of a format's key change.
const CONTEXT: &str = "wavemill 2026-11-30 decode key";

/// Computes a decode key incrementally.
///
/// Every item of the key is prefixed by its length, so that different lists of items never produce the same bytes.
#[derive(Clone, Debug)]
pub(super) struct KeyHasher {
    hasher: blake3::Hasher,
}

impl KeyHasher {
    /// Starts the decode key of a file with this format.
    pub(super) fn new(format: &str) -> Self {
        let hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let mut key = Self { hasher };
        key.bytes(format.as_bytes());
        key
    }

    /// Adds numbers with a name to the key. An optional number is passed as a slice of zero or one element.
    pub(super) fn item(&mut self, name: &str, numbers: &[u64]) {
        self.bytes(name.as_bytes());
        self.number(numbers.len() as u64);
        for &number in numbers {
            self.number(number);
        }
    }

    /// Adds a byte string to the key.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
    }

    /// Returns the decode key of all added items and the hash of the audio.
    pub(super) fn finish(mut self, audio_blake3: &blake3::Hash) -> blake3::Hash {
        self.bytes(audio_blake3.as_bytes());
        self.hasher.finalize()
    }

    fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }
}
