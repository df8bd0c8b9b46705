//! Reads code books of a Vorbis set-up header (Vorbis I §3.2), and computes the memory symphonia allocates for them.

use symphonia::core::io::{BitReaderRtl, ReadBitsRtl};

use super::setup::{Fault, ilog};

/// Sync pattern "BCV" at the start of a Vorbis code book.
const SYNC: u32 = 0x56_4342;
/// Maximum length of a Vorbis code word, in bits.
const CODE_BITS_MAX: u32 = 32;
/// Limits of symphonia on a code book. libvorbis's encoder has up to 6,561 entries, 3⁸ in eight dimensions.
const ENTRIES_MAX: u32 = 128 * 1024;
const DIMENSIONS_MAX: u32 = 32;
/// Maximum size of all code books of a set-up header, in bytes of symphonia's tables. The largest books of libvorbis,
/// for 8 to 96 kHz, mono and stereo, at all qualities, take 4.7 MB by the same count.
pub(super) const BOOKS_BYTES_MAX: u64 = 8 << 20;

/// Memory per code book entry while its table is built: code length, number, code word, and position in the tree.
const ENTRY_BYTES: u64 = 64;
/// symphonia's tables decode eight bits at a time with 256 slots of 8 bytes, in addition to a node of the code tree.
const TABLE_BITS: u32 = 8;
const TABLE_BYTES: u64 = 256 * 8 + 256;
/// Bytes per vector value, and per number from which values are computed (in a `Vec` that grows by doubling).
const VALUE_BYTES: u64 = 4;
const MULTIPLICAND_BYTES: u64 = 4;

/// Properties of a code book that later parts of the set-up header depend on, and its memory use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Book {
    /// Number of values of a vector, and of classes of a residue that one entry stands for.
    pub n_dimensions: u32,
    /// Number of entries in the code book.
    pub n_entries: u32,
    /// True if an entry of the book has a code word.
    pub is_used: bool,
    /// True if the entries of the book are vectors.
    pub has_vectors: bool,
    /// Upper bound on the memory that symphonia allocates for the code book, in bytes.
    pub bytes: u64,
}

/// Summary of the code word lengths of a code book.
#[derive(Clone, Copy, Debug, Default)]
struct Codes {
    n: u64,
    /// Kraft sum of the code words: Σ 2³²⁻ˡᵉⁿᵍᵗʰ.
    kraft: u64,
    /// Numbers of code words longer than 8, 16 and 24 bits.
    n_longer: [u64; 3],
    longest: u32,
}

impl Codes {
    fn add(&mut self, bits: u32, n: u32) -> Result<(), Fault> {
        if n == 0 {
            return Ok(());
        }
        if bits > CODE_BITS_MAX {
            return Err(Fault::broken(format!(
                "a code word of {bits} bits, at most {CODE_BITS_MAX}"
            )));
        }

        // These sums cannot overflow: at most 2¹⁷ entries add at most 2³¹ each.
        let n = u64::from(n);
        self.n += n;
        self.kraft += n << (CODE_BITS_MAX - bits);
        self.longest = self.longest.max(bits);
        for (n_longer, table_bits) in
            self.n_longer
                .iter_mut()
                .zip([TABLE_BITS, 2 * TABLE_BITS, 3 * TABLE_BITS])
        {
            if bits > table_bits {
                *n_longer += n;
            }
        }
        Ok(())
    }

    /// Checks that the code words form a complete tree: every sequence of bits starts with exactly one code word.
    ///
    /// Vorbis assigns to each entry, in order, the lowest free code word, so the lengths determine the result. A book
    /// with one entry is also allowed if the length of its code word is 1 (erratum of 26 February 2015).
    fn check(&self) -> Result<(), Fault> {
        let is_single = self.n == 1 && self.longest == 1;
        if self.n == 0 || is_single || self.kraft == 1 << CODE_BITS_MAX {
            return Ok(());
        }
        let which = if self.kraft > 1 << CODE_BITS_MAX {
            "too many"
        } else {
            "too few"
        };
        Err(Fault::broken(format!("{which} code words for a tree")))
    }

    /// Returns the size of symphonia's tables in bytes: a root table, and one at each branch to longer code words. Each
    /// of the latter has at least two code words below it.
    fn table_bytes(&self) -> u64 {
        let mut n_tables = 1;
        for (&n_longer, level) in self.n_longer.iter().zip(1..) {
            let n_slots_above = 1 << (TABLE_BITS * level);
            // The number of tables is also limited by the number of table slots for the bits before.
            n_tables += (n_longer / 2).min(n_slots_above);
        }
        n_tables * TABLE_BYTES
    }
}

impl Book {
    pub(super) fn read(bits: &mut BitReaderRtl) -> Result<Self, Fault> {
        if bits.read_bits_leq32(24)? != SYNC {
            return Err(Fault::broken("it does not begin like one"));
        }

        let n_dimensions = bits.read_bits_leq32(16)?;
        let n_entries = bits.read_bits_leq32(24)?;
        if n_dimensions == 0 {
            return Err(Fault::broken("it has no dimension"));
        }
        if n_dimensions > DIMENSIONS_MAX || n_entries > ENTRIES_MAX {
            let limit = format!("at most {ENTRIES_MAX} of {DIMENSIONS_MAX}");
            return Err(Fault::too_large(format!(
                "{n_entries} entries of {n_dimensions} dimensions, {limit}"
            )));
        }

        let codes = read_codes(bits, n_entries)?;
        codes.check()?;
        let vector_bytes = read_vectors(bits, n_entries, n_dimensions)?;

        let bytes = codes.n.max(1) * ENTRY_BYTES + codes.table_bytes() + vector_bytes.unwrap_or(0);
        let has_vectors = vector_bytes.is_some();
        Ok(Self {
            n_dimensions,
            n_entries,
            is_used: codes.n > 0,
            has_vectors,
            bytes,
        })
    }
}

