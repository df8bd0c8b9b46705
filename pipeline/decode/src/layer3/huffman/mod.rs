//! Decodes Huffman codes to quantised values raised to the power 4/3 (ISO/IEC 11172-3 §2.4.3.4.6 and §2.4.3.4.7). Their
//! gains follow later, see `requantize.rs`.
//!
//! A short code takes about 10 instructions, or 13 with its share of reloading the word: a lookup of 16 bits gives the
//! length of the code with its signs and the index of the pair, a shift moves to the next code, and a lookup of 64 bits
//! gives both values as they are stored. A word of bits contains five short codes. Longer and escaped codes leave the
//! loop, except in book 24, where they are so frequent that all codes are read without branches, with about 40
//! instructions each: nearly all mispredicted branches were due to this book.

mod books;
mod tables;

use std::ops::Range;

use super::LINES;
use super::bits::BitReader;
use super::requantize::{PAIRS, POWERS, Pair, PowerTable, Powers};
use super::side_info::Granule;
use books::{
    Books, Code, CodeTable, PairCode, QUADS_PER_WORD, QuadBook, SHORT_CODES_PER_WORD, ShortCode,
    ShortTable,
};

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
    pub(super) bytes: &'a [u8],
    /// Index of the first bit of the next code.
    pub(super) position: usize,
    /// Index of the bit after the channel's bits in this granule. The last code may extend beyond it.
    pub(super) end: usize,
    pub(super) granule: &'a Granule,
    /// Number of spectral lines that are needed. Reading may stop after them, although the granule has more.
    pub(super) n_wanted: usize,
    pub(super) lines: &'a mut [f32; LINES],
    /// Number of spectral lines that have been read.
    pub(super) n_lines: usize,
    /// Number of regions of pairs that have been begun.
    pub(super) n_regions: usize,
}

/// A part of a granule whose pairs of lines are coded with one Huffman book.
struct Region {
    /// Index of the first bit of the region.
    start: usize,
    /// Index of the first bit of the next code.
    position: usize,
    /// The lines that have not been read.
    lines: Range<usize>,
    code: &'static PairCode,
}

/// Number of regions of pairs in a granule.
const REGIONS: usize = 3;
/// Number of pairs that are read in one step.
const STEP: usize = SHORT_CODES_PER_WORD;

impl CodedLines<'_> {
    fn is_at_end(&self) -> bool {
        self.position >= self.end
    }

    /// Returns the next region of pairs (`big_values`) that has codes to read. Regions of zeros before it are filled.
    #[inline(always)]
    fn next_region(&mut self, books: &'static Books) -> Option<Region> {
        if self.n_regions == 0 && self.is_at_end() {
            return None;
        }
        let n_big = self.granule.n_big.min(self.n_wanted.next_multiple_of(2));
        let [first_end, second_end] = self.granule.region_ends;

        while self.n_regions < REGIONS {
            let number = self.n_regions;
            self.n_regions += 1;
            let start = self.n_lines;
            let end = [first_end, second_end, LINES][number].min(n_big);
            if end <= start {
                continue;
            }

            let Some(code) = books.pairs(self.granule.table_select[number]) else {
                // A region of zeros has no bits in the file.
                self.lines[start..end].fill(0.0);
                self.n_lines = end;
                continue;
            };
            if !self.is_at_end() {
                return Some(Region {
                    start: self.position,
                    position: self.position,
                    lines: start..end,
                    code,
                });
            }
        }
        None
    }

    /// Sets the spectral lines that were not read to zero (`rzero`).
    fn fill_up(&mut self) {
        self.lines[self.n_lines..].fill(0.0);
    }
}

impl Region {
    /// Reports whether the region has enough pairs left for a step.
    fn has_step(&self) -> bool {
        self.lines.len() >= 2 * STEP
    }

    /// Returns the next `n_lines` lines in pairs, which are then read.
    #[inline(always)]
    fn next_pairs<'a>(
        &mut self,
        n_lines: usize,
        lines: &'a mut [f32; LINES],
    ) -> &'a mut [[f32; 2]] {
        let start = self.lines.start;
        self.lines.start += n_lines;
        lines[start..start + n_lines].as_chunks_mut().0
    }
}

