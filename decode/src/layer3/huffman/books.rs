//! Lookup tables for Huffman codes, created once from the code words.

use std::sync::LazyLock;

use super::tables::{
    PAIRS_1, PAIRS_2, PAIRS_3, PAIRS_5, PAIRS_6, PAIRS_7, PAIRS_8, PAIRS_9, PAIRS_10, PAIRS_11,
    PAIRS_12, PAIRS_13, PAIRS_15, PAIRS_16, PAIRS_24, QUADS_A, QUADS_B,
};

/// Number of bits of the first table lookup. Each book's most frequent codes fit into them, including signs.
const FIRST_BITS: u32 = 10;
const FIRST_ENTRIES: usize = 1 << FIRST_BITS;
/// Number of short Huffman codes that always fit into the 57 valid bits of a word. A short code needs only one lookup.
pub(super) const SHORT_CODES_PER_WORD: u32 = 57 / FIRST_BITS;

/// Upper bound on the number of bits of a code with its escapes and signs: 19 + 2 · 13 + 2.
pub(in crate::layer3) const CODE_BITS_MAX: usize = 47;

/// The magnitude in a pair that marks an escaped value. More bits, to be added to the value, follow the code.
pub(super) const ESCAPE: u32 = 15;

/// The Huffman books of pairs, with their numbers in the standard. Books from 16 on have escapes.
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

/// Number of additional bits of an escaped value, by table number. Tables from 16 on share two books.
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

/// An entry of a lookup table: both values of a pair and the number of bits of their code, or a link to a second table.
///
/// From the lowest bits on, an entry consists of 8 bits for the length, 8 bits for each value, and two flags. Signed
/// values are stored with [`Entry::ZERO`] added. In a link, the length is that of the second lookup, and the values are
/// the start of the second table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry(u32);

impl Entry {
    const ZERO: i32 = 16;
    const IS_ESCAPE: u32 = 1 << 24;
    const IS_LINK: u32 = 1 << 25;

    fn pair(n_bits: u32, x: i32, y: i32) -> Self {
        Self(n_bits | ((x + Self::ZERO) as u32) << 8 | ((y + Self::ZERO) as u32) << 16)
    }

    fn escape(n_bits: u32, x: u32, y: u32) -> Self {
        Self(n_bits | x << 8 | y << 16 | Self::IS_ESCAPE)
    }

    fn link(n_bits: u32, start: usize) -> Self {
        Self(n_bits | (start as u32) << 8 | Self::IS_LINK)
    }

    #[inline(always)]
    pub(super) fn n_bits(self) -> u32 {
        self.0 & 0xFF
    }

    /// Reports whether the code needs only the first lookup and has no escape.
    #[inline(always)]
    pub(super) fn is_short(self) -> bool {
        self.0 & (Self::IS_ESCAPE | Self::IS_LINK) == 0
    }

    /// Reports whether the code continues in a second lookup table.
    #[inline(always)]
    pub(super) fn is_link(self) -> bool {
        self.0 & Self::IS_LINK != 0
    }

    #[inline(always)]
    pub(super) fn is_escape(self) -> bool {
        self.0 & Self::IS_ESCAPE != 0
    }

    /// Returns both values of the pair plus 16, each below 32.
    #[inline(always)]
    pub(super) fn signed(self) -> (usize, usize) {
        ((self.0 >> 8 & 31) as usize, (self.0 >> 16 & 31) as usize)
    }

    /// Returns both values of an escape entry, without their signs.
    #[inline(always)]
    pub(super) fn magnitudes(self) -> [u32; 2] {
        [self.0 >> 8 & 31, self.0 >> 16 & 31]
    }
}

/// The lookup tables of a Huffman book of pairs.
#[derive(Debug)]
pub(super) struct Book {
    first: Box<[Entry; FIRST_ENTRIES]>,
    second: Vec<Entry>,
}

