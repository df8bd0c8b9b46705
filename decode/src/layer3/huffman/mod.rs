//! Decodes Huffman codes to spectral lines (ISO/IEC 11172-3 §2.4.3.4.6), including requantisation.
//!
//! One lookup in a table of 2^10 entries returns both values of a pair with their signs, and the number of bits of
//! their code. The few longer codes continue in a second table. Escaped values take additional bits after that. A word
//! of bits therefore contains several codes, and is reloaded early only after a long code.

mod books;
mod tables;

use super::LINES;
use super::bits::BitReader;
use super::requantize::{Gains, PowerTable};
use super::side_info::Granule;
use books::{Book, Books, Entry, SHORT_CODES_PER_WORD};

pub(super) use books::CODE_BITS_MAX;
#[cfg(test)]
pub(super) use books::{PAIR_BOOKS, code_words};
#[cfg(test)]
pub(super) use tables::{QUADS_A, QUADS_B};

/// The tables that are needed to read Huffman codes.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    books: &'static Books,
    powers: &'static PowerTable,
}

/// The Huffman codes of one channel of a granule, and the lines that they decode to.
pub(super) struct CodedLines<'a> {
    pub(super) bits: BitReader<'a>,
    /// Index of the bit after the channel's bits in this granule. The last code may extend beyond it.
    pub(super) end: usize,
    pub(super) granule: &'a Granule,
    /// Number of spectral lines that are needed. Reading may stop after them, although the granule has more.
    pub(super) n_wanted: usize,
    pub(super) gains: &'a Gains,
    pub(super) lines: &'a mut [f32; LINES],
    /// Number of spectral lines that have been read.
    pub(super) n_lines: usize,
}

/// A part of a granule whose pairs of lines are coded with one Huffman book.
struct Region<'a> {
    /// Reader at the start of the region's first code.
    start: BitReader<'a>,
    bits: BitReader<'a>,
    /// Index of the bit after the bits of the granule.
    end: usize,
    code: PairCode<'a>,
    /// The gain factor of each pair.
    gains: &'a [f32],
    pairs: &'a mut [[f32; 2]],
}

/// The result of reading a region of pairs.
#[derive(Clone, Copy)]
struct ReadPairs {
    n_pairs: usize,
    /// Index of the bit after the last code that was read.
    end: usize,
}

/// A Huffman book of pairs, and the number of additional bits of an escaped value.
#[derive(Clone, Copy)]
struct PairCode<'a> {
    book: &'a Book,
    escape_bits: u32,
}

/// Number of regions of pairs in a granule.
const REGIONS: usize = 3;
/// Number of pairs that are read from one word of bits. After a long code the word is reloaded.
const PAIRS_PER_WORD: usize = SHORT_CODES_PER_WORD as usize;

