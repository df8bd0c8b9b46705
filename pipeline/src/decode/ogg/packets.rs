//! The packets of one stream, put together from its pages, with a word wherever some are missing.

use super::pages::Page;

/// Longest packet that is kept whole, bytes; of longer ones the beginning is. A stereo packet of Vorbis has at most
/// 2 · 4,096 lines in 8 passes of at most 32 bits, 262,144 bytes, and its floors. Only comments are longer (they may hold
/// pictures), and nobody reads them.
const PACKET_BYTES_MAX: usize = 512 << 10;

/// Something is missing before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Pages missing by their numbers; 0 where the numbers do not tell.
    pub n_pages: u64,
    /// Bytes of the file in its place, which are in no whole page.
    pub bytes: usize,
    /// A packet was begun before it, or ends behind it, and is not whole.
    pub has_torn_packet: bool,
}

impl Hole {
    /// A hole, and another one behind a page on which no packet ends.
    pub(super) fn join(before: Option<Self>, behind: Option<Self>) -> Option<Self> {
        let (Some(before), Some(behind)) = (before, behind) else {
            return before.or(behind);
        };
        Some(Self {
            n_pages: before.n_pages + behind.n_pages,
            bytes: before.bytes + behind.bytes,
            has_torn_packet: before.has_torn_packet || behind.has_torn_packet,
        })
    }
}

/// Follows the pages of a stream.
#[derive(Debug, Default)]
pub(super) struct Packets {
    next_sequence: Option<u32>,
    /// A packet goes on behind the last page.
    is_open: bool,
    /// What is there of it.
    open: Vec<u8>,
    /// The last one that was begun on one page and ended on another.
    joined: Vec<u8>,
}

/// A page's whole packets; the first may have begun on an earlier page.
#[derive(Debug)]
pub(super) struct PagePackets<'p> {
    /// What is missing before them.
    pub hole: Option<Hole>,
    /// In order.
    pub packets: Vec<&'p [u8]>,
}

impl Packets {
    /// Packets behind the stream's first page, which has this number.
    pub(super) fn behind(sequence: u32) -> Self {
        Self {
            next_sequence: Some(sequence.wrapping_add(1)),
            ..Self::default()
        }
    }

    /// Takes the stream's next page. `skipped_bytes` of the file, since the page before, are in no whole page.
    pub(super) fn enter<'p>(
        &'p mut self,
        page: &Page<'p>,
        skipped_bytes: usize,
    ) -> PagePackets<'p> {
        let hole = self.hole(page, skipped_bytes);
        // What was begun before a hole never ends.
        if hole.is_some() {
            self.is_open = false;
        }

        let mut parts = page.parts();
        let mut is_joined = false;
        // The rest of a packet whose beginning is lost is passed over.
        if page.is_continued
            && let Some(part) = parts.next()
            && self.is_open
        {
            keep(&mut self.open, part.bytes);
            if part.is_end {
                // Not copied: both buffers keep their memory, and `open` is free for a packet that begins on this page.
                std::mem::swap(&mut self.open, &mut self.joined);
                self.is_open = false;
                is_joined = true;
            }
        }

        let mut ended = Vec::new();
        for part in parts {
            if part.is_end {
                ended.push(part.bytes);
            } else {
                self.is_open = true;
                self.open.clear();
                keep(&mut self.open, part.bytes);
            }
        }

        let joined = is_joined.then_some(self.joined.as_slice());
        PagePackets {
            hole,
            packets: joined.into_iter().chain(ended).collect(),
        }
    }

    /// What is there of a packet that never ended.
    pub(super) fn unfinished(&self) -> Option<&[u8]> {
        self.is_open.then_some(self.open.as_slice())
    }

    /// What is missing before a page.
    fn hole(&mut self, page: &Page, bytes: usize) -> Option<Hole> {
        let expected = self
            .next_sequence
            .replace(page.header.sequence.wrapping_add(1));
        let distance = expected.map_or(0, |expected| page.header.sequence.wrapping_sub(expected));

        // Pages whose flags do not fit together are a hole, even if no number is missing.
        let is_torn = self.is_open != page.is_continued;
        if distance == 0 && !is_torn {
            return None;
        }

        // A page that comes again, or late, is more than half of all numbers away, and tells nothing of what is missing.
        let n_pages = if distance > u32::MAX / 2 {
            0
        } else {
            u64::from(distance)
        };
        let has_torn_packet = self.is_open || page.is_continued;
        Some(Hole {
            n_pages,
            bytes,
            has_torn_packet,
        })
    }
}

/// Adds to a packet, up to the limit.
fn keep(packet: &mut Vec<u8>, bytes: &[u8]) {
    let room = PACKET_BYTES_MAX.saturating_sub(packet.len());
    packet.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
