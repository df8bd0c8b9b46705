//! FLAC in Ogg: streams one behind the other, put together from their pages piece by piece.
//!
//! A packet is a block of metadata or a frame, and frames are those of the native stream, byte for byte. They have numbers
//! and checksums of their own, so that nothing of Ogg's time is needed. A piece holds the marker and the first block where
//! a stream begins, and frames; other metadata are left out. It ends where a packet ends, so that no frame is cut, and no
//! more than a piece is copied at once.
//!
//! Source: the mapping of FLAC to Ogg, RFC 9639 §10.1.

use super::pieces::Part;
use crate::ogg::{FLAC_MAPPING, Page, Pages, page_header_bytes};

/// All that stands before the marker of the native stream: the mapping's name and version, and the number of headers.
const MAPPING_BYTES: usize = 9;
/// What every frame begins with, and no block of metadata: a block's type is less.
const FRAME_SYNC: u8 = 0xFF;
/// A piece ends with the first packet that ends behind so many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// A piece ends at any page behind so many bytes: no encoder makes a frame of two channels as long.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// A piece ends at any page behind so many parts. An encoder's pages have 4 kB and more.
const PIECE_PARTS_MAX: usize = 4_096;
/// The bodies of damaged pages are taken, since frames within them may be whole. Of longer damage only so much is taken.
const DAMAGE_BYTES_MAX: usize = 256 << 10;
/// The longest page of Ogg, and what may be put before it.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Streams beside FLAC that are told from streams whose first page is lost.
const OTHERS_MAX: usize = 64;

/// Bytes that reading in pieces holds at most, beside the file.
pub(crate) const HELD_BYTES_MAX: usize = BUFFER_BYTES_MAX + PIECE_PARTS_MAX * size_of::<Part>();
const BUFFER_BYTES_MAX: usize = PIECE_BYTES_MAX + DAMAGE_BYTES_MAX + PAGE_BYTES_MAX;

/// A walk over the FLAC in a file of Ogg.
pub(super) struct Chain<'a> {
    file: &'a [u8],
    pages: Pages<'a>,
    /// The page that the next piece begins in.
    ahead: Option<PageRest<'a>>,
    /// The last page that was taken.
    last: Option<PageNumber>,
    /// The stream under way; `None` behind its last page.
    serial: Option<u32>,
    /// The group of first pages is over that the streams began with.
    is_under_way: bool,
    /// The group has a stream of FLAC, or none was begun yet that another one could be chained to.
    has_flac: bool,
    /// Serial numbers of the streams beside it.
    others: Vec<u32>,
    foreign: ForeignStreams,
    /// The packet under way is a frame.
    is_frame: bool,
    /// A frame of the stream was taken.
    has_frames: bool,
    damage: Damage,
    /// Damage behind the last page was taken.
    is_over: bool,
    buffer: Vec<u8>,
    parts: Vec<Part>,
}

/// A page, or what is left of it.
struct PageRest<'a> {
    page: Page<'a>,
    /// Packets of it, or parts of packets, that were taken.
    n_taken: usize,
}

/// Bytes since the last page that are in no whole page.
#[derive(Clone, Copy, Default)]
struct Damage {
    offset: usize,
    n_bytes: usize,
}

/// Streams of other codecs that were chained to the FLAC. They are not decoded.
#[derive(Clone, Default)]
pub(super) struct ForeignStreams {
    pub n_bytes: u64,
    pub hasher: blake3::Hasher,
}

/// Which page of which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageNumber {
    serial: u32,
    sequence: u32,
}

impl PageNumber {
    fn from_page(page: &Page) -> Self {
        Self {
            serial: page.header.serial,
            sequence: page.header.sequence,
        }
    }

    fn next(self) -> Self {
        Self {
            sequence: self.sequence.wrapping_add(1),
            ..self
        }
    }
}

