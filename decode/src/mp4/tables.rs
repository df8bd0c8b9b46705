//! Finds the packets of a track by its tables, or by those of the fragments after them.
//!
//! Tables are slices of the file, so they allocate nothing. They may announce more packets than the file contains, and
//! packets anywhere in the file.
//!
//! Source: ISO/IEC 14496-12 §8.6.1.2 (`stts`), §8.7 (`stsc`, `stsz`, `stco`), §8.8 (`moof`).

use memchr::memmem;

use super::boxes::{Boxes, Mp4Box, find, number};

/// Position and size of a packet in the file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: u64,
}

/// A table of entries of equal size.
#[derive(Clone, Copy, Debug, Default)]
struct Table<'a> {
    entries: &'a [u8],
    entry_bytes: usize,
}

impl<'a> Table<'a> {
    /// Returns the table after `header_bytes` bytes of a box, the last four of which are the number of entries.
    fn new(body: Option<&'a [u8]>, header_bytes: usize, entry_bytes: usize) -> Self {
        let body = body.unwrap_or_default();
        let entries = body.get(header_bytes..).unwrap_or_default();
        let n = number(body, header_bytes - 4, 4).unwrap_or(0) as usize;
        let n_bytes = n.saturating_mul(entry_bytes).min(entries.len());
        Self {
            entries: &entries[..n_bytes],
            entry_bytes,
        }
    }

    /// Returns a number of 32 bits, which is at `at` bytes in entry `i`; `None` after the last entry.
    fn get(&self, i: usize, at: usize) -> Option<u64> {
        number(self.entries, i.checked_mul(self.entry_bytes)? + at, 4)
    }

    fn len(&self) -> usize {
        self.entries.len() / self.entry_bytes.max(1)
    }
}

/// Iterator over the packets that a `stbl` box lists.
#[derive(Clone, Debug)]
pub(super) struct Listed<'a> {
    /// Size of all packets, or 0 if `sizes` contains them.
    equal_bytes: u64,
    sizes: Table<'a>,
    n_packets: u64,
    /// Entries of the first chunk, packets per chunk, and description.
    runs: Table<'a>,
    chunks: Table<'a>,
    has_long_offsets: bool,
    packet: u64,
    run: usize,
    /// Number of the next chunk.
    chunk: usize,
    /// Packets left in the current chunk, and the offset of the next one.
    n_left: u64,
    offset: u64,
}

impl<'a> Listed<'a> {
    pub(super) fn new(stbl: &'a [u8]) -> Self {
        let stsz = find(stbl, &[b"stsz"]).unwrap_or_default();
        let stco = find(stbl, &[b"stco"]);
        let co64 = find(stbl, &[b"co64"]);
        Self {
            equal_bytes: number(stsz, 4, 4).unwrap_or(0),
            sizes: Table::new(Some(stsz), 12, 4),
            n_packets: number(stsz, 8, 4).unwrap_or(0),
            runs: Table::new(find(stbl, &[b"stsc"]), 8, 12),
            chunks: if stco.is_some() {
                Table::new(stco, 8, 4)
            } else {
                Table::new(co64, 8, 8)
            },
            has_long_offsets: stco.is_none(),
            packet: 0,
            run: 0,
            chunk: 0,
            n_left: 0,
            offset: 0,
        }
    }

    /// Starts the next chunk with packets; `None` after the last one.
    fn next_chunk(&mut self) -> Option<()> {
        while self.n_left == 0 {
            let high = self.chunks.get(self.chunk, 0)?;
            self.offset = if self.has_long_offsets {
                high << 32 | self.chunks.get(self.chunk, 4)?
            } else {
                high
            };
            self.chunk += 1;

            // Chunks are numbered from 1. A run goes on until the first chunk of the next one.
            let number = self.chunk as u64;
            while self
                .runs
                .get(self.run + 1, 0)
                .is_some_and(|first| first <= number)
            {
                self.run += 1;
            }
            self.n_left = self.runs.get(self.run, 4)?;
        }
        Some(())
    }
}