/// Reads the codes of pairs.
trait PairCodes: Copy {
    /// Number of codes after which the word of bits must be loaded again.
    const PER_WORD: usize;

    /// Reads the next code.
    fn read(self, bits: &mut BitReader) -> Pair;
}

/// The codes of a book, most of which are short.
#[derive(Clone, Copy)]
struct ShortCodes<'a> {
    table: &'a ShortTable,
    pairs: &'a [Pair; PAIRS],
    all: &'a AllCodes,
}

/// The codes of a book, read in two steps: a code word, then the escaped bits and the sign of each value.
#[derive(Clone, Copy)]
struct AllCodes {
    table: &'static CodeTable,
    n_more: &'static [u32; 16],
    powers: &'static Powers,
}

impl PairCodes for ShortCodes<'_> {
    const PER_WORD: usize = SHORT_CODES_PER_WORD;

    #[inline(always)]
    fn read(self, bits: &mut BitReader) -> Pair {
        let code = ShortCode::find(self.table, bits.word());
        if code.is_some() {
            bits.skip(code.n_bits());
            return self.pairs[code.pair()];
        }
        let (pair, position) = self.all.read_long(bits.bytes(), bits.position());
        *bits = BitReader::new(bits.bytes(), position);
        pair
    }
}

impl PairCodes for AllCodes {
    /// This reader is selected if two codes always fit, see [`PairCode::is_branchless`].
    const PER_WORD: usize = 2;

    #[inline(always)]
    fn read(self, bits: &mut BitReader) -> Pair {
        let code = self.table.find_first(bits.word());
        self.read_values(code, bits)
    }
}

impl AllCodes {
    /// Reads a code of any length at `position`. Returns the pair and the position after it. A new word contains the code,
    /// which has at most [`CODE_BITS_MAX`] bits.
    #[cold]
    #[inline(never)]
    fn read_long(&self, bytes: &[u8], position: usize) -> (Pair, usize) {
        let mut bits = BitReader::new(bytes, position);
        let code = self.table.find(bits.word());
        let pair = self.read_values(code, &mut bits);
        (pair, bits.position())
    }

    /// Reads what follows a code word. There are no branches, because the processor cannot predict escapes and signs from
    /// earlier codes.
    #[inline(always)]
    fn read_values(&self, code: Code, bits: &mut BitReader) -> Pair {
        bits.skip(code.n_bits());
        Pair::new(code.magnitudes().map(|magnitude| {
            let magnitude = usize::from(magnitude);
            let more = bits.next(self.n_more[magnitude]);
            self.powers[(2 * magnitude + more as usize) % POWERS]
        }))
    }
}

/// Reads pairs of two regions alternately, in steps, while both have enough of them.
#[inline(always)]
fn read_side_by_side(
    bytes: &[u8],
    [a, b]: [&mut Region; 2],
    [lines_a, lines_b]: [&mut [f32; LINES]; 2],
    codes_a: impl PairCodes,
    codes_b: impl PairCodes,
) {
    let n_steps = a.lines.len().min(b.lines.len()) / (2 * STEP);
    let mut bits_a = BitReader::new(bytes, a.position);
    let mut bits_b = BitReader::new(bytes, b.position);
    let pairs_a = a.next_pairs(n_steps * 2 * STEP, lines_a);
    let pairs_b = b.next_pairs(n_steps * 2 * STEP, lines_b);
    let steps_a = pairs_a.as_chunks_mut::<STEP>().0;
    let steps_b = pairs_b.as_chunks_mut::<STEP>().0;

    for (pairs_a, pairs_b) in steps_a.iter_mut().zip(steps_b) {
        read_step(&mut bits_a, &mut bits_b, pairs_a, pairs_b, codes_a, codes_b);
    }
    a.position = bits_a.position();
    b.position = bits_b.position();
}

