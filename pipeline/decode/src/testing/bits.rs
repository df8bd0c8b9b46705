//! Writes test data bit by bit.

/// Writes numbers bit by bit, most significant bit first.
#[derive(Default)]
pub(crate) struct BitWriter {
    pub bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    pub(crate) fn write(&mut self, value: u32, n_bits: u32) {
        for bit in (0..n_bits).rev() {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.n_bits % 8);
            }
            self.n_bits += 1;
        }
    }
}
