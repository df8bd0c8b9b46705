//! Time by the pages' granules, which are believed as far as the file's bytes could hold what they say.
//!
//! A granule is the number of the sample behind the last packet that ends on its page. From one page to the next it must
//! grow by the samples of the packets between: if it grows by more, some are missing; on the last page it may grow by
//! less, which is how an encoder says where the music ends in the last block.

use super::super::loss::{credible_max, is_credible};
use super::packets::Hole;

/// Least bytes of a packet in a file: one, and one for its length. Digital silence is coded so.
const PACKET_BYTES_MIN: usize = 2;
/// Most packets that end on a page.
const PAGE_PACKETS_MAX: u64 = 255;
/// Packets lost with a hole that are on no missing page: one torn by it, and the next one, which overlaps with it.
const HOLE_EDGE_PACKETS: u64 = 2;

/// What may be taken to be missing from a file: not more than its bytes could hold.
///
/// That is bounded twice: by the shortest packets that there are, and by a multiple of what the file's bytes hold where
/// they are as dense as those heard so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossBudget {
    file_bytes: usize,
    n_packets: u64,
    file_samples: u64,
    taken_samples: u64,
}

impl LossBudget {
    pub(super) fn of(file_bytes: usize) -> Self {
        let n_packets = (file_bytes / PACKET_BYTES_MIN) as u64;
        Self {
            file_bytes,
            n_packets,
            file_samples: 0,
            taken_samples: 0,
        }
    }

    /// Learns how dense the audio is.
    pub(super) fn measure(&mut self, heard: &Density) {
        self.file_samples = heard.samples_in(self.file_bytes);
    }

    /// Takes so many samples to be missing, if there is room for them.
    fn take(&mut self, samples: u64, packet_samples_max: u64) -> bool {
        let taken = self.taken_samples.saturating_add(samples);
        // All that may be missing and all that the file holds, against what it holds.
        if !is_credible(taken.saturating_add(self.file_samples), self.file_samples) {
            return false;
        }
        let n_packets = samples.div_ceil(packet_samples_max);
        let Some(left) = self.n_packets.checked_sub(n_packets) else {
            return false;
        };

        self.n_packets = left;
        self.taken_samples = taken;
        true
    }

    /// As many of these samples as there is room for: an estimate is believed as far as an announcement is.
    pub(super) fn take_most(&mut self, samples: u64, packet_samples_max: u64) -> u64 {
        let known = self.file_samples.saturating_add(self.taken_samples);
        let most_by_density = credible_max(self.file_samples).saturating_sub(known);
        let most_by_packets = self.n_packets.saturating_mul(packet_samples_max);

        let taken = samples.min(most_by_density).min(most_by_packets);
        self.n_packets -= taken.div_ceil(packet_samples_max);
        self.taken_samples += taken;
        taken
    }
}

/// How much audio came out of how much: what the length of a hole is estimated by where nothing tells it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Density {
    samples: u64,
    bytes: u64,
    packets: u64,
    pages: u64,
}

impl Density {
    /// Takes a page of audio.
    pub(super) fn add(&mut self, samples: u64, packets: &[&[u8]]) {
        self.samples += samples;
        self.bytes += packets
            .iter()
            .map(|packet| packet.len() as u64)
            .sum::<u64>();
        self.packets += packets.len() as u64;
        self.pages += 1;
    }

    /// Nothing came out so far.
    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The mean packet; before there is one, as long as one can be.
    pub(super) fn samples_per_packet(&self, most: u64) -> u64 {
        if self.is_empty() {
            most
        } else {
            (self.samples / self.packets.max(1)).max(1)
        }
    }

    /// What so many bytes would hold.
    pub(super) fn samples_in(&self, bytes: usize) -> u64 {
        (self.samples as f64 * bytes as f64 / self.bytes.max(1) as f64) as u64
    }

    /// What so many pages would hold.
    pub(super) fn samples_on(&self, n_pages: u64) -> u64 {
        (self.samples as f64 * n_pages as f64 / self.pages.max(1) as f64) as u64
    }
}

/// What is missing before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing.
    None,
    /// So many samples, in whose place there is to be silence.
    Silent(u64),
    /// So many samples before anything was heard, by the numbers of pages that are not there; nothing in their place.
    Before(u64),
    /// Something, and nobody knows how much.
    Unknown,
}

/// What a page says of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageTime {
    pub granule: Option<u64>,
    /// Samples of its packets.
    pub samples: u64,
    pub hole: Option<Hole>,
    /// No page of the stream comes after it.
    pub is_last: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub gap: Gap,
    /// How many of its samples are not music but fill the last block.
    pub trimmed_samples: u64,
}