/// Reads the next pairs of both regions. The compiler would not unroll a loop, in which the word would be loaded at an
/// index that it does not know.
#[inline(always)]
fn read_step<A: PairCodes, B: PairCodes>(
    bits_a: &mut BitReader,
    bits_b: &mut BitReader,
    pairs_a: &mut [[f32; 2]; STEP],
    pairs_b: &mut [[f32; 2]; STEP],
    codes_a: A,
    codes_b: B,
) {
    macro_rules! read_both {
        ($($at:literal)*) => {$(
            if $at % A::PER_WORD == 0 {
                bits_a.reload();
            }
            if $at % B::PER_WORD == 0 {
                bits_b.reload();
            }
            pairs_a[$at] = codes_a.read(bits_a).values();
            pairs_b[$at] = codes_b.read(bits_b).values();
        )*};
    }
    const { assert!(STEP == 5) };
    read_both!(0 1 2 3 4);
}

/// Reads all pairs of a region that have not been read.
#[inline(always)]
fn read_rest<C: PairCodes>(bytes: &[u8], region: &mut Region, lines: &mut [f32; LINES], codes: C) {
    let mut bits = BitReader::new(bytes, region.position);
    let pairs = region.next_pairs(region.lines.len(), lines);
    for pairs in pairs.chunks_mut(C::PER_WORD) {
        bits.reload();
        for pair in pairs {
            *pair = codes.read(&mut bits).values();
        }
    }
    region.position = bits.position();
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            books: Books::get(),
            powers: PowerTable::get(),
        }
    }

    /// Reads the spectral lines of a channel and sets the remaining ones to zero.
    #[inline(always)]
    pub(super) fn read(&self, channel: &mut CodedLines) {
        let region = channel.next_region(self.books);
        self.read_regions(channel, region);
        let quads = self.quads(channel);
        self.read_quads(channel, quads);
    }

    /// Reads two channels alternately. Each code depends on the previous one, so the processor can work on the codes of
    /// the other channel in the meantime. The regions of both need not have equal lengths.
    #[inline(always)]
    pub(super) fn read_two(&self, a: &mut CodedLines, b: &mut CodedLines) {
        let mut of_a = a.next_region(self.books);
        let mut of_b = b.next_region(self.books);
        while let (Some(region_a), Some(region_b)) = (&mut of_a, &mut of_b) {
            self.alternate(a.bytes, [region_a, region_b], [a.lines, b.lines]);
            // At least one of the regions has no step left.
            if region_a.has_step() {
                self.finish(b, region_b);
                of_b = b.next_region(self.books);
            } else {
                self.finish(a, region_a);
                of_a = a.next_region(self.books);
            }
        }
        self.read_regions(a, of_a);
        self.read_regions(b, of_b);

        let mut quads_a = self.quads(a);
        let mut quads_b = self.quads(b);
        while quads_a.has_step() && quads_b.has_step() {
            quads_a.read_step(a.bytes, a.lines);
            quads_b.read_step(b.bytes, b.lines);
        }
        self.read_quads(a, quads_a);
        self.read_quads(b, quads_b);
    }

    /// Reads the regions of a channel from `region` on.
    #[inline(always)]
    fn read_regions(&self, channel: &mut CodedLines, mut region: Option<Region>) {
        while let Some(current) = &mut region {
            self.finish(channel, current);
            region = channel.next_region(self.books);
        }
    }

    #[inline(always)]
    fn alternate(&self, bytes: &[u8], regions: [&mut Region; 2], lines: [&mut [f32; LINES]; 2]) {
        let [a, b] = regions.each_ref().map(|region| region.code);
        let (all_a, all_b) = (self.all(a), self.all(b));
        let (short_a, short_b) = (self.short(a, &all_a), self.short(b, &all_b));
        match (a.is_branchless, b.is_branchless) {
            (false, false) => read_side_by_side(bytes, regions, lines, short_a, short_b),
            (false, true) => read_side_by_side(bytes, regions, lines, short_a, all_b),
            (true, false) => read_side_by_side(bytes, regions, lines, all_a, short_b),
            (true, true) => read_side_by_side(bytes, regions, lines, all_a, all_b),
        }
    }

    /// Reads the rest of a region, after which the channel continues. If codes extend beyond the end of the bits, reads
    /// the region again up to that end. Most regions end before the bits do, so the end is checked only afterwards.
    #[inline(always)]
    fn finish(&self, channel: &mut CodedLines, region: &mut Region) {
        let all = self.all(region.code);
        if region.code.is_branchless {
            read_rest(channel.bytes, region, channel.lines, all);
        } else {
            let short = self.short(region.code, &all);
            read_rest(channel.bytes, region, channel.lines, short);
        }

        if region.position > channel.end {
            read_until_end(channel, region, &all);
        } else {
            channel.n_lines = region.lines.end;
            channel.position = region.position;
        }
    }

    #[inline(always)]
    fn all(&self, code: &'static PairCode) -> AllCodes {
        AllCodes {
            table: code.codes,
            n_more: &code.n_more,
            powers: self.powers.signed(),
        }
    }

    #[inline(always)]
    fn short<'a>(&self, code: &'static PairCode, all: &'a AllCodes) -> ShortCodes<'a> {
        ShortCodes {
            table: code.short,
            pairs: self.powers.pairs(),
            all,
        }
    }

    #[inline(always)]
    fn quads(&self, channel: &CodedLines) -> Quads {
        Quads {
            book: self.books.quads(channel.granule.uses_quads_b),
            position: channel.position,
            at: channel.n_lines,
            limit: channel.n_wanted.min(LINES - 3),
            end: channel.end,
        }
    }

    /// Reads the rest of the quadruples of a channel, and sets the lines after them to zero.
    #[inline(always)]
    fn read_quads(&self, channel: &mut CodedLines, mut quads: Quads) {
        while quads.has_step() {
            quads.read_step(channel.bytes, channel.lines);
        }
        quads.read_until_end(channel);
        channel.fill_up();
    }
}

