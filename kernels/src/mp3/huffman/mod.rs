//! Huffman codes → spectral lines (ISO/IEC 11172-3 §2.4.3.4.6), requantised on the way.
//!
//! One look into a table of 2^10 entries gives both values of a pair with their signs, and how many bits they took. The
//! few codes that are longer go on in a second table. Values that are escaped take their own bits after that. So a word of
//! bits is good for several codes, and is read anew only behind a long one.

mod books;
mod tables;

use super::LINES;
use super::bits::BitReader;
use super::requantize::{Gains, PowerTable};
use super::side_info::Granule;
use books::{Book, Books, Entry, SHORT_CODES_PER_WORD};

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

/// Pairs of one book.
struct Region<'a> {
    book: &'a Book,
    /// Bits of an escaped value.
    escape_bits: u32,
    /// The factor of each pair.
    gains: &'a [f32],
    pairs: &'a mut [[f32; 2]],
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
    /// the last one that was read. The other lines become zero. Behind line `n_wanted` it may end earlier.
    pub(super) fn read(
        &self,
        bits: BitReader,
        end: usize,
        granule: &Granule,
        n_wanted: usize,
        gains: &Gains,
        lines: &mut [f32; LINES],
    ) -> (usize, usize) {
        let mut codes = Codes { bits, end };
        let n_lines = self.read_lines(&mut codes, granule, n_wanted, gains, lines);
        lines[n_lines..].fill(0.0);
        (n_lines, codes.bits.position())
    }

    fn read_lines(
        &self,
        codes: &mut Codes,
        granule: &Granule,
        n_wanted: usize,
        gains: &Gains,
        lines: &mut [f32; LINES],
    ) -> usize {
        if codes.are_at_end() {
            return 0;
        }

        let mut at = 0;
        let n_big = granule.n_big.min(n_wanted.next_multiple_of(2));
        let ends = [granule.region_ends[0], granule.region_ends[1], LINES];
        for (end, select) in ends.into_iter().zip(granule.table_select) {
            let end = end.min(n_big);
            if end <= at {
                continue;
            }
            let lines = &mut lines[at..end];

            at += match self.books.pairs(select) {
                // A region of zeros takes no bits.
                None => {
                    lines.fill(0.0);
                    lines.len()
                }
                Some((book, escape_bits)) => {
                    let mut region = Region {
                        book,
                        escape_bits,
                        gains: &gains.by_pair[at / 2..end / 2],
                        pairs: lines.as_chunks_mut().0,
                    };
                    2 * self.read_pairs(codes, &mut region)
                }
            };
        }

        self.read_quads(codes, granule, n_wanted, gains, lines, at)
    }

    /// Reads pairs until the region or the bits are at their end; returns how many.
    fn read_pairs(&self, codes: &mut Codes, region: &mut Region) -> usize {
        if codes.are_at_end() {
            return 0;
        }

        // Most regions end before the bits do, so this is looked at behind the region.
        let mut bits = codes.bits;
        self.read_region(&mut bits, region);
        let mut n_pairs = region.pairs.len();
        if bits.position() > codes.end {
            bits = codes.bits;
            n_pairs = self.read_region_until(&mut bits, codes.end, region);
        }

        codes.bits = bits;
        n_pairs
    }

    /// Reads all pairs of a region.
    #[inline(always)]
    fn read_region(&self, bits: &mut BitReader, region: &mut Region) {
        let mut pairs = region.pairs.iter_mut().zip(region.gains);
        'word: loop {
            let mut word = bits.word();
            for _ in 0..SHORT_CODES_PER_WORD {
                let Some((pair, &gain)) = pairs.next() else {
                    return;
                };
                let entry = region.book.first(word);
                if entry.is_short() {
                    word <<= entry.n_bits();
                    bits.skip(entry.n_bits());
                    *pair = self.requantised(entry, gain);
                } else {
                    self.read_long(bits, entry, region.escape_bits, region.book, gain, pair);
                    continue 'word;
                }
            }
        }
    }

    /// Reads the pairs of a region that begin before bit `end`, and returns how many.
    #[cold]
    fn read_region_until(&self, bits: &mut BitReader, end: usize, region: &mut Region) -> usize {
        let pairs = region.pairs.iter_mut().zip(region.gains);
        for (n_pairs, (pair, &gain)) in pairs.enumerate() {
            if bits.position() >= end {
                return n_pairs;
            }
            let entry = region.book.first(bits.word());
            if entry.is_short() {
                bits.skip(entry.n_bits());
                *pair = self.requantised(entry, gain);
            } else {
                self.read_long(bits, entry, region.escape_bits, region.book, gain, pair);
            }
        }
        region.pairs.len()
    }

    #[inline(always)]
    fn requantised(&self, entry: Entry, gain: f32) -> [f32; 2] {
        let (x, y) = entry.signed();
        [
            self.powers.of_signed(x) * gain,
            self.powers.of_signed(y) * gain,
        ]
    }

    /// Reads a pair whose code goes on behind the first look, or has escapes. A code has at most 19 bits and two signs,
    /// or two times 13 more bits with escapes: what a word holds.
    #[inline(always)]
    fn read_long(
        &self,
        bits: &mut BitReader,
        first: Entry,
        escape_bits: u32,
        book: &Book,
        gain: f32,
        pair: &mut [f32; 2],
    ) {
        let word = bits.word();
        let entry = if first.is_link() {
            book.second(word, first)
        } else {
            first
        };
        if entry.is_escape() {
            bits.skip(self.read_escape(entry, word, escape_bits, gain, pair));
        } else {
            bits.skip(entry.n_bits());
            *pair = self.requantised(entry, gain);
        }
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
            // Nothing here can be guessed from codes before, so there are no branches.
            let n_more = if magnitude == books::ESCAPE {
                escape_bits
            } else {
                0
            };
            // Two shifts, because one by 64 for no bits is not defined.
            let value = magnitude + (word << n_bits >> 1 >> (63 - n_more)) as u32;
            n_bits += n_more;

            let n_signs = u32::from(value > 0);
            let sign = (word << n_bits >> 63) as u32 & n_signs;
            n_bits += n_signs;

            let power = self.powers.of(value) * gain;
            *line = f32::from_bits(power.to_bits() ^ sign << 31);
        }
        n_bits
    }

    /// Reads quadruples of values up to one, from line `from` on, until the bits are at their end; returns where the
    /// lines end.
    fn read_quads(
        &self,
        codes: &mut Codes,
        granule: &Granule,
        n_wanted: usize,
        gains: &Gains,
        lines: &mut [f32; LINES],
        from: usize,
    ) -> usize {
        let quads = self.books.quads(granule.uses_quads_b);
        let mut at = from;
        'word: loop {
            let mut word = codes.bits.word();
            for _ in 0..SHORT_CODES_PER_WORD {
                if at + 4 > LINES || at >= n_wanted || codes.are_at_end() {
                    break 'word;
                }
                let quad = quads.find(word);
                word <<= quad.n_bits();
                codes.bits.skip(quad.n_bits());

                let [v, w, x, y] = quad.values();
                let gains = &gains.by_pair[at / 2..at / 2 + 2];
                lines[at..at + 4].copy_from_slice(&[
                    v * gains[0],
                    w * gains[0],
                    x * gains[1],
                    y * gains[1],
                ]);
                at += 4;
            }
        }

        // Encoders fill up a granule with bits that are no codes. What they made of the last quadruple is no sound.
        let is_too_far = codes.bits.position() > codes.end;
        if is_too_far && at > from { at - 4 } else { at }
    }
}