impl Book {
    /// Looks up the code at the start of `word`, from the word's highest bit on. Returns the code's entry or a link.
    #[inline(always)]
    pub(super) fn first(&self, word: u64) -> Entry {
        self.first[first_index(word)]
    }

    /// Looks up a code that is longer than the first table covers, in the second table that `link` refers to.
    #[inline(always)]
    pub(super) fn second(&self, word: u64, link: Entry) -> Entry {
        let start = (link.0 >> 8 & 0xFFFF) as usize;
        let rest = word << FIRST_BITS >> (64 - link.n_bits());
        // Every link has a second table, so the default is never returned.
        self.second
            .get(start + rest as usize)
            .copied()
            .unwrap_or_default()
    }

    fn new(table: &[u32], has_escapes: bool) -> Self {
        let codes = signed_codes(table, has_escapes);
        let mut book = Self {
            first: Box::new([Entry::default(); FIRST_ENTRIES]),
            second: Vec::new(),
        };

        for code in codes.iter().filter(|code| code.word.n_bits <= FIRST_BITS) {
            fill(&mut book.first[..], FIRST_BITS, code.word, code.entry);
        }

        // Create a second table for every prefix that longer codes share, as wide as the longest of these codes needs.
        for beginning in 0..FIRST_ENTRIES {
            // Skip entries of complete short codes: no longer code starts with such a code.
            if book.first[beginning].n_bits() > 0 {
                continue;
            }

            let shares = |code: &&Code| {
                let rest = code.word.n_bits.saturating_sub(FIRST_BITS);
                rest > 0 && code.word.bits >> rest == beginning as u32
            };
            let n_bits = codes
                .iter()
                .filter(shares)
                .map(|code| code.word.n_bits)
                .max();
            let Some(n_bits) = n_bits.map(|n_bits| n_bits - FIRST_BITS) else {
                continue;
            };
            let start = book.second.len();
            book.second.resize(start + (1 << n_bits), Entry::default());
            book.first[beginning] = Entry::link(n_bits, start);

            for code in codes.iter().filter(shares) {
                let rest = code.word.n_bits - FIRST_BITS;
                let word = Word {
                    bits: code.word.bits & ((1 << rest) - 1),
                    n_bits: rest,
                };
                fill(&mut book.second[start..], n_bits, word, code.entry);
            }
        }
        book
    }
}

/// Returns the highest `n_bits` bits of a word.
#[inline(always)]
fn first_index(word: u64) -> usize {
    (word >> (u64::BITS - FIRST_BITS)) as usize
}

/// A Huffman code with its signs, and its table entry.
struct Code {
    word: Word,
    entry: Entry,
}

/// Returns every code word of a table with all signs that may follow it. After an escape the signs come later, so they
/// are left out.
fn signed_codes(table: &[u32], has_escapes: bool) -> Vec<Code> {
    let side = table.len().isqrt() as u32;
    let mut codes = Vec::new();
    for (at, word) in (0..).zip(code_words(table)) {
        let x = at / side;
        let y = at % side;
        if has_escapes && (x == ESCAPE || y == ESCAPE) {
            let entry = Entry::escape(word.n_bits, x, y);
            codes.push(Code { word, entry });
            continue;
        }

        // A value of 0 has no sign bit.
        let n_signs = u32::from(x > 0) + u32::from(y > 0);
        for signs in 0..1 << n_signs {
            let x_is_negative = x > 0 && signs >> (n_signs - 1) & 1 == 1;
            let y_is_negative = y > 0 && signs & 1 == 1;
            let word = Word {
                bits: word.bits << n_signs | signs,
                n_bits: word.n_bits + n_signs,
            };
            let sign = |value: u32, is_negative: bool| {
                if is_negative {
                    -(value as i32)
                } else {
                    value as i32
                }
            };
            let entry = Entry::pair(word.n_bits, sign(x, x_is_negative), sign(y, y_is_negative));
            codes.push(Code { word, entry });
        }
    }
    codes
}

