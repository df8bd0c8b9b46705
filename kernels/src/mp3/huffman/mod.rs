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
use books::{Book, Books, Entry};

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
    /// The bit behind the last one of the granule. The last code may go too far.
    end: usize,
}

impl Codes<'_> {
    #[inline(always)]
    fn are_at_end(&self) -> bool {
        self.bits.position() >= self.end
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            books: Books::get(),
            powers: PowerTable::get(),
        }
    }

    /// Reads the lines of a granule whose bits end before `end`, and returns how many lines there are, and the bit behind
    /// the last one that was read. The other lines become zero.
    pub(super) fn read(
        &self,
        bits: BitReader,
        end: usize,
        granule: &Granule,
        gains: &Gains,
        lines: &mut [f32; LINES],
    ) -> (usize, usize) {
        let mut codes = Codes { bits, end };
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
        if codes.are_at_end() {
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
        // A code has at most 19 bits and two signs, or two times 13 more bits with escapes: what a word holds.
        let n_per_word = if ESCAPES { 1 } else { 2 };
        let mut bits = codes.bits;
        let mut n_pairs = 0;

        let mut pairs = lines.as_chunks_mut::<2>().0.iter_mut().zip(gains);
        'region: loop {
            let mut word = bits.word();
            for _ in 0..n_per_word {
                if bits.position() >= codes.end {
                    break 'region;
                }
                let Some((pair, &gain)) = pairs.next() else {
                    break 'region;
                };
                n_pairs += 1;

                let entry = book.find(word);
                if ESCAPES && entry.is_escape() {
                    bits.skip(self.read_escape(entry, word, escape_bits, gain, pair));
                } else {
                    word <<= entry.n_bits();
                    bits.skip(entry.n_bits());
                    let (x, y) = entry.signed();
                    pair[0] = self.powers.of_signed(x) * gain;
                    pair[1] = self.powers.of_signed(y) * gain;
                }
            }
        }

        codes.bits = bits;
        n_pairs
    }

    /// Reads a pair of which a value is escaped; returns how many bits it took.
    #[inline(always)]
    fn read_escape(
        &self,
        entry: Entry,
        word: u64,
        escape_bits: u32,
        gain: f32,
        pair: &mut [f32; 2],
    ) -> u32 {
        let mut n_bits = entry.n_bits();
        for (line, magnitude) in pair.iter_mut().zip(entry.magnitudes()) {
            let mut value = magnitude;
            if magnitude == books::ESCAPE {
                value += (word << n_bits >> (64 - escape_bits)) as u32;
                n_bits += escape_bits;
            }
            let mut power = self.powers.of(value) * gain;
            if value > 0 {
                let is_negative = word << n_bits >> 63 == 1;
                power = if is_negative { -power } else { power };
                n_bits += 1;
            }
            *line = power;
        }
        n_bits
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
        while at + 4 <= LINES && !codes.are_at_end() {
            let quad = quads.find(codes.bits.word());
            codes.bits.skip(quad.n_bits());

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
        let is_too_far = codes.bits.position() > codes.end;
        if is_too_far && at > from { at - 4 } else { at }
    }
}
