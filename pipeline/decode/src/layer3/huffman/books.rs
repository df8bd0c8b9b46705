//! Lookup tables for Huffman codes, created once from the code words.
//!
//! A book of pairs has two tables. In that of the short codes, one lookup finds a pair with its signs: 85 % of the pairs
//! of music, and 95 % or more in all books but 24. The other table contains all codes, without the signs and escaped
//! bits that follow them.

use std::sync::LazyLock;

use super::tables::{
    PAIRS_1, PAIRS_2, PAIRS_3, PAIRS_5, PAIRS_6, PAIRS_7, PAIRS_8, PAIRS_9, PAIRS_10, PAIRS_11,
    PAIRS_12, PAIRS_13, PAIRS_15, PAIRS_16, PAIRS_24, QUADS_A, QUADS_B,
};
use crate::layer3::bits::BitReader;
use crate::layer3::requantize::{PAIRS, pair_index};

/// Number of bits of a lookup of a short code of a pair, which includes its signs.
const SHORT_BITS: u32 = 11;
/// Number of bits of the first lookup of any code of a pair. Those of book 24, most of whose values are escaped or
/// large, have at most 12 bits.
const FIRST_BITS: u32 = 12;
/// Number of bits of the second lookup: the longest codes have 19 bits.
const SECOND_BITS: u32 = 19 - FIRST_BITS;
/// Number of bits of a lookup of a quadruple, which includes its signs.
const QUAD_BITS: u32 = 10;

/// Number of short codes that always fit into a word of bits.
pub(super) const SHORT_CODES_PER_WORD: usize = (BitReader::WORD_BITS / SHORT_BITS) as usize;
/// Number of quadruples that always fit into a word of bits.
pub(super) const QUADS_PER_WORD: usize = (BitReader::WORD_BITS / QUAD_BITS) as usize;
/// Upper bound on the number of bits of a code with its escapes and signs: 19 + 2 · 13 + 2.
pub(in crate::layer3) const CODE_BITS_MAX: usize = 47;

/// The magnitude in a pair that marks an escaped value. More bits, to be added to the value, follow the code.
pub(super) const ESCAPE: u32 = 15;

/// Number of the first book with escapes.
const ESCAPES_FROM: u8 = 16;
/// The Huffman books of pairs, with their numbers in the standard.
pub(in crate::layer3) const PAIR_BOOKS: [(u8, &[u32]); 15] = [
    (1, &PAIRS_1),
    (2, &PAIRS_2),
    (3, &PAIRS_3),
    (5, &PAIRS_5),
    (6, &PAIRS_6),
    (7, &PAIRS_7),
    (8, &PAIRS_8),
    (9, &PAIRS_9),
    (10, &PAIRS_10),
    (11, &PAIRS_11),
    (12, &PAIRS_12),
    (13, &PAIRS_13),
    (15, &PAIRS_15),
    (16, &PAIRS_16),
    (24, &PAIRS_24),
];

/// Number of additional bits of an escaped value (`linbits`), by table number. Tables from 16 on share two books.
#[rustfmt::skip]
const ESCAPE_BITS: [u32; 32] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 2, 3, 4, 6, 8, 10, 13, 4, 5, 6, 7, 8, 9, 11, 13,
];

/// A Huffman code word: its bits and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::layer3) struct Word {
    pub(in crate::layer3) bits: u32,
    pub(in crate::layer3) n_bits: u32,
}

/// Returns the code words of a table in `tables.rs`, where each word follows a leading one bit.
pub(in crate::layer3) fn code_words(table: &[u32]) -> impl Iterator<Item = Word> {
    table.iter().map(|&word| {
        let n_bits = word.ilog2();
        Word {
            bits: word - (1 << n_bits),
            n_bits,
        }
    })
}

/// Returns the code words of a book of pairs, with the magnitudes that they encode.
fn pairs(table: &[u32]) -> impl Iterator<Item = (Word, [u32; 2])> {
    let side = table.len().isqrt() as u32;
    let words = (0..).zip(code_words(table));
    words.map(move |(at, word)| (word, [at / side, at % side]))
}

/// Returns a code word with each combination of the signs that may follow it, and the signed values. A value of 0 has no
/// sign bit.
fn with_signs<const N: usize>(
    word: Word,
    magnitudes: [u32; N],
) -> impl Iterator<Item = (Word, [i32; N])> {
    let n_signs = magnitudes.iter().filter(|&&value| value > 0).count() as u32;
    (0..1_u32 << n_signs).map(move |signs| {
        let mut n_left = n_signs;
        let values = magnitudes.map(|magnitude| {
            let value = magnitude as i32;
            n_left -= u32::from(value > 0);
            let is_negative = value > 0 && signs >> n_left & 1 == 1;
            if is_negative { -value } else { value }
        });
        let signed = Word {
            bits: word.bits << n_signs | signs,
            n_bits: word.n_bits + n_signs,
        };
        (signed, values)
    })
}

