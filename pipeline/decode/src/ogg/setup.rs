//! Reads the whole Vorbis set-up header (Vorbis I §4.2.4) and checks it before symphonia receives the header.
//!
//! symphonia's codec does not check a header sufficiently: code words longer than 32 bits, books without entries,
//! floors with two points at the same position and similar errors make it panic, and its code books take as much memory
//! as the header demands. A header that passes these checks can cause neither. The rules are those of the specification
//! and of libvorbis, the reference decoder. Comments mark the places where symphonia allows less.

use std::io;

use symphonia::core::io::{BitReaderRtl, ReadBitsRtl};
use wavemill_schemas::reject::{Reason, Reject};

use super::super::reject;
use super::books::{Book, Books};
use super::headers::Ident;

/// Maximum size of a set-up header, in bytes. Those of libvorbis, for 8 to 96 kHz, mono and stereo, at all qualities,
/// have 2.5 to 4.2 kB.
pub(super) const SETUP_BYTES_MAX: usize = 1 << 16;
/// symphonia counts code books in a byte, so 256 books would count as none. libvorbis's encoder writes up to 44 books.
const BOOKS_MAX: u32 = 255;
/// Maximum number of books of a floor of type 0. With 16 books symphonia would index a list of 16 by a five-bit number.
const FLOOR0_BOOKS_MAX: u32 = 15;
/// Maximum number of points of a floor, including both ends (Vorbis I §7.2.2).
const FLOOR1_POINTS_MAX: usize = 65;
/// Maximum number of entries of a book whose entry numbers are the heights of a floor's points. symphonia multiplies
/// differences of such heights by distances below 2¹⁵ in 32 bits: (2¹⁵ + 2⁸) · 2¹⁵ fits. A height is below 256 in valid
/// streams.
const FLOOR1_BOOK_ENTRIES_MAX: u32 = 1 << 15;

/// Reason why a set-up header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    reason: Reason,
    what: String,
}

impl Fault {
    /// The header would take more memory than the headers of all known encoders.
    pub(super) fn too_large(what: String) -> Self {
        let reason = Reason::TooLarge;
        Self { reason, what }
    }

    /// The set-up header is not valid Vorbis I.
    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self {
            reason: Reason::Damaged,
            what: what.into(),
        }
    }

    /// symphonia cannot read this set-up header.
    pub(super) fn unsupported(what: String) -> Self {
        let reason = Reason::UnsupportedCodec;
        Self { reason, what }
    }
}

impl From<io::Error> for Fault {
    /// Converts the error of a bit reader that has reached the end of the header.
    fn from(_: io::Error) -> Self {
        Self::broken("it is cut short")
    }
}

/// Returns the number of bits needed to store `x`: 0 for 0, 3 for 7 (Vorbis I §9.2.1).
pub(super) fn ilog(x: u32) -> u32 {
    u32::BITS - x.leading_zeros()
}

/// Modes of a Vorbis stream, which determine which audio packets have long blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modes {
    /// Number of modes, 1 to 64.
    pub n: u32,
    /// Bit mask with one bit for each mode, set if packets of that mode have long blocks.
    pub are_long: u64,
}

/// Properties of a set-up header that passed all checks, so that symphonia may read it safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub modes: Modes,
    /// Upper bound on the size of the code books in symphonia's tables, in bytes.
    pub books_bytes: u64,
}

/// Reads a Vorbis set-up header, including its signature.
///
/// # Errors
/// A [`Reject`]: `too_large` if a limit is exceeded, `damaged` if the specification does not allow the header,
/// `unsupported_codec` if symphonia does not.
pub(super) fn parse(packet: &[u8], ident: &Ident) -> Result<Setup, Reject> {
    read(packet, ident).map_err(|Fault { reason, what }| {
        reject(reason, format!("set-up header of Vorbis: {what}"))
    })
}

