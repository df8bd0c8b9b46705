//! Assembles the packets of one Ogg stream from its pages and reports where pages or packets are missing.

use super::pages::Page;

/// Maximum number of bytes that are kept of a packet; longer packets are truncated. A stereo packet of Vorbis has at
/// most 2 · 4,096 lines in 8 passes of at most 32 bits, 262,144 bytes, in addition to its floors. Only comments are
/// longer (they may contain pictures), and comments are not read.
const PACKET_BYTES_MAX: usize = 512 << 10;

/// A gap in an Ogg stream before one of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Number of pages missing according to the page numbers; 0 if the page numbers reveal no missing pages.
    pub n_pages: u64,
    /// Number of file bytes in place of the missing pages, outside of any complete page.
    pub bytes: usize,
    /// Whether a packet that began before the hole, or ends after it, is incomplete.
    pub has_torn_packet: bool,
}

impl Hole {
    /// Joins two consecutive holes, separated by a page on which no packet ends.
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

/// Assembles the packets of an Ogg stream page by page.
#[derive(Debug, Default)]
pub(super) struct Packets {
    next_sequence: Option<u32>,
    /// Whether a packet continues after the last page that was added.
    is_open: bool,
    /// The available part of a packet that continues after the last page.
    open: Vec<u8>,
    /// The last packet that began on one page and ended on another page.
    joined: Vec<u8>,
}

/// The complete packets of an Ogg page. The first one may have begun on an earlier page.
#[derive(Debug)]
pub(super) struct PagePackets<'p> {
    /// The hole before these packets, if there is one.
    pub hole: Option<Hole>,
    /// The packets in the order of the file.
    pub packets: Vec<&'p [u8]>,
}

impl Packets {
    /// Starts after the first page of an Ogg stream, which has the sequence number `sequence`.
    pub(super) fn behind(sequence: u32) -> Self {
        Self {
            next_sequence: Some(sequence.wrapping_add(1)),
            ..Self::default()
        }
    }

    /// Adds the stream's next page. `skipped_bytes` is the number of bytes since the previous page that belong to no
    /// complete page.
    pub(super) fn enter<'p>(
        &'p mut self,
        page: &Page<'p>,
        skipped_bytes: usize,
    ) -> PagePackets<'p> {
        let hole = self.hole(page, skipped_bytes);
        // Drop an unfinished packet that began before a hole, because its end is missing.
        if hole.is_some() {
            self.is_open = false;
        }

        let mut parts = page.parts();
        let mut is_joined = false;
        // Skip the rest of a packet if the packet's beginning is lost.
        if page.is_continued
            && let Some(part) = parts.next()
            && self.is_open
        {
            keep(&mut self.open, part.bytes);
            if part.is_end {
                // Swap the buffers instead of copying: both keep their memory, and `open` is free for a packet that
                // begins on this page.
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

    /// Returns the available part of a packet whose end is missing.
    pub(super) fn unfinished(&self) -> Option<&[u8]> {
        self.is_open.then_some(self.open.as_slice())
    }

    /// Returns the hole before an Ogg page.
    fn hole(&mut self, page: &Page, bytes: usize) -> Option<Hole> {
        let expected = self
            .next_sequence
            .replace(page.header.sequence.wrapping_add(1));
        let distance = expected.map_or(0, |expected| page.header.sequence.wrapping_sub(expected));

        // Continuation flags that do not match are a hole even if no number is missing.
        let is_torn = self.is_open != page.is_continued;
        if distance == 0 && !is_torn {
            return None;
        }

        // A repeated or late page is more than half of all page numbers away and reveals no missing pages.
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

/// Appends bytes to a packet, up to the maximum packet size.
fn keep(packet: &mut Vec<u8>, bytes: &[u8]) {
    let room = PACKET_BYTES_MAX.saturating_sub(packet.len());
    packet.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