/// Writes `entry` to every index that starts with the bits of `word`, in a table with indices of `n_bits` bits.
fn fill<T: Copy>(table: &mut [T], n_bits: u32, word: Word, entry: T) {
    let n_free = n_bits - word.n_bits;
    let start = (word.bits as usize) << n_free;
    table[start..start + (1 << n_free)].fill(entry);
}

/// Four values of -1, 0 or 1 that one Huffman code encodes, and the number of bits of that code.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quad {
    values: [i8; 4],
    n_bits: u8,
}

impl Quad {
    #[inline(always)]
    pub(super) fn n_bits(self) -> u32 {
        u32::from(self.n_bits)
    }

    #[inline(always)]
    pub(super) fn values(self) -> [f32; 4] {
        self.values.map(f32::from)
    }
}

/// A Huffman book of quadruples. All its codes fit into the first lookup, including their signs.
#[derive(Debug)]
pub(super) struct QuadBook(Box<[Quad; FIRST_ENTRIES]>);

impl QuadBook {
    #[inline(always)]
    pub(super) fn find(&self, word: u64) -> Quad {
        self.0[first_index(word)]
    }

    fn new(table: &[u32; 16]) -> Self {
        let mut entries = Box::new([Quad::default(); FIRST_ENTRIES]);

        for (magnitudes, word) in (0_u32..).zip(code_words(table)) {
            let n_signs = magnitudes.count_ones();
            for signs in 0..1_u32 << n_signs {
                let mut n_signs_left = n_signs;

                let values = std::array::from_fn(|at| {
                    if magnitudes >> (3 - at) & 1 == 0 {
                        return 0;
                    }
                    n_signs_left -= 1;
                    if signs >> n_signs_left & 1 == 1 {
                        -1
                    } else {
                        1
                    }
                });

                let signed = Word {
                    bits: word.bits << n_signs | signs,
                    n_bits: word.n_bits + n_signs,
                };
                let quad = Quad {
                    values,
                    n_bits: signed.n_bits as u8,
                };
                fill(&mut entries[..], FIRST_BITS, signed, quad);
            }
        }
        Self(entries)
    }
}

/// All Huffman books of pairs and quadruples.
#[derive(Debug)]
pub(super) struct Books {
    /// Index in `pairs` of the book for each table number.
    by_select: [Option<usize>; 32],
    pairs: Vec<Book>,
    quads: [QuadBook; 2],
}

impl Books {
    /// Returns all Huffman books, which are created together with the first decoder.
    pub(super) fn get() -> &'static Self {
        static BOOKS: LazyLock<Books> = LazyLock::new(Books::new);
        &BOOKS
    }

    fn new() -> Self {
        let by_select = std::array::from_fn(|select| {
            // Table 0 contains only zeros, and two of the table numbers are unused.
            let number = match select {
                16..24 => 16,
                24.. => 24,
                _ => select as u8,
            };
            PAIR_BOOKS.iter().position(|(known, _)| *known == number)
        });
        Self {
            by_select,
            pairs: PAIR_BOOKS
                .iter()
                .map(|(number, table)| Book::new(table, *number >= 16))
                .collect(),
            quads: [QuadBook::new(&QUADS_A), QuadBook::new(&QUADS_B)],
        }
    }

    /// Returns the book of pairs and the number of escape bits for a table number; `None` if all values are zero.
    pub(super) fn pairs(&self, select: u8) -> Option<(&Book, u32)> {
        let select = usize::from(select % 32);
        let book = self.by_select[select]?;
        Some((&self.pairs[book], ESCAPE_BITS[select]))
    }

    /// Returns the second book of quadruples if `is_second`, otherwise the first one.
    pub(super) fn quads(&self, is_second: bool) -> &QuadBook {
        &self.quads[usize::from(is_second)]
    }
}
