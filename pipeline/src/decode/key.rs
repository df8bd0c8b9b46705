//! The decode key: a hash over everything that decoding reads of a file.
//!
//! Two files with equal keys give equal samples, losses and `audio_blake3`, whatever else differs in them: tags,
//! pictures, chunks of text, their length. So a clip whose key is known need not be decoded again. `audio_blake3` is
//! not enough for that: it sees neither what an encoder announced, nor the rate of a WAV, nor where the holes are.
//!
//! The key is made of what the first walk over a file finds, because decoding follows the same walk and looks at
//! nothing else. So whoever lets a decoder read one more thing has to add it here. A key that sees too much costs a
//! clip that is decoded again. One that sees too little gives wrong samples. A key says nothing of the decoder: only
//! keys of one version can be compared.

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

/// Keeps the key apart from every other hash. It changes where the items of a format do.
const CONTEXT: &str = "wavemill 2026-11-21 decode key";

/// A key under way.
///
/// Every item says how long it is, so that no two lists of items are the same bytes.
#[derive(Clone, Debug)]
pub(super) struct KeyHasher {
    hasher: blake3::Hasher,
}

impl KeyHasher {
    /// Begins the key of a file of this format.
    pub(super) fn of(format: &str) -> Self {
        let hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let mut key = Self { hasher };
        key.bytes(format.as_bytes());
        key
    }

    /// Adds numbers under a name. One that may be missing is given as a list of none or one.
    pub(super) fn item(&mut self, name: &str, numbers: &[u64]) {
        self.bytes(name.as_bytes());
        self.number(numbers.len() as u64);
        for &number in numbers {
            self.number(number);
        }
    }

    /// Adds bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
    }

    /// The key of these items and this audio.
    pub(super) fn finish(mut self, audio_blake3: &blake3::Hash) -> blake3::Hash {
        self.bytes(audio_blake3.as_bytes());
        self.hasher.finalize()
    }

    fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }
}
