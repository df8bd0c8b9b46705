//! Writes Ogg pages and Vorbis headers for tests.

use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

use super::tags::{id3v1, id3v2};
use super::{Part, audio, other, text};

/// Length of a Vorbis identification header in bytes.
const IDENT_BYTES: usize = 30;

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

    let mut granule = 0;
    let mut before = None;
    for packets in audio.chunks(n_packets) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        for packet in &packets {
            // The second bit of a packet tells which of the tone's two modes it has, with short or long blocks.
            let block = if packet[0] & 2 == 0 { 256 } else { 2_048 };
            granule += before
                .replace(block)
                .map_or(0, |before| (before + block) / 4);
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

    // Each page has a header of 27 bytes, the last of which is the number of lacing values, those, and its packets.
    let mut rest = &file[..];
    while !rest.is_empty() {
        let (lacing, body) = rest[27..].split_at(usize::from(rest[26]));
        rest = body;
        for &value in lacing {
            let (bytes, behind) = rest.split_at(usize::from(value));
            rest = behind;
            packet.extend(bytes);
            if value < 255 {
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

/// Writes the correct checksum into an Ogg page, which is computed with zeros in its place.
pub(crate) fn seal(page: &mut [u8]) {
    page[22..26].fill(0);
    let mut crc = Crc32::new(0);
    crc.process_buf_bytes(page);
    page[22..26].copy_from_slice(&crc.crc().to_le_bytes());
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

    /// Writes pairs of a value and its number of bits.
    pub(crate) fn write_all<const N: usize>(&mut self, fields: [(u64, u32); N]) -> &mut Self {
        for (value, n_bits) in fields {
            self.write(value, n_bits);
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
    bits.write_all([(0x56_4342, 24), (1, 16), (2, 24), (0, 2), (0, 5), (0, 5)]);

    if has_vectors {
        bits.write_all([(1, 4), (0, 32), (0, 32), (0, 4), (0, 1), (0, 2)]);
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
    bits.write_all([
        (1, 16),
        (1, 5),
        (0, 4),
        (n_points - 1, 3),
        (0, 2),
        (1, 8),
        (0, 2),
        (7, 4),
    ]);

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
        residue.write_all([(1, 16), (0, 24), (128, 24), (31, 24), (0, 6), (0, 8)]);
        residue.write_all([(1, 3), (0, 1), (1, 8)]);

        let mut mapping = BitWriter::default();
        mapping.write_all([(0, 16), (0, 1), (0, 1), (0, 2), (0, 24)]);
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
            bits.write_all([(u64::from(is_long), 1), (0, 32), (0, 8)]);
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

/// Returns pages of noise in Opus, with a comment of `n_tag_bytes` bytes.
pub(super) fn opus_parts(n_tag_bytes: usize) -> Vec<Part> {
    let head = b"OpusHead\x01\x01\x38\x01\x44\xAC\0\0\0\0\0";
    let tags = [b"OpusTags".to_vec(), text(n_tag_bytes)].concat();
    let mut pages = vec![
        packet_page(FIRST, 0, 0, &[head]),
        packet_page(0, 0, 1, &[b"OpusTags"]),
    ];
    // A long comment does not fit on one page.
    if tags.len() < 60_000 {
        pages[1].packets = vec![tags];
    }

    let mut state = 1_u32;
    for number in 0..10_u32 {
        let packets: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                let mut packet = vec![0xF8];
                for _ in 0..60 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    packet.push((state >> 24) as u8);
                }
                packet
            })
            .collect();
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let granule = i64::from(number + 1) * 3 * 960;
        let flags = if number == 9 { LAST } else { 0 };
        pages.push(packet_page(flags, granule, number + 2, &packets));
    }
    let mut parts = vec![other(id3v2(n_tag_bytes))];
    parts.extend(parts_of(&pages));
    parts
}

/// Splits Ogg pages into parts: the first page and the comment's pages are not audio, the others are. Adds junk between
/// audio pages.
fn parts_of(pages: &[Page]) -> Vec<Part> {
    let rest = pages[2..].iter();
    let n_headers = 2 + rest.take_while(|page| page.flags == CONTINUED).count();

    let mut parts = Vec::new();
    for (at, part) in pages.iter().enumerate() {
        let bytes = page(part);
        if at < n_headers {
            parts.push(other(bytes));
        } else {
            parts.push(audio(bytes));
            parts.push(other(text(at % 2 * 20)));
        }
    }
    parts
}

/// Returns the pages of the test tone with a comment of `n_tag_bytes` bytes.
pub(crate) fn tagged_tone(n_tag_bytes: usize) -> Vec<Page> {
    tone(&text(n_tag_bytes), 4)
}

pub(super) fn vorbis_parts(n_tag_bytes: usize) -> Vec<Part> {
    // The pages with the Vorbis set-up header count as audio here.
    let mut parts = vec![other(id3v2(n_tag_bytes))];
    parts.extend(parts_of(&tagged_tone(n_tag_bytes)));
    parts.push(other(id3v1()));
    parts
}

pub(super) fn two_links_parts(n_tag_bytes: usize) -> Vec<Part> {
    let mut first = tagged_tone(n_tag_bytes);
    // Adds a gap to the granules, although no page is missing.
    for page in first.iter_mut().rev().take(5) {
        page.granule += 4_000;
    }

    let mut second = tagged_tone(n_tag_bytes / 2);
    for page in &mut second {
        page.serial = 8;
    }

    if let Some(last) = second.last_mut() {
        // Truncate the stream: no page is marked as the stream's last.
        last.flags &= !LAST;
    }

    let mut parts = parts_of(&first);
    parts.extend(parts_of(&second));
    parts
}
