//! Computes the time of a Vorbis stream from the granules of its pages. A granule is accepted only if the bytes of the
//! file could hold that much audio.
//!
//! A granule is the number of the sample after the last packet that ends on its page. From one page to the next it must
//! grow by the number of samples of the packets between: if it grows by more, some samples are missing. On the last
//! page it may grow by less, which is how an encoder states where the music ends within the last block.

use super::super::loss::{credible_max, is_credible};
use super::packets::Hole;

/// Minimum size of a Vorbis packet in a file, in bytes: one for the packet and one for its length. Digital silence is
/// coded in this way.
const PACKET_BYTES_MIN: usize = 2;
/// Maximum number of packets that end on an Ogg page.
const PAGE_PACKETS_MAX: u64 = 255;
/// Number of packets lost with a hole in addition to those on missing pages: the packet that the hole interrupts, and
/// the next one, which overlaps with it.
const HOLE_EDGE_PACKETS: u64 = 2;

/// Number of samples that may be assumed to be missing from a file: no more than the file's bytes could hold.
///
/// Two limits apply: the number of shortest packets that fit in the file, and a multiple of the samples that the file
/// would hold at the density of the audio decoded so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossBudget {
    file_bytes: usize,
    n_packets: u64,
    file_samples: u64,
    taken_samples: u64,
}

impl LossBudget {
    pub(super) fn new(file_bytes: usize) -> Self {
        let n_packets = (file_bytes / PACKET_BYTES_MIN) as u64;
        Self {
            file_bytes,
            n_packets,
            file_samples: 0,
            taken_samples: 0,
        }
    }

    /// Updates the budget with the number of samples per byte of the audio decoded so far.
    pub(super) fn measure(&mut self, heard: &Density) {
        self.file_samples = heard.samples_in(self.file_bytes);
    }

    /// Takes `samples` missing samples from the budget. Returns `false` if they exceed it.
    fn take(&mut self, samples: u64, packet_samples_max: u64) -> bool {
        let taken = self.taken_samples.saturating_add(samples);
        // Compare two totals: missing samples plus those that the file contains, and those that the file contains.
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

    /// Takes as many of `samples` missing samples as the budget allows and returns their number. Estimated losses have
    /// the same limits as announced lengths.
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

/// Ratio of decoded samples to bytes, packets and pages. Used to estimate the length of a hole if nothing states that
/// length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Density {
    samples: u64,
    bytes: u64,
    packets: u64,
    pages: u64,
}

impl Density {
    /// Adds the samples and packets of a page of audio.
    pub(super) fn add(&mut self, samples: u64, packets: &[&[u8]]) {
        self.samples += samples;
        self.bytes += packets
            .iter()
            .map(|packet| packet.len() as u64)
            .sum::<u64>();
        self.packets += packets.len() as u64;
        self.pages += 1;
    }

    /// Reports whether no samples have been decoded so far.
    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Returns the mean number of samples per packet, or the maximum `most` if nothing has been decoded.
    pub(super) fn samples_per_packet(&self, most: u64) -> u64 {
        if self.is_empty() {
            most
        } else {
            (self.samples / self.packets.max(1)).max(1)
        }
    }

    /// Returns the expected number of samples in `bytes` bytes of audio.
    pub(super) fn samples_in(&self, bytes: usize) -> u64 {
        (self.samples as f64 * bytes as f64 / self.bytes.max(1) as f64) as u64
    }

    /// Returns the expected number of samples on `n_pages` pages of audio.
    pub(super) fn samples_on(&self, n_pages: u64) -> u64 {
        (self.samples as f64 * n_pages as f64 / self.pages.max(1) as f64) as u64
    }
}

/// The audio missing before an Ogg page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// No audio is missing.
    None,
    /// This number of samples is missing and is replaced by silence.
    Silent(u64),
    /// This number of samples is missing before the first decoded page, according to the page numbers. Nothing replaces
    /// them.
    Before(u64),
    /// An unknown number of samples is missing.
    Unknown,
}

/// Data of an Ogg page that determine its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageTime {
    pub granule: Option<u64>,
    /// Number of samples of the page's packets.
    pub samples: u64,
    pub hole: Option<Hole>,
    /// Whether no page of the stream follows.
    pub is_last: bool,
}

