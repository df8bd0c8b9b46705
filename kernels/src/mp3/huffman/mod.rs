//! Huffman codes → spectral lines (ISO/IEC 11172-3 §2.4.3.4.6), requantised on the way.
//!
//! One look into a table of 2^10 entries gives both values of a pair with their signs, and how many bits they took. The
//! few codes that are longer go on in a second table. Values that are escaped take their own bits after that.

mod books;
mod tables;

use super::LINES;
use super::bits::BitReader;
use super::requantize::{Gains, PowerTable};
use super::side_info::Granule;
use books::{Book, Books};

#[cfg(test)]
pub(super) use books::{PAIR_BOOKS, words};
#[cfg(test)]
pub(super) use tables::{QUADS_A, QUADS_B};

/// What is at hand to read codes with.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    books: &'static Books,
    powers: &'static PowerTable,
}

/// Codes that are still to be read.
struct Codes<'a> {
    bits: BitReader<'a>,
    /// Bits of the granule that are left; below zero where the last code went too far.
    n_left: i64,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            books: Books::get(),
            powers: PowerTable::get(),
        }
    }

    /// Reads the lines of a granule from `n_bits` bits, and returns how many lines there are, and the bit behind the
    /// last one that was read. The other lines become zero.
    pub(super) fn read(
        &self,
        bits: BitReader,
        n_bits: usize,
        granule: &Granule,
        gains: &Gains,
        lines: &mut [f32; LINES],
    ) -> (usize, usize) {
        let mut codes = Codes {
            bits,
            n_left: n_bits as i64,
        };
        let n_lines = self.read_lines(&mut codes, granule, gains, lines);
        lines[n_lines..].fill(0.0);
        (n_lines, codes.bits.position())
    }

    fn read_lines(
        &self,
        codes: &mut Codes,
        granule: &Granule,
        gains: &Gains,
        lines: &mut [f32; LINES],
    ) -> usize {
        if codes.n_left == 0 {
            return 0;
        }

        let mut at = 0;
        let ends = [granule.region_ends[0], granule.region_ends[1], LINES];
        for (end, select) in ends.into_iter().zip(granule.table_select) {
            let end = end.min(granule.n_big);
            if end <= at {
                continue;
            }
            let lines = &mut lines[at..end];
            let gains = &gains.by_pair[at / 2..end / 2];

            at += match self.books.pairs(select) {
                // A region of zeros takes no bits.
                None => {
                    lines.fill(0.0);
                    lines.len()
                }
                Some((book, 0)) => 2 * self.read_pairs::<false>(codes, book, 0, gains, lines),
                Some((book, n_bits)) => {
                    2 * self.read_pairs::<true>(codes, book, n_bits, gains, lines)
                }
            };
        }

        self.read_quads(codes, granule, gains, lines, at)
    }

    /// Reads pairs until the region or the bits are at their end; returns how many.
    #[inline(always)]
    fn read_pairs<const ESCAPES: bool>(
        &self,
        codes: &mut Codes,
        book: &Book,
        escape_bits: u32,
        gains: &[f32],
        lines: &mut [f32],
    ) -> usize {
        let mut bits = codes.bits;
        let mut n_left = codes.n_left;
        let mut n_pairs = 0;

        for (pair, &gain) in lines.chunks_exact_mut(2).zip(gains) {
            if n_left <= 0 {
                break;
            }
            n_pairs += 1;
            bits.refill();
            let entry = book.find(&bits);
            bits.skip(entry.n_bits());
            n_left -= i64::from(entry.n_bits());

            if ESCAPES && entry.is_escape() {
                let mut read = |magnitude: u32| {
                    let mut value = magnitude;
                    if magnitude == books::ESCAPE {
                        value += bits.peek(escape_bits);
                        bits.skip(escape_bits);
                        n_left -= i64::from(escape_bits);
                    }
                    if value == 0 {
                        return 0.0;
                    }
                    let is_negative = bits.peek(1) == 1;
                    bits.skip(1);
                    n_left -= 1;
                    let power = self.powers.of(value);
                    if is_negative { -power } else { power }
                };
                let (x, y) = entry.magnitudes();
                pair[0] = read(x) * gain;
                pair[1] = read(y) * gain;
            } else {
                let (x, y) = entry.signed();
                pair[0] = self.powers.of_signed(x) * gain;
                pair[1] = self.powers.of_signed(y) * gain;
            }
        }

        codes.bits = bits;
        codes.n_left = n_left;
        n_pairs
    }

    /// Reads quadruples of values up to one, from line `from` on, until the bits are at their end; returns where the
    /// lines end.
    fn read_quads(
        &self,
        codes: &mut Codes,
        granule: &Granule,
        gains: &Gains,
        lines: &mut [f32; LINES],
        from: usize,
    ) -> usize {
        let quads = self.books.quads(granule.uses_quads_b);
        let mut at = from;
        while at + 4 <= LINES && codes.n_left > 0 {
            codes.bits.refill();
            let quad = quads.find(&codes.bits);
            codes.bits.skip(quad.n_bits());
            codes.n_left -= i64::from(quad.n_bits());

            for (line, value) in lines[at..at + 4].iter_mut().zip(quad.values()) {
                *line = value;
            }
            let gains = &gains.by_pair[at / 2..at / 2 + 2];
            lines[at] *= gains[0];
            lines[at + 1] *= gains[0];
            lines[at + 2] *= gains[1];
            lines[at + 3] *= gains[1];
            at += 4;
        }

        // Encoders fill up a granule with bits that are no codes. What they made of the last quadruple is no sound.
        if codes.n_left < 0 && at > from {
            at - 4
        } else {
            at
        }
    }
}
