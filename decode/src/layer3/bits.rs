//! Reads the bits of main data and side info, most significant bit first.

/// Reads the bits of a byte slice. Returns zeros after its end, which [`BitReader::position`] reveals.
#[derive(Clone, Copy, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Creates a reader that starts at bit `position`.
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// Returns a word of the next bits, starting at the word's highest bit. 57 bits of it are valid.
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        let first = self.position / 8;
        let word = match self.bytes.get(first..first + 8) {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight bytes")),
            None => self.last_word(first),
        };
        word << (self.position % 8)
    }

    /// Returns up to eight bytes of the slice, padded with zeros after its end.
    #[cold]
    fn last_word(&self, first: usize) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(first..).unwrap_or_default();
        for (to, from) in word.iter_mut().zip(rest) {
            *to = *from;
        }
        u64::from_be_bytes(word)
    }

    /// Skips `n` bits.
    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) {
        self.position += n as usize;
    }

    /// Reads the next `n` bits, up to 32.
    #[inline]
    pub(super) fn read(&mut self, n: u32) -> u32 {
        // Shift twice, because a single shift by 64 (if `n` is 0) is undefined.
        let value = self.word() >> 1 >> (63 - n);
        self.skip(n);
        value as u32
    }

    /// Reads the next bit as a flag.
    pub(super) fn flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Returns the index of the next bit in the slice.
    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.position
    }
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