/// Writes `entry` to every index that starts with the bits of `word`, in a table with indices of `n_bits` bits.
fn fill<T: Copy>(table: &mut [T], n_bits: u32, word: Word, entry: T) {
    let n_free = n_bits - word.n_bits;
    let start = (word.bits as usize) << n_free;
    table[start..start + (1 << n_free)].fill(entry);
}

/// An entry of the table of short codes: in the lowest six bits the length of the code with its signs, above them the
/// index of the signed pair. Larger indices mean that the code is longer or has an escape.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortCode(u16);

/// The short codes of a book of pairs.
pub(super) type ShortTable = [ShortCode; 1 << SHORT_BITS];

impl ShortCode {
    const NONE: Self = Self(u16::MAX);

    fn new(n_bits: u32, pair: [i32; 2]) -> Self {
        Self((pair_index(pair) << 6) as u16 | n_bits as u16)
    }

    /// Looks up the code at the start of `word`.
    #[inline(always)]
    pub(super) fn find(table: &ShortTable, word: u64) -> Self {
        table[(word >> (u64::BITS - SHORT_BITS)) as usize]
    }

    /// Reports whether the code is in the table.
    #[inline(always)]
    pub(super) fn is_some(self) -> bool {
        self.0 < (PAIRS << 6) as u16
    }

    /// Returns the number of bits of the code in the lowest six bits, below other bits.
    #[inline(always)]
    pub(super) fn n_bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Returns the index of the signed pair.
    #[inline(always)]
    pub(super) fn pair(self) -> usize {
        usize::from(self.0 >> 6)
    }
}

/// Creates the table of short codes of a book. Codes with escapes are not in it: their signs come after the escaped bits.
fn short_codes(words: &[u32], has_escapes: bool) -> Box<ShortTable> {
    let mut short = Box::new([ShortCode::NONE; 1 << SHORT_BITS]);
    for (word, magnitudes) in pairs(words) {
        if has_escapes && magnitudes.contains(&ESCAPE) {
            continue;
        }
        for (word, pair) in with_signs(word, magnitudes) {
            if word.n_bits <= SHORT_BITS {
                let entry = ShortCode::new(word.n_bits, pair);
                fill(&mut short[..], SHORT_BITS, word, entry);
            }
        }
    }
    short
}

/// An entry of the table of all codes: in the lowest six bits the length of the code word, and in the highest eight bits
/// the magnitudes. If the length is 0, the bits above it are the index of a second table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Code(u16);

impl Code {
    fn new(n_bits: u32, [x, y]: [u32; 2]) -> Self {
        Self((x << 12 | y << 8 | n_bits) as u16)
    }

    fn link(second: usize) -> Self {
        Self((second << 6) as u16)
    }

    /// Returns the number of bits of the code word in the lowest six bits, below other bits.
    #[inline(always)]
    pub(super) fn n_bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Returns the magnitude of each value, up to 15.
    #[inline(always)]
    pub(super) fn magnitudes(self) -> [u16; 2] {
        [self.0 >> 12, self.0 >> 8 & 15]
    }
}

/// All codes of a book of pairs.
#[derive(Debug)]
pub(super) struct CodeTable {
    first: [Code; 1 << FIRST_BITS],
    /// The rests of codes that are longer than the first lookup, by link. No link refers to the first of these tables.
    second: Vec<[Code; 1 << SECOND_BITS]>,
}

impl CodeTable {
    fn new(words: &[u32]) -> Self {
        let mut codes = Self {
            first: [Code::default(); 1 << FIRST_BITS],
            second: vec![[Code::default(); 1 << SECOND_BITS]],
        };
        for (word, magnitudes) in pairs(words) {
            let code = Code::new(word.n_bits, magnitudes);
            if word.n_bits <= FIRST_BITS {
                fill(&mut codes.first[..], FIRST_BITS, word, code);
            } else {
                let n_rest = word.n_bits - FIRST_BITS;
                let rest = Word {
                    bits: word.bits & ((1 << n_rest) - 1),
                    n_bits: n_rest,
                };
                let second = codes.second_table((word.bits >> n_rest) as usize);
                fill(second, SECOND_BITS, rest, code);
            }
        }
        codes
    }

    /// Returns the second table of the codes that begin with the bits of `first`, which is created for the first of them.
    fn second_table(&mut self, first: usize) -> &mut [Code] {
        let link = &mut self.first[first];
        if link.0 == 0 {
            *link = Code::link(self.second.len());
            self.second.push([Code::default(); 1 << SECOND_BITS]);
        }
        &mut self.second[usize::from(link.0 >> 6)]
    }

    /// Looks up the code at the start of `word`, which must not be longer than the first lookup.
    #[inline(always)]
    pub(super) fn find_first(&self, word: u64) -> Code {
        self.first[(word >> (u64::BITS - FIRST_BITS)) as usize]
    }

    /// Looks up the code at the start of `word`.
    #[inline(always)]
    pub(super) fn find(&self, word: u64) -> Code {
        let code = self.find_first(word);
        if !code.0.is_multiple_of(64) {
            return code;
        }
        let rest = word << FIRST_BITS >> (u64::BITS - SECOND_BITS);
        self.second[usize::from(code.0 >> 6)][rest as usize]
    }
}