fn read(packet: &[u8], ident: &Ident) -> Result<Setup, Fault> {
    if packet.len() > SETUP_BYTES_MAX {
        return Err(Fault::too_large(format!(
            "{} bytes, at most {SETUP_BYTES_MAX}",
            packet.len()
        )));
    }

    // The caller has checked the packet type and the signature.
    let mut bits = BitReaderRtl::new(packet.get(7..).unwrap_or_default());

    let books = read_books(&mut bits)?;
    read_times(&mut bits)?;
    let n_floors = read_floors(&mut bits, &books)?;
    let residues = read_residues(&mut bits, &books)?;
    let mappings = read_mappings(&mut bits, ident.n_channels, n_floors, residues.len() as u32)?;
    let modes = read_modes(&mut bits, |is_long, mapping| {
        let exponent = if is_long {
            ident.long_exponent
        } else {
            ident.short_exponent
        };
        let mapping = mappings.get(mapping as usize);
        let mapping =
            mapping.ok_or_else(|| Fault::broken("a mode with a mapping that does not exist"))?;
        mapping.check(&residues, (1 << exponent) / 2)
    })?;

    if !bits.read_bool()? {
        return Err(Fault::broken("its last bit is not set"));
    }
    Ok(Setup {
        modes,
        books_bytes: books.bytes(),
    })
}

fn read_books(bits: &mut BitReaderRtl) -> Result<Books, Fault> {
    let n_books = bits.read_bits_leq32(8)? + 1;
    if n_books > BOOKS_MAX {
        return Err(Fault::too_large(format!(
            "{n_books} code books, at most {BOOKS_MAX}"
        )));
    }

    let mut books = Books::default();
    for number in 0..n_books {
        let book = Book::read(bits).map_err(|fault| Fault {
            what: format!("code book {number}: {}", fault.what),
            ..fault
        })?;
        books.add(book)?;
    }
    Ok(books)
}

/// Reads the time domain transforms of a set-up header. Vorbis I reserves them and defines none.
fn read_times(bits: &mut BitReaderRtl) -> Result<(), Fault> {
    let n_times = bits.read_bits_leq32(6)? + 1;
    for _ in 0..n_times {
        if bits.read_bits_leq32(16)? != 0 {
            return Err(Fault::broken("a time domain transform that does not exist"));
        }
    }
    Ok(())
}

fn read_floors(bits: &mut BitReaderRtl, books: &Books) -> Result<u32, Fault> {
    let n_floors = bits.read_bits_leq32(6)? + 1;
    for _ in 0..n_floors {
        match bits.read_bits_leq32(16)? {
            0 => read_floor0(bits, books)?,
            1 => read_floor1(bits, books)?,
            _ => return Err(Fault::broken("a floor of a type that does not exist")),
        }
    }
    Ok(n_floors)
}

/// Reads a floor of type 0 (Vorbis I §6.2.1).
fn read_floor0(bits: &mut BitReaderRtl, books: &Books) -> Result<(), Fault> {
    let order = bits.read_bits_leq32(8)?;
    let rate = bits.read_bits_leq32(16)?;
    let bark_map_size = bits.read_bits_leq32(16)?;
    if order == 0 || rate == 0 || bark_map_size == 0 {
        return Err(Fault::broken("a floor without order, rate or map"));
    }

    let _amplitude_bits = bits.read_bits_leq32(6)?;
    let _amplitude_offset = bits.read_bits_leq32(8)?;

    let n_books = bits.read_bits_leq32(4)? + 1;
    if n_books > FLOOR0_BOOKS_MAX {
        return Err(Fault::unsupported(format!(
            "a floor with {n_books} code books"
        )));
    }
    for _ in 0..n_books {
        books.with_vectors(bits.read_bits_leq32(8)?)?;
    }
    Ok(())
}

/// Reads a floor of type 1 (Vorbis I §7.2.2).
fn read_floor1(bits: &mut BitReaderRtl, books: &Books) -> Result<(), Fault> {
    let n_partitions = bits.read_bits_leq32(5)?;
    let mut partitions = Vec::new();
    for _ in 0..n_partitions {
        partitions.push(bits.read_bits_leq32(4)? as usize);
    }

    // The header describes all classes up to the highest one in use, including classes that no partition has.
    let n_classes = partitions.iter().max().map_or(0, |max| max + 1);
    let mut class_points = [0; 16];
    for n_points in &mut class_points[..n_classes] {
        *n_points = read_floor1_class(bits, books)?;
    }

    let _multiplier = bits.read_bits_leq32(2)?;
    let range_bits = bits.read_bits_leq32(4)?;
    // Add the two ends of the range, which are implicit points of the floor.
    let mut points = vec![0, 1 << range_bits];
    for class in partitions {
        let n_points = class_points[class];
        if points.len() + n_points > FLOOR1_POINTS_MAX {
            return Err(Fault::broken(format!(
                "a floor of more than {FLOOR1_POINTS_MAX} points"
            )));
        }
        for _ in 0..n_points {
            points.push(bits.read_bits_leq32(range_bits)?);
        }
    }

    // Two points at the same position would cause a division by zero. symphonia does not compare points with the two
    // ends of the range.
    let n_points = points.len();
    points.sort_unstable();
    points.dedup();
    if points.len() < n_points {
        return Err(Fault::broken("a floor with two points in one place"));
    }
    Ok(())
}