impl CodedLines<'_> {
    fn is_at_end(&self) -> bool {
        self.bits.position() >= self.end
    }

    /// Returns the part of a region after the lines already read, or `None` if the region has no codes to read or no
    /// bits are left.
    fn region(&mut self, number: usize, books: &'static Books) -> Option<Region<'_>> {
        let n_big = self.granule.n_big.min(self.n_wanted.next_multiple_of(2));
        let [first_end, second_end] = self.granule.region_ends;
        let start = self.n_lines;
        let end = [first_end, second_end, LINES][number].min(n_big);
        if end <= start {
            return None;
        }

        let Some((book, escape_bits)) = books.pairs(self.granule.table_select[number]) else {
            // A region of zeros has no bits in the file.
            self.lines[start..end].fill(0.0);
            self.n_lines = end;
            return None;
        };
        if self.is_at_end() {
            return None;
        }

        Some(Region {
            start: self.bits,
            bits: self.bits,
            end: self.end,
            code: PairCode { book, escape_bits },
            gains: &self.gains.by_pair[start / 2..end / 2],
            pairs: self.lines[start..end].as_chunks_mut().0,
        })
    }

    /// Sets the spectral lines that were not read to zero.
    fn fill_up(&mut self) {
        self.lines[self.n_lines..].fill(0.0);
    }

    /// Continues after the pairs of a region that has been read, if there was one.
    fn take(&mut self, pairs: Option<ReadPairs>) {
        if let Some(pairs) = pairs {
            self.n_lines += 2 * pairs.n_pairs;
            self.bits.skip((pairs.end - self.bits.position()) as u32);
        }
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            books: Books::get(),
            powers: PowerTable::get(),
        }
    }

    /// Reads the spectral lines of a channel and sets the remaining ones to zero.
    pub(super) fn read(&self, channel: &mut CodedLines) {
        if !channel.is_at_end() {
            for number in 0..REGIONS {
                let region = channel.region(number, self.books);
                let pairs = region.map(|region| self.read_region(region));
                channel.take(pairs);
            }
            self.read_quads(channel);
        }
        channel.fill_up();
    }

    /// Reads two channels alternately. Each code depends on the previous one, so the processor can work on the codes of
    /// the other channel in the meantime.
    pub(super) fn read_two(&self, a: &mut CodedLines, b: &mut CodedLines) {
        if a.is_at_end() || b.is_at_end() {
            self.read(a);
            self.read(b);
            return;
        }

        for number in 0..REGIONS {
            self.read_regions(number, a, b);
        }
        self.read_quads(a);
        self.read_quads(b);
        a.fill_up();
        b.fill_up();
    }

    /// Decodes the big-value region `number` (0 to 2) of both channels, side by side.
    fn read_regions(&self, number: usize, a: &mut CodedLines, b: &mut CodedLines) {
        let (of_a, of_b) = match (a.region(number, self.books), b.region(number, self.books)) {
            (Some(mut of_a), Some(mut of_b)) => {
                self.read_side_by_side(&mut of_a, &mut of_b);
                (Some(self.finished(of_a)), Some(self.finished(of_b)))
            }
            (of_a, of_b) => (
                of_a.map(|region| self.read_region(region)),
                of_b.map(|region| self.read_region(region)),
            ),
        };

        a.take(of_a);
        b.take(of_b);
    }

    fn read_region(&self, mut region: Region) -> ReadPairs {
        self.read_pairs(&mut region, 0);
        self.finished(region)
    }

    /// Returns the result of a region whose pairs were all read. If codes extend beyond the end of the bits, reads the
    /// region again up to that end. Most regions end before the bits do, so the end is checked only afterwards.
    fn finished(&self, mut region: Region) -> ReadPairs {
        let mut n_pairs = region.pairs.len();
        if region.bits.position() > region.end {
            region.bits = region.start;
            n_pairs = self.read_pairs_until_end(&mut region);
        }

        ReadPairs {
            n_pairs,
            end: region.bits.position(),
        }
    }

    /// Reads all pairs of two regions, alternating between the regions while both have pairs left.
    fn read_side_by_side(&self, a: &mut Region, b: &mut Region) {
        let n_words = a.pairs.len().min(b.pairs.len()) / PAIRS_PER_WORD;
        let n_both = n_words * PAIRS_PER_WORD;

        let pairs_a = a.pairs[..n_both].as_chunks_mut::<PAIRS_PER_WORD>().0;
        let pairs_b = b.pairs[..n_both].as_chunks_mut::<PAIRS_PER_WORD>().0;
        let gains_a = a.gains[..n_both].as_chunks::<PAIRS_PER_WORD>().0;
        let gains_b = b.gains[..n_both].as_chunks::<PAIRS_PER_WORD>().0;

        let of_a = pairs_a.iter_mut().zip(gains_a);
        let of_b = pairs_b.iter_mut().zip(gains_b);
        for ((pairs_a, gains_a), (pairs_b, gains_b)) in of_a.zip(of_b) {
            let mut word_a = a.bits.word();
            let mut word_b = b.bits.word();
            for at in 0..PAIRS_PER_WORD {
                pairs_a[at] = self.read_pair(&mut a.bits, &mut word_a, a.code, gains_a[at]);
                pairs_b[at] = self.read_pair(&mut b.bits, &mut word_b, b.code, gains_b[at]);
            }
        }

        self.read_pairs(a, n_both);
        self.read_pairs(b, n_both);
    }

    /// Reads all pairs of a region, beginning with the pair of index `first`.
    #[inline(always)]
    fn read_pairs(&self, region: &mut Region, first: usize) {
        let pairs = region.pairs[first..].chunks_mut(PAIRS_PER_WORD);
        let gains = region.gains[first..].chunks(PAIRS_PER_WORD);
        for (pairs, gains) in pairs.zip(gains) {
            let mut word = region.bits.word();
            for (pair, &gain) in pairs.iter_mut().zip(gains) {
                *pair = self.read_pair(&mut region.bits, &mut word, region.code, gain);
            }
        }
    }

    /// Reads the pairs of a region whose codes start before the end of the bits, and returns their number.
    #[cold]
    fn read_pairs_until_end(&self, region: &mut Region) -> usize {
        for (n_pairs, (pair, &gain)) in region.pairs.iter_mut().zip(region.gains).enumerate() {
            if region.bits.position() >= region.end {
                return n_pairs;
            }
            let mut word = region.bits.word();
            *pair = self.read_pair(&mut region.bits, &mut word, region.code, gain);
        }
        region.pairs.len()
    }

    /// Reads the pair whose code is at the start of `word`.
    #[inline(always)]
    fn read_pair(
        &self,
        bits: &mut BitReader,
        word: &mut u64,
        code: PairCode,
        gain: f32,
    ) -> [f32; 2] {
        let entry = code.book.first(*word);
        if entry.is_short() {
            *word <<= entry.n_bits();
            bits.skip(entry.n_bits());
            self.requantised(entry, gain)
        } else {
            let pair = self.read_long(bits, entry, code, gain);
            *word = bits.word();
            pair
        }
    }

    #[inline(always)]
    fn requantised(&self, entry: Entry, gain: f32) -> [f32; 2] {
        let (x, y) = entry.signed();
        [
            self.powers.signed_power(x) * gain,
            self.powers.signed_power(y) * gain,
        ]
    }

    /// Reads a pair whose code continues in the second table or has escapes. The code has at most 19 bits and two
    /// signs, or twice 13 more bits with escapes, which fits into a word.
    #[inline(always)]
    fn read_long(&self, bits: &mut BitReader, first: Entry, code: PairCode, gain: f32) -> [f32; 2] {
        let word = bits.word();
        let entry = if first.is_link() {
            code.book.second(word, first)
        } else {
            first
        };
        if entry.is_escape() {
            let (pair, n_bits) = self.read_escape(entry, word, code.escape_bits, gain);
            bits.skip(n_bits);
            pair
        } else {
            bits.skip(entry.n_bits());
            self.requantised(entry, gain)
        }
    }

    /// Reads a pair with an escaped value. Returns the pair and the number of bits that were read.
    #[inline(always)]
    fn read_escape(&self, entry: Entry, word: u64, escape_bits: u32, gain: f32) -> ([f32; 2], u32) {
        let mut pair = [0.0; 2];
        let mut n_bits = entry.n_bits();
        for (line, magnitude) in pair.iter_mut().zip(entry.magnitudes()) {
            // Avoid branches, because the processor cannot predict these conditions from earlier codes.
            let n_more = if magnitude == books::ESCAPE {
                escape_bits
            } else {
                0
            };
            // Shift twice, because a single shift by 64 (if `n_more` is 0) is undefined.
            let value = magnitude + (word << n_bits >> 1 >> (63 - n_more)) as u32;
            n_bits += n_more;

            let n_signs = u32::from(value > 0);
            let sign = (word << n_bits >> 63) as u32 & n_signs;
            n_bits += n_signs;

            let power = self.powers.power(value) * gain;
            *line = f32::from_bits(power.to_bits() ^ sign << 31);
        }
        (pair, n_bits)
    }

    /// Reads quadruples of values from -1 to 1, which follow the pairs, up to the end of the granule's bits.
    fn read_quads(&self, channel: &mut CodedLines) {
        let quads = self.books.quads(channel.granule.uses_quads_b);
        let first = channel.n_lines;
        let mut bits = channel.bits;
        let mut at = first;
        'word: loop {
            let mut word = bits.word();
            for _ in 0..SHORT_CODES_PER_WORD {
                if at + 4 > LINES || at >= channel.n_wanted || bits.position() >= channel.end {
                    break 'word;
                }
                let quad = quads.find(word);
                word <<= quad.n_bits();
                bits.skip(quad.n_bits());

                let [v, w, x, y] = quad.values();
                let gains = &channel.gains.by_pair[at / 2..at / 2 + 2];
                channel.lines[at..at + 4].copy_from_slice(&[
                    v * gains[0],
                    w * gains[0],
                    x * gains[1],
                    y * gains[1],
                ]);
                at += 4;
            }
        }

        // Encoders pad a granule with bits that are not codes. The last quadruple is discarded if it includes padding.
        let is_too_far = bits.position() > channel.end;
        channel.n_lines = if is_too_far && at > first { at - 4 } else { at };
        channel.bits = bits;
    }
}
