//! Writes Ogg pages and Vorbis headers for tests.

use super::blocks::{Blocks, Lengths};
use super::headers::{IDENT_BYTES, Ident};
use super::pages::{Pages, checksum};
use super::setup;

/// An Ogg page to be written.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub flags: u8,
    pub granule: i64,
    pub serial: u32,
    pub sequence: u32,
    /// The packets, or parts of packets, that the page contains.
    pub packets: Vec<Vec<u8>>,
    /// True if the page's last packet continues on the next page.
    pub is_open: bool,
}

pub(crate) const CONTINUED: u8 = 1;
pub(crate) const FIRST: u8 = 2;
pub(crate) const LAST: u8 = 4;

/// Returns the bytes of an Ogg page with its checksum. An open packet must consist of whole segments.
pub(crate) fn page(page: &Page) -> Vec<u8> {
    let mut lacing = Vec::new();
    for (at, packet) in page.packets.iter().enumerate() {
        lacing.extend(vec![255; packet.len() / 255]);
        let is_open = page.is_open && at + 1 == page.packets.len();
        if is_open {
            assert_eq!(packet.len() % 255, 0, "an open packet of whole segments");
        } else {
            lacing.push((packet.len() % 255) as u8);
        }
    }

    let mut bytes = b"OggS\0".to_vec();
    bytes.push(page.flags);
    bytes.extend(page.granule.to_le_bytes());
    bytes.extend(page.serial.to_le_bytes());
    bytes.extend(page.sequence.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.push(u8::try_from(lacing.len()).expect("a page has at most 255 segments"));
    bytes.extend(lacing);
    bytes.extend(page.packets.concat());

    seal(&mut bytes);
    bytes
}

/// Creates an Ogg page of complete packets in the stream with serial number 7.
pub(crate) fn packet_page(flags: u8, granule: i64, sequence: u32, packets: &[&[u8]]) -> Page {
    let packets = packets.iter().map(|packet| packet.to_vec()).collect();
    Page {
        flags,
        granule,
        serial: 7,
        sequence,
        packets,
        is_open: false,
    }
}

/// Creates as many Ogg pages as one packet needs.
pub(crate) fn long(sequence: u32, packet: &[u8]) -> Vec<Page> {
    // One segment less than the maximum of a page, because the last part may need a value that ends the packet.
    let pieces: Vec<&[u8]> = packet.chunks(254 * 255).collect();
    let n_pieces = pieces.len();
    let mut pages = Vec::new();

    for (at, piece) in pieces.into_iter().enumerate() {
        let flags = if at == 0 { 0 } else { CONTINUED };
        pages.push(Page {
            is_open: at + 1 < n_pieces,
            ..packet_page(flags, 0, sequence + at as u32, &[piece])
        });
    }

    pages
}

/// Creates the Ogg pages of the test tone with this comment and `n_packets` audio packets per page.
pub(crate) fn tone(comment: &[u8], n_packets: usize) -> Vec<Page> {
    let packets = tone_packets();
    let [ident, _, setup, audio @ ..] = &packets[..] else {
        panic!("three headers");
    };

    let mut pages = vec![packet_page(FIRST, 0, 0, &[ident])];
    pages.extend(long(1, &[b"\x03vorbis", comment].concat()));
    pages.push(packet_page(0, 0, pages.len() as u32, &[setup]));

    let parsed = Ident::parse(ident).expect("an identification header");
    let modes = setup::parse(setup, &parsed).expect("a set-up header").modes;
    let mut lengths = Lengths::Vorbis(Blocks::new(&parsed, modes));

    let mut granule = 0;
    for packets in audio.chunks(n_packets) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        granule += lengths.sum(&packets);
        for packet in &packets {
            lengths.next(packet);
        }

        // Trim the last block to the end of the tone.
        let granule = granule.min(TONE_SAMPLES) as i64;
        pages.push(packet_page(0, granule, pages.len() as u32, &packets));
    }

    if let Some(last) = pages.last_mut() {
        last.flags = LAST;
    }

    pages
}

/// Number of samples of the test tone.
const TONE_SAMPLES: u64 = 48_000;

/// Reads the three headers and the audio packets of the test tone.
fn tone_packets() -> Vec<Vec<u8>> {
    let file = include_bytes!("../../tests/data/tone_32000_mono.ogg");
    let mut packets = Vec::new();
    let mut packet = Vec::new();

    for page in Pages::new(file, 0) {
        for part in page.parts() {
            packet.extend(part.bytes);
            if part.is_end {
                packets.push(std::mem::take(&mut packet));
            }
        }
    }

    packets
}

/// Concatenates the bytes of Ogg pages.
pub(crate) fn bytes(pages: &[Page]) -> Vec<u8> {
    pages.iter().flat_map(page).collect()
}