/// Reads a class of partitions and returns the number of points of each partition.
fn read_floor1_class(bits: &mut BitReaderRtl, books: &Books) -> Result<usize, Fault> {
    let n_points = bits.read_bits_leq32(3)? as usize + 1;
    let subclass_bits = bits.read_bits_leq32(2)?;
    // Check the code book that selects a subclass.
    if subclass_bits > 0 {
        books.with_entries(bits.read_bits_leq32(8)?)?;
    }

    for _ in 0..1 << subclass_bits {
        // The value 0 means no book; other values are the number of the book plus one.
        let Some(book) = bits.read_bits_leq32(8)?.checked_sub(1) else {
            continue;
        };
        let n_entries = books.with_entries(book)?.n_entries;
        if n_entries > FLOOR1_BOOK_ENTRIES_MAX {
            let detail = format!(
                "a floor's code book of {n_entries} entries, at most {FLOOR1_BOOK_ENTRIES_MAX}"
            );
            return Err(Fault::too_large(detail));
        }
    }
    Ok(n_points)
}

/// Parameters of a residue that determine whether symphonia decodes several channels of it correctly.
struct Residue {
    /// 0 or 1: a vector for each channel. 2: one for all channels.
    kind: u32,
    begin: u32,
    end: u32,
    partition_size: u32,
    /// Number of partitions whose classes are in one code word.
    group_size: u32,
}

impl Residue {
    /// Reports whether symphonia 0.6.1 mistakes channels of a block of `n_values` values per channel. For types 0 and 1, the
    /// classes behind the last partition of a channel replace those of the next channel. For type 2, two channels are found
    /// only if the first one is the stream's first.
    fn is_mistaken(&self, channels: &[u32], n_values: u32) -> bool {
        if self.kind == 2 {
            return channels.len() == 2 && channels[0] != 0;
        }
        let n_partitions =
            (self.end.min(n_values) - self.begin.min(n_values)) / self.partition_size;
        channels.len() > 1 && !n_partitions.is_multiple_of(self.group_size)
    }
}

fn read_residues(bits: &mut BitReaderRtl, books: &Books) -> Result<Vec<Residue>, Fault> {
    let n_residues = bits.read_bits_leq32(6)? + 1;
    let mut residues = Vec::new();
    for _ in 0..n_residues {
        let kind = bits.read_bits_leq32(16)?;
        if kind > 2 {
            return Err(Fault::broken("a residue of a type that does not exist"));
        }
        residues.push(read_residue(kind, bits, books)?);
    }
    Ok(residues)
}

/// Reads a residue of a set-up header (Vorbis I §8.6.1).
fn read_residue(kind: u32, bits: &mut BitReaderRtl, books: &Books) -> Result<Residue, Fault> {
    let begin = bits.read_bits_leq32(24)?;
    let end = bits.read_bits_leq32(24)?;
    if end < begin {
        return Err(Fault::broken("a residue that ends before it begins"));
    }

    let partition_size = bits.read_bits_leq32(24)? + 1;
    let n_classes = bits.read_bits_leq32(6)? + 1;
    let class_book = books.with_entries(bits.read_bits_leq32(8)?)?;

    // The header first states in which of eight passes each class takes part, and then the code book of each such pass.
    let mut n_books = 0;
    for _ in 0..n_classes {
        let low = bits.read_bits_leq32(3)?;
        let high = if bits.read_bool()? {
            bits.read_bits_leq32(5)?
        } else {
            0
        };
        n_books += low.count_ones() + high.count_ones();
    }
    for _ in 0..n_books {
        // symphonia refuses code book 0 in a residue, although Vorbis allows it. Creating the decoder then fails.
        books.with_vectors(bits.read_bits_leq32(8)?)?;
    }
    Ok(Residue {
        kind,
        begin,
        end,
        partition_size,
        group_size: class_book.n_dimensions,
    })
}

/// The way in which the channels of a block are stored.
struct Mapping {
    /// True if a channel is in several couplings. Their order then matters, and that of symphonia 0.6.1 is wrong (Vorbis I
    /// §4.3.5).
    has_chains: bool,
    /// Channels and residue of each submap.
    submaps: Vec<(Vec<u32>, u32)>,
}