impl Iterator for Listed<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        if self.packet == self.n_packets {
            return None;
        }
        let bytes = match self.equal_bytes {
            0 => self.sizes.get(self.packet as usize, 0)?,
            equal => equal,
        };
        self.next_chunk()?;

        let offset = self.offset;
        self.offset = offset.saturating_add(bytes);
        self.n_left -= 1;
        self.packet += 1;
        Some(Place { offset, bytes })
    }
}

/// Returns the sum of all packets' durations in a `stbl` box, in units of the track's time scale.
pub(super) fn duration(stbl: &[u8]) -> u64 {
    let times = Table::new(find(stbl, &[b"stts"]), 8, 8);
    let durations = (0..times.len()).map(|i| {
        let n = times.get(i, 0).unwrap_or(0);
        n * times.get(i, 4).unwrap_or(0)
    });
    durations.fold(0, u64::saturating_add)
}

/// Iterator over the packets of a track in the fragments of a file.
#[derive(Clone, Debug)]
pub(super) struct Fragmented<'a> {
    track_id: u64,
    /// Size of a packet if nothing else states it.
    default_bytes: u64,
    file: &'a [u8],
    /// Offset at which the search for the next `moof` box begins.
    at: usize,
    moof_offset: usize,
    /// Number of the last fragment.
    sequence: Option<u64>,
    /// Number of packets in the last fragment.
    n_in_fragment: u64,
    /// Number of packets in missing fragments, which come next.
    n_missing: u64,
    trafs: Boxes<'a>,
    truns: Boxes<'a>,
    traf_bytes: u64,
    base: u64,
    run: Run<'a>,
    offset: u64,
}

/// The sizes of the packets in one `trun` box.
#[derive(Clone, Debug, Default)]
struct Run<'a> {
    entries: Table<'a>,
    /// Position of the size within an entry; `None` if all packets have the size of the fragment.
    size_at: Option<usize>,
    packet: usize,
    n_packets: usize,
}

impl<'a> Fragmented<'a> {
    pub(super) fn new(file: &'a [u8], moov: &[u8], trak: &[u8]) -> Self {
        // Two dates of 32 or 64 bits precede the number of the track.
        let tkhd = find(trak, &[b"tkhd"]).unwrap_or_default();
        let id_at = if tkhd.first() == Some(&1) { 20 } else { 12 };
        let track_id = number(tkhd, id_at, 4).unwrap_or(0);

        // Only a file with the box `mvex`, which contains defaults for each track, has fragments.
        let mvex = find(moov, &[b"mvex"]);
        let mut defaults = Boxes::new(mvex.unwrap_or_default());
        let trex = defaults
            .find(|found| found.kind == *b"trex" && number(found.body, 4, 4) == Some(track_id));
        Self {
            track_id,
            default_bytes: trex.and_then(|trex| number(trex.body, 16, 4)).unwrap_or(0),
            file: if mvex.is_some() { file } else { &[] },
            at: 0,
            moof_offset: 0,
            sequence: None,
            n_in_fragment: 0,
            n_missing: 0,
            trafs: Boxes::new(&[]),
            truns: Boxes::new(&[]),
            traf_bytes: 0,
            base: 0,
            run: Run::default(),
            offset: 0,
        }
    }

    /// Starts the next `trun` box of the track, or the next fragment after missing ones; `None` after the last box.
    fn next_run(&mut self) -> Option<()> {
        loop {
            if let Some(trun) = next_of(&mut self.truns, b"trun") {
                self.start_run(trun.body);
                return Some(());
            }
            if let Some(traf) = next_of(&mut self.trafs, b"traf") {
                self.start_traf(traf.body);
                continue;
            }
            self.next_fragment()?;
            if self.n_missing > 0 {
                return Some(());
            }
        }
    }