/// Result of comparing the granule of a page with the time expected for the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub gap: Gap,
    /// Number of samples that only fill the page's last block and are not music.
    pub trimmed_samples: u64,
}

/// Current time in one Vorbis stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granules {
    packet_samples_max: u64,
    /// Number of the sample after the last page; `None` before the first page with audio.
    end: Option<u64>,
}

impl Granules {
    pub(super) fn new(packet_samples_max: u64) -> Self {
        Self {
            packet_samples_max,
            end: None,
        }
    }

    /// Reports whether the page directly continues the previous one, with nothing missing between them.
    pub(super) fn fits(&self, granule: Option<u64>, samples: u64) -> bool {
        self.end
            .is_some_and(|end| Some(end.saturating_add(samples)) == granule)
    }

    /// Advances the time by an Ogg page with audio.
    pub(super) fn page(&mut self, page: &PageTime, room: &mut LossBudget) -> Verdict {
        let unknown = if page.hole.is_some() {
            Gap::Unknown
        } else {
            Gap::None
        };

        // A page without a granule ends at the time at which its packets end.
        let Some(granule) = page.granule else {
            self.end = self.end.map(|end| end.saturating_add(page.samples));
            return Verdict {
                gap: unknown,
                trimmed_samples: 0,
            };
        };

        // Continue the time from the page's granule, unless a check below rejects the granule.
        let Some(end) = self.end.replace(granule) else {
            return self.first_page(granule, page, room);
        };

        let expected = end.saturating_add(page.samples);
        if granule >= expected {
            let missing = granule - expected;
            let gap = match missing {
                0 => unknown,
                _ if self.could_be(missing, page.hole, room) => Gap::Silent(missing),
                // The granule is not credible: continue the time from the packets that are present.
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

        // Only the last page may end within a packet. On any other page a too small granule trims no samples.
        let trimmed_samples = if page.is_last && granule >= end {
            expected - granule
        } else {
            0
        };
        // If no audio is missing, the packets are right and the granule is wrong.
        if page.hole.is_none() {
            self.end = Some(expected);
        }
        Verdict {
            gap: unknown,
            trimmed_samples,
        }
    }

    /// Handles the first page of a stream. A stream that was cut from a longer one may begin at any time, so audio
    /// missing before the first page counts only if page numbers reveal it.
    fn first_page(&self, granule: u64, page: &PageTime, room: &mut LossBudget) -> Verdict {
        // If the granule is smaller than the number of samples and no page follows, the audio ends at the granule.
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
                // Damaged bytes contained audio of this stream. If only page numbers are missing, the stream may
                // instead have been cut from a longer one, which is decided at the end of the link.
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

    /// Returns the number of samples in the damaged end of a stream, according to `granule`. The granule is from the
    /// header of a damaged page without a valid checksum, so the damaged bytes must be able to hold that much audio.
    pub(super) fn tail(&self, granule: u64, bytes: usize, room: &mut LossBudget) -> Option<u64> {
        let missing = granule.checked_sub(self.end?)?;
        let is_held = missing <= samples_in(bytes, self.packet_samples_max);
        (missing > 0 && is_held && room.take(missing, self.packet_samples_max)).then_some(missing)
    }

    /// Reports whether the file's bytes and the missing pages could hold `samples`. If so, reduces the budget.
    fn could_be(&self, samples: u64, hole: Option<Hole>, room: &mut LossBudget) -> bool {
        let n_packets_max = match hole {
            Some(hole) if hole.n_pages > 0 => hole.n_pages * PAGE_PACKETS_MAX + HOLE_EDGE_PACKETS,
            Some(hole) => (hole.bytes / PACKET_BYTES_MIN) as u64 + HOLE_EDGE_PACKETS,
            // No pages are known to be missing: only the budget of the file limits the gap.
            None => u64::MAX,
        };
        let is_held = samples.div_ceil(self.packet_samples_max) <= n_packets_max;
        is_held && room.take(samples, self.packet_samples_max)
    }
}

fn samples_in(bytes: usize, packet_samples_max: u64) -> u64 {
    ((bytes / PACKET_BYTES_MIN) as u64 + HOLE_EDGE_PACKETS).saturating_mul(packet_samples_max)
}
