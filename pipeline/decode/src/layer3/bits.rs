//! Reads the bits of main data and side info, most significant bit first.

/// Reads the bits of a byte slice. Returns zeros after its end, which [`BitReader::position`] reveals.
#[derive(Clone, Copy, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Index of the first bit of the word when it was loaded.
    start: usize,
    /// The next bits, from the highest bit on. When the word was loaded, its lowest bit was set to one. So the number of
    /// zeros at its end is the number of bits that were read since then, and reading a code takes a single shift.
    word: u64,
}

impl<'a> BitReader<'a> {
    /// Number of valid bits in a word that was just loaded: 64, without up to seven bits of the byte before `position`.
    pub(super) const WORD_BITS: u32 = 57;

    /// Creates a reader that starts at bit `position`.
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        let first = position / 8;
        let word = match bytes.get(first..first + 8) {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight bytes")),
            None => last_word(bytes, first),
        };
        Self {
            bytes,
            start: position,
            word: word << (position % 8) | 1,
        }
    }

    /// Returns the bytes of the slice.
    #[inline(always)]
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Loads the word again, so that [`Self::WORD_BITS`] bits are valid.
    #[inline(always)]
    pub(super) fn reload(&mut self) {
        *self = Self::new(self.bytes, self.position());
    }

    /// Returns the word of the next bits, starting at the word's highest bit.
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        self.word
    }

    /// Skips `n % 64` valid bits. Table entries contain a number of bits below other fields.
    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) {
        self.word <<= n % 64;
    }

    /// Reads the next `n` bits, up to 32, which must be valid.
    #[inline(always)]
    pub(super) fn next(&mut self, n: u32) -> u32 {
        // Shift twice, because a single shift by 64 (if `n` is 0) is undefined. `!n % 64` is `63 - n`.
        let value = self.word >> 1 >> (!n % 64);
        self.skip(n);
        value as u32
    }

    /// Reads the next `n` bits, up to 32.
    #[inline(always)]
    pub(super) fn read(&mut self, n: u32) -> u32 {
        if self.word.trailing_zeros() + n > Self::WORD_BITS {
            self.reload();
        }
        self.next(n)
    }

    /// Reads the next bit as a flag.
    #[inline(always)]
    pub(super) fn flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Returns the index of the next bit in the slice.
    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.start + self.word.trailing_zeros() as usize
    }
}

/// Returns up to eight bytes of the slice, padded with zeros after its end.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], first: usize) -> u64 {
    let mut word = [0; 8];
    let rest = bytes.get(first..).unwrap_or_default();
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_span_bytes_and_are_zero_past_the_end() {
        let bytes: Vec<u8> = (0..40_u8).map(|at| at.wrapping_mul(37) ^ 0x5A).collect();
        let bit =
            |at: usize| u32::from(bytes.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1);

        for start in [0, 1, 7, 8, 63, 200, 319, 320, 400] {
            let mut reader = BitReader::new(&bytes, start);
            let mut at = start;
            for n in [1, 5, 32, 13, 0, 19, 32, 32, 7] {
                let want = (at..at + n).fold(0, |value, at| value << 1 | bit(at));
                assert_eq!(reader.read(n as u32), want, "{n} bits at {at}");
                at += n;
                assert_eq!(reader.position(), at);
            }
        }
    }
}
