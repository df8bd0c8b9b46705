//! Reader for the bits of a Vorbis header, least significant bit first (Vorbis I §2).

/// Reads numbers bit by bit. Its methods return `None` at the end of the bytes.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads a number of up to 32 bits.
    pub(super) fn read(&mut self, n_bits: u32) -> Option<u32> {
        debug_assert!(n_bits <= 32, "a number of {n_bits} bits");
        let end = self.at + n_bits as usize;
        if end > self.bytes.len() * 8 {
            return None;
        }

        // Any 32 consecutive bits are within five bytes.
        let rest = &self.bytes[self.at / 8..];
        let mut word = [0; 8];
        let n_bytes = rest.len().min(word.len());
        word[..n_bytes].copy_from_slice(&rest[..n_bytes]);

        let shifted = u64::from_le_bytes(word) >> (self.at % 8);
        self.at = end;
        Some((shifted & ((1 << n_bits) - 1)) as u32)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.read(1)? == 1)
    }

    pub(super) fn skip(&mut self, n_bits: u64) -> Option<()> {
        let end = usize::try_from(n_bits).ok()?.checked_add(self.at)?;
        // The position may be after the end, where every later read fails as well.
        self.at = end;
        (end <= self.bytes.len() * 8).then_some(())
    }
}

/// Returns the number of bits needed for `x`: 0 for 0, 3 for 7 (Vorbis I §9.2.1).
pub(super) fn ilog(x: u32) -> u32 {
    u32::BITS - x.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_least_significant_bit_first() {
        let mut bits = Bits::new(&[0b1010_1101, 0x34, 0x12, 0xFF, 0xFF, 0xFF]);
        assert_eq!(bits.read(3), Some(0b101));
        assert_eq!(bits.flag(), Some(true));
        assert_eq!(bits.read(0), Some(0));
        assert_eq!(bits.read(32), Some(0xFFF1_234A));
        assert_eq!(bits.skip(11), Some(()));
        assert_eq!((bits.read(1), bits.read(2)), (Some(1), None));
        assert_eq!(bits.skip(u64::MAX), None);
        assert_eq!((ilog(0), ilog(1), ilog(7), ilog(8)), (0, 1, 3, 4));
    }
}