/// Writes the correct checksum into an Ogg page.
pub(crate) fn seal(page: &mut [u8]) {
    let crc = checksum(page);
    page[22..26].copy_from_slice(&crc.to_le_bytes());
}

/// Creates a Vorbis identification header with blocks of 256 and 2,048 samples.
pub(crate) fn ident(n_channels: u8, rate_hz: u32) -> [u8; IDENT_BYTES] {
    let mut bytes = [0; IDENT_BYTES];
    bytes[..7].copy_from_slice(b"\x01vorbis");
    bytes[11] = n_channels;
    bytes[12..16].copy_from_slice(&rate_hz.to_le_bytes());
    bytes[28] = 0xB8;
    bytes[29] = 1;
    bytes
}

/// Writes numbers bit by bit, least significant bit first.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    pub bytes: Vec<u8>,
    n_bits: usize,
}

impl BitWriter {
    pub(crate) fn write(&mut self, value: u64, n_bits: u32) -> &mut Self {
        for bit in 0..n_bits {
            if self.n_bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("a byte was pushed");
            *last |= ((value >> bit & 1) as u8) << (self.n_bits % 8);
            self.n_bits += 1;
        }
        self
    }
}

/// The parts of a Vorbis set-up header. Each fault in the tests affects one of them.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub books: Vec<BitWriter>,
    pub floor: BitWriter,
    pub residue: BitWriter,
    pub mapping: BitWriter,
    /// For each mode, whether its blocks are long.
    pub modes: Vec<bool>,
}

/// Creates a Vorbis code book with two entries of one bit, optionally with vectors of one value each.
pub(crate) fn book(has_vectors: bool) -> BitWriter {
    let mut bits = BitWriter::default();
    bits.write(0x56_4342, 24)
        .write(1, 16)
        .write(2, 24)
        .write(0, 2)
        .write(0, 5)
        .write(0, 5);

    if has_vectors {
        bits.write(1, 4)
            .write(0, 32)
            .write(0, 32)
            .write(0, 4)
            .write(0, 1)
            .write(0, 2);
    } else {
        bits.write(0, 4);
    }

    bits
}

/// Creates a Vorbis floor of one class, with points at the positions `points` of 7 bits each.
pub(crate) fn floor1(points: &[u64]) -> BitWriter {
    let mut bits = BitWriter::default();
    let n_points = points.len() as u64;

    // Fields: one partition of class 0; its points; no subclasses; book 0; multiplier; bits of a point.
    bits.write(1, 16)
        .write(1, 5)
        .write(0, 4)
        .write(n_points - 1, 3)
        .write(0, 2)
        .write(1, 8)
        .write(0, 2)
        .write(7, 4);

    for &point in points {
        bits.write(point, 7);
    }

    bits
}

impl Default for Setup {
    /// Creates the smallest Vorbis set-up header that can be decoded: a book without vectors and one with vectors, a
    /// floor of four points, one residue.
    fn default() -> Self {
        let mut residue = BitWriter::default();
        // Fields: type 1, range 0 to 128, partitions of 32, one class, book 0; book 1 in the first pass.
        residue
            .write(1, 16)
            .write(0, 24)
            .write(128, 24)
            .write(31, 24)
            .write(0, 6)
            .write(0, 8);
        residue.write(1, 3).write(0, 1).write(1, 8);

        let mut mapping = BitWriter::default();
        mapping
            .write(0, 16)
            .write(0, 1)
            .write(0, 1)
            .write(0, 2)
            .write(0, 24);
        Self {
            books: vec![book(false), book(true)],
            floor: floor1(&[20, 60]),
            residue,
            mapping,
            modes: vec![false, true],
        }
    }
}

impl Setup {
    /// Returns the bytes of the set-up header.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bits = BitWriter::default();
        bits.write(self.books.len() as u64 - 1, 8);
        for book in &self.books {
            bits.append(book);
        }

        bits.write(0, 6).write(0, 16);
        bits.write(0, 6).append(&self.floor);
        bits.write(0, 6).append(&self.residue);
        bits.write(0, 6).append(&self.mapping);

        bits.write(self.modes.len() as u64 - 1, 6);
        for &is_long in &self.modes {
            bits.write(u64::from(is_long), 1).write(0, 32).write(0, 8);
        }

        bits.write(1, 1);
        [b"\x05vorbis".to_vec(), bits.bytes].concat()
    }
}

impl BitWriter {
    fn append(&mut self, other: &Self) -> &mut Self {
        for bit in 0..other.n_bits {
            self.write(u64::from(other.bytes[bit / 8] >> (bit % 8) & 1), 1);
        }
        self
    }
}