impl<'a> Chain<'a> {
    /// Begins at `start`, which is behind any tag.
    pub(super) fn new(file: &'a [u8], start: usize) -> Self {
        Self {
            file,
            pages: Pages::new(file, start),
            ahead: None,
            last: None,
            serial: None,
            is_under_way: false,
            has_flac: true,
            others: Vec::new(),
            foreign: ForeignStreams::default(),
            is_frame: false,
            has_frames: false,
            damage: Damage::default(),
            is_over: false,
            // In its final size: while it grew, it would take more than `HELD_BYTES_MAX`.
            buffer: Vec::with_capacity(BUFFER_BYTES_MAX.min(file.len())),
            parts: Vec::new(),
        }
    }

    /// The bytes of the last piece.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Where they are from.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What was passed over so far.
    pub(super) fn foreign(&self) -> &ForeignStreams {
        &self.foreign
    }

    /// Puts the next piece together; whether a stream begins with it.
    pub(super) fn read_piece(&mut self) -> Option<bool> {
        self.buffer.clear();
        self.parts.clear();
        let mut is_start = false;

        while let Some(ahead) = self.next_page() {
            let begins_stream = ahead.n_taken == 0 && self.begins_stream(&ahead.page);
            // A stream begins a piece of its own: its first block is looked for at the start of one.
            if begins_stream && !self.buffer.is_empty() {
                self.ahead = Some(ahead);
                break;
            }
            is_start |= begins_stream;

            self.ahead = self.add_page(ahead);
            if self.ahead.is_some() {
                break;
            }
        }

        if self.buffer.is_empty() {
            None
        } else {
            Some(is_start)
        }
    }

    /// The next page of FLAC, or the rest of one. Behind the last one, damage is taken.
    fn next_page(&mut self) -> Option<PageRest<'a>> {
        if let Some(ahead) = self.ahead.take() {
            return Some(ahead);
        }

        while let Some(page) = self.pages.next() {
            self.note_damage(page.offset, page.skipped.bytes);
            if self.is_wanted(&page) {
                return Some(PageRest { page, n_taken: 0 });
            }
        }