/// A Huffman book of pairs with its lookup tables.
#[derive(Debug)]
struct Book {
    number: u8,
    words: &'static [u32],
    short: Box<ShortTable>,
    codes: Box<CodeTable>,
}

impl Book {
    fn new(number: u8, words: &'static [u32]) -> Self {
        Self {
            number,
            words,
            short: short_codes(words, number >= ESCAPES_FROM),
            codes: Box::new(CodeTable::new(words)),
        }
    }

    /// Returns the book with this number in the standard; `None` for numbers without a book.
    fn get(number: u8) -> Option<&'static Self> {
        static BOOKS: LazyLock<[Book; 15]> =
            LazyLock::new(|| PAIR_BOOKS.map(|(number, words)| Book::new(number, words)));
        BOOKS.iter().find(|book| book.number == number)
    }
}

/// The lookup tables for a table number of the standard (`table_select`).
#[derive(Debug)]
pub(super) struct PairCode {
    pub(super) short: &'static ShortTable,
    pub(super) codes: &'static CodeTable,
    /// Number of bits that follow the code word for each value, by magnitude: a sign, unless the value is 0, and escaped
    /// bits.
    pub(super) n_more: [u32; 16],
    /// True if codes have escapes and can be read without branches: the first lookup finds each of them, and two of them
    /// always fit into a word with the bits that follow. This is so for book 24, unless it has 13 escaped bits.
    pub(super) is_branchless: bool,
}

impl PairCode {
    /// Returns the tables for a table number, or `None` for table 0, which contains only zeros, and two unused numbers.
    fn new(select: usize) -> Option<Self> {
        let book = Book::get(match select {
            16..24 => 16,
            24.. => 24,
            _ => select as u8,
        })?;
        let mut n_more = [1; 16];
        n_more[0] = 0;
        n_more[ESCAPE as usize] += ESCAPE_BITS[select];

        let mut is_branchless = book.number >= ESCAPES_FROM;
        for (word, magnitudes) in pairs(book.words) {
            let [x, y] = magnitudes.map(|value| n_more[value as usize]);
            let fits = 2 * (word.n_bits + x + y) <= BitReader::WORD_BITS;
            is_branchless &= word.n_bits <= FIRST_BITS && fits;
        }
        Some(Self {
            short: &book.short,
            codes: &book.codes,
            n_more,
            is_branchless,
        })
    }
}

/// A Huffman book of quadruples of values from -1 to 1. One lookup finds a quadruple with its signs.
#[derive(Debug)]
pub(super) struct QuadBook {
    /// In the lowest six bits the number of bits of the code with its signs, above them the index of the quadruple.
    codes: Box<[u16; 1 << QUAD_BITS]>,
    /// The 81 quadruples; the table has more rows so that any index of seven bits is valid.
    quads: [[f32; 4]; 1 << 7],
}

impl QuadBook {
    fn new(table: &[u32; 16]) -> Self {
        let mut book = Self {
            codes: Box::new([0; 1 << QUAD_BITS]),
            quads: [[0.0; 4]; 1 << 7],
        };
        for (at, word) in (0_u32..).zip(code_words(table)) {
            let magnitudes = [3, 2, 1, 0].map(|bit| at >> bit & 1);
            for (word, quad) in with_signs(word, magnitudes) {
                let index = quad.iter().fold(0, |index, value| 3 * index + value + 1) as usize;
                book.quads[index] = quad.map(|value| value as f32);
                let entry = (index << 6) as u16 | word.n_bits as u16;
                fill(&mut book.codes[..], QUAD_BITS, word, entry);
            }
        }
        book
    }

    /// Looks up the code at the start of `word`. Returns its number of bits, below other bits, and its values.
    #[inline(always)]
    pub(super) fn find(&self, word: u64) -> (u32, &[f32; 4]) {
        let code = self.codes[(word >> (u64::BITS - QUAD_BITS)) as usize];
        (u32::from(code), &self.quads[usize::from(code >> 6) % 128])
    }
}

/// All Huffman books of pairs and quadruples.
#[derive(Debug)]
pub(super) struct Books {
    pairs: [Option<PairCode>; 32],
    quads: [QuadBook; 2],
}

impl Books {
    /// Returns all Huffman books, which are created together with the first decoder.
    pub(super) fn get() -> &'static Self {
        static BOOKS: LazyLock<Books> = LazyLock::new(|| Books {
            pairs: std::array::from_fn(PairCode::new),
            quads: [QuadBook::new(&QUADS_A), QuadBook::new(&QUADS_B)],
        });
        &BOOKS
    }

    /// Returns the tables of pairs for a table number; `None` if all values are zero.
    #[inline(always)]
    pub(super) fn pairs(&self, select: u8) -> Option<&PairCode> {
        self.pairs[usize::from(select % 32)].as_ref()
    }

    /// Returns the second book of quadruples if `is_second`, otherwise the first one.
    pub(super) fn quads(&self, is_second: bool) -> &QuadBook {
        &self.quads[usize::from(is_second)]
    }
}