fn read_codes(bits: &mut BitReaderRtl, n_entries: u32) -> Result<Codes, Fault> {
    let mut codes = Codes::default();

    let is_ordered = bits.read_bool()?;
    if is_ordered {
        // The header states how many entries have each code length, in ascending order, for all entries.
        let mut length = bits.read_bits_leq32(5)? + 1;
        let mut n_left = n_entries;
        while n_left > 0 {
            let n = bits.read_bits_leq32(ilog(n_left))?;
            let Some(left) = n_left.checked_sub(n) else {
                return Err(Fault::broken("more code words than entries"));
            };
            // Check the length even if no entry has this length, because symphonia counts lengths in a byte.
            if length > CODE_BITS_MAX {
                return Err(Fault::broken(format!(
                    "a code word of {length} bits, at most {CODE_BITS_MAX}"
                )));
            }

            codes.add(length, n)?;
            length += 1;
            n_left = left;
        }
        return Ok(codes);
    }

    let is_sparse = bits.read_bool()?;
    for _ in 0..n_entries {
        // Skip entries without a code word.
        if is_sparse && !bits.read_bool()? {
            continue;
        }
        codes.add(bits.read_bits_leq32(5)? + 1, 1)?;
    }
    Ok(codes)
}

/// Skips the vectors of a code book. Returns the bytes that symphonia allocates for them; `None` without vectors.
fn read_vectors(
    bits: &mut BitReaderRtl,
    n_entries: u32,
    n_dimensions: u32,
) -> Result<Option<u64>, Fault> {
    let lookup = bits.read_bits_leq32(4)?;
    if lookup == 0 {
        return Ok(None);
    }

    // All 32-bit values are valid numbers in Vorbis's own float format (§9.2.2).
    let _least = bits.read_bits_leq32(32)?;
    let _step = bits.read_bits_leq32(32)?;
    let value_bits = bits.read_bits_leq32(4)? + 1;
    let _is_sequence = bits.read_bool()?;

    // These products fit: at most 2¹⁷ entries of 2⁵ dimensions, with values of 2⁴ bits.
    let n_values = n_entries * n_dimensions;
    let n_multiplicands = match lookup {
        1 => lattice(n_entries, n_dimensions)?,
        2 => n_values,
        _ => return Err(Fault::broken("vectors of a type that does not exist")),
    };
    bits.ignore_bits(n_multiplicands * value_bits)?;
    Ok(Some(
        u64::from(n_values) * VALUE_BYTES + u64::from(n_multiplicands) * MULTIPLICAND_BYTES,
    ))
}

/// Returns the largest integer that, to the power of `n_dimensions`, is at most `n_entries` (Vorbis I §9.2.3).
fn lattice(n_entries: u32, n_dimensions: u32) -> Result<u32, Fault> {
    let mut side = symphonia_lattice(n_entries, n_dimensions);

    // symphonia computes this root in f32. If the result is too large, symphonia panics; if it is too small, symphonia
    // reads the rest of the header at the wrong position.
    if !lattice_fits(side, n_entries, n_dimensions) {
        side -= 1;
    } else if lattice_fits(side + 1, n_entries, n_dimensions) {
        side += 1;
    }
    if side != symphonia_lattice(n_entries, n_dimensions) {
        return Err(Fault::unsupported(format!(
            "a lattice of {n_entries} entries in {n_dimensions} dimensions"
        )));
    }
    Ok(side)
}

fn lattice_fits(side: u32, n_entries: u32, n_dimensions: u32) -> bool {
    let power = side.checked_pow(n_dimensions);
    power.is_some_and(|power| power <= n_entries)
}

/// Computes the number of values per dimension as symphonia does, in f32.
fn symphonia_lattice(n_entries: u32, n_dimensions: u32) -> u32 {
    (n_entries as f32).powf(1.0 / n_dimensions as f32).floor() as u32
}

/// All code books of a Vorbis set-up header.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    books: Vec<Book>,
    bytes: u64,
}

impl Books {
    /// Adds a code book if the total size stays within the limit.
    pub(super) fn add(&mut self, book: Book) -> Result<(), Fault> {
        self.bytes += book.bytes;
        if self.bytes > BOOKS_BYTES_MAX {
            let limit = BOOKS_BYTES_MAX >> 20;
            return Err(Fault::too_large(format!(
                "code books that take more than {limit} MiB"
            )));
        }
        self.books.push(book);
        Ok(())
    }

    /// Returns an upper bound on the memory that symphonia allocates for all books, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns a code book that is used for decoding. Fails without entries: symphonia's table would be empty.
    pub(super) fn with_entries(&self, number: u32) -> Result<&Book, Fault> {
        let book = self.books.get(number as usize);
        let book =
            book.ok_or_else(|| Fault::broken(format!("code book {number} is used and not there")))?;
        if !book.is_used {
            return Err(Fault::broken(format!(
                "code book {number} is used and has no entry"
            )));
        }
        Ok(book)
    }

    /// Returns a code book whose vectors are used. Fails if the book has no vectors.
    pub(super) fn with_vectors(&self, number: u32) -> Result<&Book, Fault> {
        let book = self.with_entries(number)?;
        if !book.has_vectors {
            return Err(Fault::broken(format!(
                "code book {number} is used for vectors and has none"
            )));
        }
        Ok(book)
    }
}