        if !self.is_over {
            // Once alone: the caller comes again after the last piece.
            self.is_over = true;
            let tail_bytes = self.pages.tail().bytes;
            self.note_damage(self.file.len(), tail_bytes);
            // Behind a stream that has ended, damage is none of its audio.
            if self.serial.is_some() {
                self.add_damage();
            }
        }
        None
    }

    /// The page is of the FLAC stream of its group, or of a stream whose first page is lost: frames tell what they are.
    fn is_wanted(&mut self, page: &Page) -> bool {
        let serial = page.header.serial;
        if page.is_first {
            return self.is_wanted_first(page);
        }

        self.is_under_way = true;
        if self.others.contains(&serial) {
            // Such a group is audio that was chained to the FLAC. Streams beside FLAC count for nothing.
            if !self.has_flac {
                self.foreign.n_bytes += page.body().len() as u64;
                self.foreign.hasher.update(page.body());
            }
            return false;
        }
        if self.serial.is_some_and(|current| current != serial) {
            // Beside a stream that is under way, this is another one.
            self.leave_out(serial);
            return false;
        }
        // A page that is there twice.
        self.last != Some(PageNumber::from_page(page))
    }

    /// The same of the first page of a stream. First pages come before all others, unless another group begins.
    fn is_wanted_first(&mut self, page: &Page) -> bool {
        // A first page behind other pages: another group begins.
        if self.is_under_way {
            self.is_under_way = false;
            self.has_flac = false;
            self.serial = None;
            self.others.clear();
        }

        if self.serial.is_none() && page.body().starts_with(FLAC_MAPPING) {
            self.has_flac = true;
            return true;
        }
        self.leave_out(page.header.serial);
        false
    }

    fn leave_out(&mut self, serial: u32) {
        if self.others.len() < OTHERS_MAX {
            self.others.push(serial);
        }
    }

    /// A stream begins with the page, or its first page is lost and this is the first one of it that is there.
    fn begins_stream(&self, page: &Page) -> bool {
        page.is_first || self.serial.is_none()
    }

    /// Takes the packets of a page. What is left of it when the piece is full begins the next piece.
    fn add_page(&mut self, ahead: PageRest<'a>) -> Option<PageRest<'a>> {
        let PageRest { page, n_taken } = ahead;
        if n_taken == 0 {
            self.begin_page(&page);
        }

        let mut offset = page.body_offset();
        for (at, part) in page.parts().enumerate() {
            // Only the first part of a page can go on from a page before.
            let begins_packet = at > 0 || !page.is_continued;
            if at >= n_taken {
                self.add_part(&page, offset, part.bytes, begins_packet);
                if part.is_end && self.is_full() {
                    return Some(PageRest {
                        page,
                        n_taken: at + 1,
                    });
                }
            }
            offset += part.bytes.len();
        }

        if page.is_last {
            self.serial = None;
        }

        // No packet ends, as in damage: the piece is closed at the end of the page.
        let is_too_long =
            self.buffer.len() >= PIECE_BYTES_MAX || self.parts.len() >= PIECE_PARTS_MAX;
        // Nothing of the page is left: the next piece goes on behind it.
        is_too_long.then_some(PageRest {
            page,
            n_taken: usize::MAX,
        })
    }

    /// Takes what lies before a page: damage, if pages are missing.
    fn begin_page(&mut self, page: &Page) {
        let number = PageNumber::from_page(page);
        let follows = self.last.map(PageNumber::next) == Some(number);
        if self.begins_stream(page) {
            self.has_frames = false;
        }
        self.last = Some(number);
        self.serial = Some(number.serial);

        if page.is_first || follows {
            // Nothing is missing: what lies between is none of this stream's.
            self.damage = Damage::default();
            return;
        }

        if self.damage.n_bytes > 0 {
            self.add_damage();
        } else if !self.has_frames {
            // Frames tell by their numbers what is missing between them. Before the first one, a byte tells that there
            // was something.
            self.add(page.offset, &[0]);
        }
        // The packet that goes on behind a hole may be a frame.
        self.is_frame = true;
    }

    /// Takes a packet of a page, or the part of one that is on it, if it is of use.
    fn add_part(&mut self, page: &Page, offset: usize, bytes: &[u8], begins_packet: bool) {
        if page.is_first {
            // Behind the mapping the marker and the first block stand as in a native file.
            let mapping_bytes = MAPPING_BYTES.min(bytes.len());
            self.add(offset + mapping_bytes, &bytes[mapping_bytes..]);
            return;
        }

        if begins_packet {
            self.is_frame = bytes.first() == Some(&FRAME_SYNC);
        }
        if self.is_frame {
            self.has_frames = true;
            self.add(offset, bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE_BYTES || self.parts.len() >= PIECE_PARTS_MAX
    }

    /// Takes note of bytes before `end` that are in no whole page.
    fn note_damage(&mut self, end: usize, n_bytes: usize) {
        if n_bytes > 0 && self.damage.n_bytes == 0 {
            self.damage.offset = end - n_bytes;
        }
        self.damage.n_bytes += n_bytes;
    }

    /// Takes them, without the header of the page that they were.
    fn add_damage(&mut self) {
        let Damage { offset, n_bytes } = std::mem::take(&mut self.damage);
        let file = self.file;
        let room = (PIECE_BYTES_MAX + DAMAGE_BYTES_MAX).saturating_sub(self.buffer.len());
        let damaged = &file[offset..offset + n_bytes.min(DAMAGE_BYTES_MAX).min(room)];

        // The frames of a damaged page go on behind its header.
        let header_bytes = page_header_bytes(damaged).unwrap_or(0);
        self.add(offset + header_bytes, &damaged[header_bytes..]);
    }

    fn add(&mut self, file_offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.parts.push(Part {
                at: self.buffer.len(),
                file_offset,
            });
            self.buffer.extend_from_slice(bytes);
        }
    }
}