/// Reads the pairs of a region whose codes start before the end of the channel's bits.
#[cold]
#[inline(never)]
fn read_until_end(channel: &mut CodedLines, region: &Region, codes: &AllCodes) {
    let lines = &mut channel.lines[channel.n_lines..region.lines.end];
    channel.position = region.start;
    for pair in lines.as_chunks_mut().0 {
        if channel.position >= channel.end {
            return;
        }
        let (values, position) = codes.read_long(channel.bytes, channel.position);
        *pair = values.values();
        channel.position = position;
        channel.n_lines += 2;
    }
}

/// The quadruples of values from -1 to 1 of a channel (`count1`), which follow the pairs, up to the end of the granule's bits.
struct Quads {
    book: &'static QuadBook,
    /// Index of the first bit of the next code.
    position: usize,
    /// Index of the next line.
    at: usize,
    /// All quadruples begin before this line.
    limit: usize,
    /// Index of the bit after the channel's bits.
    end: usize,
}

impl Quads {
    /// Reports whether all quadruples of a step are in the channel.
    #[inline(always)]
    fn has_step(&self) -> bool {
        self.at + 4 * (QUADS_PER_WORD - 1) < self.limit
            && self.position + BitReader::WORD_BITS as usize <= self.end
    }

    #[inline(always)]
    fn read_step(&mut self, bytes: &[u8], lines: &mut [f32; LINES]) {
        let mut bits = BitReader::new(bytes, self.position);
        for _ in 0..QUADS_PER_WORD {
            self.read(&mut bits, lines);
        }
        self.position = bits.position();
    }

    #[inline(always)]
    fn read(&mut self, bits: &mut BitReader, lines: &mut [f32; LINES]) {
        let (n_bits, values) = self.book.find(bits.word());
        bits.skip(n_bits);
        lines[self.at..self.at + 4].copy_from_slice(values);
        self.at += 4;
    }

    /// Reads the last quadruples of a channel one by one.
    #[inline(always)]
    fn read_until_end(mut self, channel: &mut CodedLines) {
        let mut n_lines = self.at;
        while self.at < self.limit && self.position < self.end {
            let mut bits = BitReader::new(channel.bytes, self.position);
            self.read(&mut bits, channel.lines);
            self.position = bits.position();
            // Encoders pad a granule with bits that are not codes. A quadruple that includes padding is discarded.
            if self.position <= self.end {
                n_lines = self.at;
            }
        }
        channel.n_lines = n_lines;
        channel.position = self.position;
    }
}
