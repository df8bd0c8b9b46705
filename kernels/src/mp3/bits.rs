//! Bits of main data and side info, most significant first.

/// Reads bits of a slice. Behind its end come zeros: who reads there finds out by [`BitReader::position`].
#[derive(Clone, Copy, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The first byte that is not in `cache` yet; it counts on behind the end.
    next: usize,
    /// Bits not yet read, the first one on top. Behind the lowest of them are only bits that come next anyway.
    cache: u64,
    /// How many of them count.
    n_cached: u32,
}

impl<'a> BitReader<'a> {
    /// A reader from bit `position` on.
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        let mut reader = Self {
            bytes,
            next: position / 8,
            cache: 0,
            n_cached: 0,
        };
        reader.refill();
        reader.skip((position % 8) as u32);
        reader
    }

    /// Makes sure of 56 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let word = match self.bytes.get(self.next..self.next + 8) {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().expect("eight bytes")),
            None => self.last_word(),
        };
        self.cache |= word >> self.n_cached;
        // Whole bytes, as many as fit beside what was there.
        let n_bytes = (63 - self.n_cached) / 8;
        self.next += n_bytes as usize;
        self.n_cached += 8 * n_bytes;
    }

    /// Up to eight bytes, and zeros behind the end.
    #[cold]
    fn last_word(&self) -> u64 {
        let mut word = [0; 8];
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        for (to, from) in word.iter_mut().zip(rest) {
            *to = *from;
        }
        u64::from_be_bytes(word)
    }

    /// The next `n` bits, which stay; 1 to 32, and no more than are left since the last refill.
    #[inline(always)]
    pub(super) fn peek(&self, n: u32) -> u32 {
        (self.cache >> (64 - n)) as u32
    }

    /// Passes over `n` bits, of those that are left since the last refill.
    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) {
        self.cache <<= n;
        self.n_cached -= n;
    }

    /// The next `n` bits, up to 32.
    #[inline(always)]
    pub(super) fn read(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        self.refill();
        let value = self.peek(n);
        self.skip(n);
        value
    }

    /// The next bit as a flag.
    pub(super) fn flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Bits from the start of the slice up to the next one.
    pub(super) fn position(&self) -> usize {
        8 * self.next - self.n_cached as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_across_bytes_and_zeros_follow_the_end() {
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