impl Mapping {
    /// Refuses a mapping of blocks of `n_values` values per channel that symphonia decodes to other samples.
    fn check(&self, residues: &[Residue], n_values: u32) -> Result<(), Fault> {
        let mut submaps = self.submaps.iter();
        let is_mistaken = submaps
            .any(|(channels, residue)| residues[*residue as usize].is_mistaken(channels, n_values));
        match self.has_chains || is_mistaken {
            true => Err(Fault::unsupported(
                "its way of storing several channels; convert the file, for example to FLAC".into(),
            )),
            false => Ok(()),
        }
    }
}

fn read_mappings(
    bits: &mut BitReaderRtl,
    n_channels: u8,
    n_floors: u32,
    n_residues: u32,
) -> Result<Vec<Mapping>, Fault> {
    let n_mappings = bits.read_bits_leq32(6)? + 1;
    let mut mappings = Vec::new();
    for _ in 0..n_mappings {
        if bits.read_bits_leq32(16)? != 0 {
            return Err(Fault::broken("a mapping of a type that does not exist"));
        }
        mappings.push(read_mapping(
            bits,
            u32::from(n_channels),
            n_floors,
            n_residues,
        )?);
    }
    Ok(mappings)
}

/// Reads a mapping of a set-up header (Vorbis I §4.2.4).
fn read_mapping(
    bits: &mut BitReaderRtl,
    n_channels: u32,
    n_floors: u32,
    n_residues: u32,
) -> Result<Mapping, Fault> {
    let n_submaps = if bits.read_bool()? {
        bits.read_bits_leq32(4)? + 1
    } else {
        1
    };

    // Pairs of channels that are stored as magnitude and angle.
    let mut coupled = Vec::new();
    if bits.read_bool()? {
        let n_couplings = bits.read_bits_leq32(8)? + 1;
        // In mono both channel numbers have zero bits, so they are equal and the coupling is refused.
        let channel_bits = ilog(n_channels - 1);
        for _ in 0..n_couplings {
            let magnitude = bits.read_bits_leq32(channel_bits)?;
            let angle = bits.read_bits_leq32(channel_bits)?;
            if magnitude == angle || magnitude.max(angle) >= n_channels {
                return Err(Fault::broken("a coupling of channels that do not exist"));
            }
            coupled.extend([magnitude, angle]);
        }
    }

    if bits.read_bits_leq32(2)? != 0 {
        return Err(Fault::broken("a mapping with reserved bits set"));
    }
    // Each channel has the number of its submap in the header.
    let mut submap_of = vec![0; n_channels as usize];
    if n_submaps > 1 {
        for submap in &mut submap_of {
            *submap = bits.read_bits_leq32(4)?;
            if *submap >= n_submaps {
                return Err(Fault::broken("a channel of a submap that does not exist"));
            }
        }
    }

    let mut submaps = Vec::new();
    for submap in 0..n_submaps {
        let _time = bits.read_bits_leq32(8)?;
        let floor = bits.read_bits_leq32(8)?;
        let residue = bits.read_bits_leq32(8)?;
        if floor >= n_floors || residue >= n_residues {
            return Err(Fault::broken(
                "a submap with a floor or residue that does not exist",
            ));
        }
        let channels = (0..n_channels).filter(|channel| submap_of[*channel as usize] == submap);
        submaps.push((channels.collect(), residue));
    }

    let n_coupled = coupled.len();
    coupled.sort_unstable();
    coupled.dedup();
    Ok(Mapping {
        has_chains: coupled.len() < n_coupled,
        submaps,
    })
}

/// Reads the modes of a set-up header. `check` receives whether the blocks of a mode are long, and its mapping.
fn read_modes(
    bits: &mut BitReaderRtl,
    check: impl Fn(bool, u32) -> Result<(), Fault>,
) -> Result<Modes, Fault> {
    let n = bits.read_bits_leq32(6)? + 1;
    let mut are_long = 0;
    for mode in 0..n {
        let is_long = bits.read_bool()?;
        let window = bits.read_bits_leq32(16)?;
        let transform = bits.read_bits_leq32(16)?;
        if window != 0 || transform != 0 {
            return Err(Fault::broken(
                "a mode with a window or transform that does not exist",
            ));
        }

        check(is_long, bits.read_bits_leq32(8)?)?;
        are_long |= u64::from(is_long) << mode;
    }
    Ok(Modes { n, are_long })
}