/// The time of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granules {
    packet_samples_max: u64,
    /// The sample behind the last page; `None` before the first one with audio.
    end: Option<u64>,
}

impl Granules {
    pub(super) fn new(packet_samples_max: u64) -> Self {
        Self {
            packet_samples_max,
            end: None,
        }
    }

    /// The page fits onto the one before, with nothing missing between.
    pub(super) fn fits(&self, granule: Option<u64>, samples: u64) -> bool {
        self.end
            .is_some_and(|end| Some(end.saturating_add(samples)) == granule)
    }

    /// Takes a page with audio.
    pub(super) fn page(&mut self, page: &PageTime, room: &mut LossBudget) -> Verdict {
        let unknown = if page.hole.is_some() {
            Gap::Unknown
        } else {
            Gap::None
        };

        // Without a time of its own, the page goes as far as its packets do.
        let Some(granule) = page.granule else {
            self.end = self.end.map(|end| end.saturating_add(page.samples));
            return Verdict {
                gap: unknown,
                trimmed_samples: 0,
            };
        };

        // The granule is the time from here on, unless something below speaks against it.
        let Some(end) = self.end.replace(granule) else {
            return self.first_page(granule, page, room);
        };

        let expected = end.saturating_add(page.samples);
        if granule >= expected {
            let missing = granule - expected;
            let gap = match missing {
                0 => unknown,
                _ if self.could_be(missing, page.hole, room) => Gap::Silent(missing),
                // Not believed: time goes on from the packets that are there.
                _ => {
                    self.end = Some(expected);
                    unknown
                }
            };
            return Verdict {
                gap,
                trimmed_samples: 0,
            };
        }

        // Only the last page may end within a packet; elsewhere, less is known than before.
        let trimmed_samples = if page.is_last && granule >= end {
            expected - granule
        } else {
            0
        };
        // With nothing missing, the packets are right and the granule is not.
        if page.hole.is_none() {
            self.end = Some(expected);
        }
        Verdict {
            gap: unknown,
            trimmed_samples,
        }
    }

    /// A stream may begin at any time, being cut from a longer one. What is missing before its first page counts only
    /// where page numbers say so.
    fn first_page(&self, granule: u64, page: &PageTime, room: &mut LossBudget) -> Verdict {
        // Less time than samples: if no page follows, this is where the audio ends.
        let Some(before) = granule.checked_sub(page.samples) else {
            let trimmed_samples = if page.is_last {
                page.samples - granule
            } else {
                0
            };
            return Verdict {
                gap: Gap::None,
                trimmed_samples,
            };
        };

        let gap = match page.hole {
            Some(_) if before == 0 => Gap::None,
            Some(hole) if self.could_be(before, page.hole, room) => {
                // Damaged bytes were audio of this stream. Missing numbers alone may also be those of a stream that was
                // joined late: the end of the link decides.
                if hole.bytes > 0 {
                    Gap::Silent(before)
                } else {
                    Gap::Before(before)
                }
            }
            Some(_) => Gap::Unknown,
            None => Gap::None,
        };
        Verdict {
            gap,
            trimmed_samples: 0,
        }
    }

    /// The length of what a damaged end of the stream held, where its last page's header, which nothing proves, says
    /// what its bytes could hold.
    pub(super) fn tail(&self, granule: u64, bytes: usize, room: &mut LossBudget) -> Option<u64> {
        let missing = granule.checked_sub(self.end?)?;
        let is_held = missing <= samples_in(bytes, self.packet_samples_max);
        (missing > 0 && is_held && room.take(missing, self.packet_samples_max)).then_some(missing)
    }

    /// The file's bytes could hold this, and so could the pages that are missing.
    fn could_be(&self, samples: u64, hole: Option<Hole>, room: &mut LossBudget) -> bool {
        let n_packets_max = match hole {
            Some(hole) if hole.n_pages > 0 => hole.n_pages * PAGE_PACKETS_MAX + HOLE_EDGE_PACKETS,
            Some(hole) => (hole.bytes / PACKET_BYTES_MIN) as u64 + HOLE_EDGE_PACKETS,
            // Nothing tells of a hole: only the budget of the file bounds the gap.
            None => u64::MAX,
        };
        let is_held = samples.div_ceil(self.packet_samples_max) <= n_packets_max;
        is_held && room.take(samples, self.packet_samples_max)
    }
}

fn samples_in(bytes: usize, packet_samples_max: u64) -> u64 {
    ((bytes / PACKET_BYTES_MIN) as u64 + HOLE_EDGE_PACKETS).saturating_mul(packet_samples_max)
}