    /// Starts the next `moof` box. Its name is searched for, because damage to one box hides all later ones from a
    /// reader that follows their sizes. The numbers of the fragments then reveal how many are missing.
    fn next_fragment(&mut self) -> Option<()> {
        let (moof, number) = loop {
            let found = memmem::find(self.file.get(self.at..)?, b"moof")?;
            let name = self.at + found;
            self.at = name + 4;
            self.moof_offset = name.checked_sub(4)?;

            let moof = Boxes::new(&self.file[self.moof_offset..]).next()?;
            let mfhd = Boxes::new(moof.body).next();
            if let Some(mfhd) = mfhd.filter(|found| found.kind == *b"mfhd") {
                break (moof, number(mfhd.body, 4, 4)?);
            }
        };

        let expected = self.sequence.replace(number).map(|last| last + 1);
        let n_fragments = expected.map_or(0, |expected| number.saturating_sub(expected));
        self.n_missing = n_fragments.saturating_mul(self.n_in_fragment);
        self.n_in_fragment = 0;
        self.trafs = Boxes::new(moof.body);
        Some(())
    }

    /// Starts a `traf` box, if it is of the track.
    fn start_traf(&mut self, traf: &'a [u8]) {
        let tfhd = find(traf, &[b"tfhd"]).unwrap_or_default();
        if number(tfhd, 4, 4) != Some(self.track_id) {
            return;
        }
        let flags = number(tfhd, 0, 4).unwrap_or(0);
        // Optional fields follow each other: offset, description, duration, size.
        let has_offset = flags & 1 != 0;
        let size_at = 8
            + if has_offset { 8 } else { 0 }
            + if flags & 2 != 0 { 4 } else { 0 }
            + if flags & 8 != 0 { 4 } else { 0 };

        self.base = match number(tfhd, 8, 8).filter(|_| has_offset) {
            Some(offset) => offset,
            None => self.moof_offset as u64,
        };
        self.offset = self.base;
        self.traf_bytes = match number(tfhd, size_at, 4).filter(|_| flags & 16 != 0) {
            Some(bytes) => bytes,
            None => self.default_bytes,
        };
        self.truns = Boxes::new(traf);
    }

    fn start_run(&mut self, trun: &'a [u8]) {
        let flags = number(trun, 0, 4).unwrap_or(0);
        let mut header_bytes = 8;
        if flags & 1 != 0 {
            // The offset is signed.
            let delta = number(trun, 8, 4).unwrap_or(0) as u32 as i32;
            self.offset = self.base.saturating_add_signed(i64::from(delta));
            header_bytes += 4;
        }
        if flags & 4 != 0 {
            header_bytes += 4;
        }

        let has_duration = flags & 0x100 != 0;
        let entry_bytes = 4 * (flags >> 8 & 15).count_ones() as usize;
        let n_packets = number(trun, 4, 4).unwrap_or(0) as usize;
        self.run = Run {
            entries: Table {
                entries: trun.get(header_bytes..).unwrap_or_default(),
                entry_bytes,
            },
            size_at: (flags & 0x200 != 0).then_some(if has_duration { 4 } else { 0 }),
            packet: 0,
            n_packets,
        };
    }
}

impl Iterator for Fragmented<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            if let Some(n_left) = self.n_missing.checked_sub(1) {
                self.n_missing = n_left;
                return Some(Place {
                    offset: self.moof_offset as u64,
                    bytes: 0,
                });
            }

            let bytes = match self.run.size_at {
                _ if self.run.packet >= self.run.n_packets => None,
                Some(at) => self.run.entries.get(self.run.packet, at),
                None => Some(self.traf_bytes),
            };
            // The run is over, or its table is cut.
            let Some(bytes) = bytes else {
                self.next_run()?;
                continue;
            };

            let offset = self.offset;
            self.offset = offset.saturating_add(bytes);
            self.run.packet += 1;
            self.n_in_fragment += 1;
            return Some(Place { offset, bytes });
        }
    }
}

/// Returns the next box of a kind.
fn next_of<'a>(boxes: &mut Boxes<'a>, kind: &[u8; 4]) -> Option<Mp4Box<'a>> {
    boxes.find(|found| found.kind == *kind)
}
