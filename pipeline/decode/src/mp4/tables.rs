//! Finds the packets of a track by its tables, and by those of the fragments after them.
//!
//! Tables are slices of the file, so they allocate nothing. They may announce more packets than the file contains, and
//! packets anywhere in the file.
//!
//! Source: ISO/IEC 14496-12 §8.6.1.2 (`stts`), §8.7 (`stsc`, `stsz`, `stco`), §8.8 (`moof`).

use memchr::memmem;

use super::PACKET_BYTES_MIN;
use super::boxes::{Boxes, find, number};
use crate::loss::credible_max;

/// A place that the tables of a track list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A packet at this position, with this size in bytes.
    Packet { offset: u64, bytes: u64 },
    /// `n` packets, the first of which would be at `offset`; `u64::MAX` if their position is not known.
    Absent { offset: u64, n: u64 },
}

impl Place {
    /// Returns the place of `n` packets whose position is not known.
    fn unknown(n: u64) -> Self {
        Self::Absent {
            offset: u64::MAX,
            n,
        }
    }
}

/// Returns true if no packet of this size at `offset` or later can contain audio. Packets of equal size take no space
/// in a table, so there may be billions of them.
fn are_all_absent(bytes: u64, offset: u64, file_bytes: u64) -> bool {
    bytes < PACKET_BYTES_MIN as u64 || offset >= file_bytes
}

/// Largest number of tracks whose default size of packets is read: real files have a few. Each `traf` box searches
/// their list.
const DEFAULTS_MAX: usize = 64;

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
    file_bytes: u64,
    /// Size of all packets, or 0 if `sizes` contains them.
    equal_bytes: u64,
    sizes: Table<'a>,
    /// Number of packets that are left.
    n_packets: u64,
    /// Entries of the first chunk, packets per chunk, and description.
    runs: Table<'a>,
    chunks: Table<'a>,
    has_long_offsets: bool,
    /// Numbers of the next packet, run and chunk.
    packet: usize,
    run: usize,
    chunk: usize,
    /// Packets left in the current chunk, and the offset of the next one.
    n_left: u64,
    offset: u64,
}

impl<'a> Listed<'a> {
    pub(super) fn new(file_bytes: usize, stbl: &'a [u8]) -> Self {
        let stsz = find(stbl, &[b"stsz"]).unwrap_or_default();
        let stco = find(stbl, &[b"stco"]);
        let co64 = find(stbl, &[b"co64"]);

        let equal_bytes = number(stsz, 4, 4).unwrap_or(0);
        let sizes = Table::new(Some(stsz), 12, 4);
        let n_packets = match equal_bytes {
            0 => sizes.len() as u64,
            _ => number(stsz, 8, 4).unwrap_or(0),
        };
        Self {
            file_bytes: file_bytes as u64,
            equal_bytes,
            sizes,
            n_packets,
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

    /// Skips all packets that are left and returns their number.
    pub(super) fn skip_rest(&mut self) -> u64 {
        std::mem::take(&mut self.n_packets)
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
        if self.n_packets == 0 {
            return None;
        }
        if self.next_chunk().is_none() {
            // The file states the number of these packets, but not where they are.
            return Some(Place::unknown(std::mem::take(&mut self.n_packets)));
        }

        let offset = self.offset;
        if self.equal_bytes > 0 && are_all_absent(self.equal_bytes, offset, self.file_bytes) {
            let n = std::mem::take(&mut self.n_left).min(self.n_packets);
            self.n_packets -= n;
            return Some(Place::Absent { offset, n });
        }

        let bytes = match self.equal_bytes {
            0 => self.sizes.get(self.packet, 0)?,
            equal => equal,
        };
        self.offset = offset.saturating_add(bytes);
        self.packet += 1;
        self.n_left -= 1;
        self.n_packets -= 1;
        Some(Place::Packet { offset, bytes })
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
///
/// Damage to one box hides all later ones from a reader that follows their sizes. So fragments are searched for, and
/// their decode times reveal how many packets are missing before them.
#[derive(Clone, Debug)]
pub(super) struct Fragmented<'a> {
    file: &'a [u8],
    /// Defaults of the tracks.
    mvex: &'a [u8],
    track_id: u64,
    /// Number of units of the track's time scale per packet; 0 if it is not known.
    packet_time: u64,
    /// Offset at which the search for the next fragment begins.
    at: usize,
    trafs: Boxes<'a>,
    truns: Boxes<'a>,
    traf: Traf,
    run: Run<'a>,
    /// Decode time at which the first packet of all fragments would have begun.
    begin: Option<u64>,
    /// Number of packets so far, and of those that are missing between them.
    n_found: u64,
    n_missing: u64,
}

/// Positions and defaults of a `traf` box.
#[derive(Clone, Copy, Debug, Default)]
struct Traf {
    moof_offset: u64,
    /// True until a `traf` box of the fragment has been read.
    is_first: bool,
    /// Offset to which the offsets of runs refer.
    base: u64,
    /// Size of a packet if its run does not state it.
    packet_bytes: u64,
    /// Offset of the end of the data so far.
    end: u64,
}

/// The packets of one `trun` box.
#[derive(Clone, Debug, Default)]
struct Run<'a> {
    entries: Table<'a>,
    /// Position of the size within an entry; `None` if all packets have the size of the fragment.
    size_at: Option<usize>,
    packet: usize,
    n_packets: usize,
}

impl<'a> Fragmented<'a> {
    /// Creates the iterator. A packet has `packet_samples` samples at a rate of `rate_hz`, and the track has
    /// `time_scale` units of time per second.
    pub(super) fn new(
        file: &'a [u8],
        moov: &'a [u8],
        trak: &[u8],
        [packet_samples, rate_hz, time_scale]: [u64; 3],
    ) -> Self {
        // Two dates of 32 or 64 bits precede the number of the track.
        let tkhd = find(trak, &[b"tkhd"]).unwrap_or_default();
        let id_at = if tkhd.first() == Some(&1) { 20 } else { 12 };
        let packet_time = (packet_samples * time_scale).checked_div(rate_hz);

        // Only a file with the box `mvex`, which contains defaults for each track, has fragments.
        let mvex = find(moov, &[b"mvex"]);

        Self {
            file: if mvex.is_some() { file } else { &[] },
            mvex: mvex.unwrap_or_default(),
            track_id: number(tkhd, id_at, 4).unwrap_or(0),
            packet_time: packet_time.unwrap_or(0),
            at: 0,
            trafs: Boxes::new(&[]),
            truns: Boxes::new(&[]),
            traf: Traf::default(),
            run: Run::default(),
            begin: None,
            n_found: 0,
            n_missing: 0,
        }
    }

    /// Skips all packets that are left and returns their number, with those that are missing between them. Packets of a
    /// run are not read one by one, because a run of a few bytes may list billions of them.
    pub(super) fn skip_rest(&mut self) -> u64 {
        let mut n_skipped = 0_u64;
        loop {
            let n_left = self.run.n_left();
            self.run = Run::default();
            self.n_found += n_left;
            n_skipped = n_skipped.saturating_add(n_left);

            let Some(n_missing) = self.next_run() else {
                return n_skipped;
            };
            n_skipped = n_skipped.saturating_add(n_missing);
        }
    }

    /// Starts the next run of the track; `None` after the last one. Returns the number of packets that are missing
    /// before it.
    fn next_run(&mut self) -> Option<u64> {
        loop {
            if let Some(trun) = self.truns.find(|found| found.kind == *b"trun") {
                self.run = self.traf.run(trun.body);
                return Some(0);
            }
            if let Some(traf) = self.trafs.find(|found| found.kind == *b"traf") {
                if self.start_traf(traf.body) {
                    let n_missing = self.n_missing_before(traf.body);
                    if n_missing > 0 {
                        return Some(n_missing);
                    }
                }
                continue;
            }
            self.next_fragment()?;
        }
    }

    /// Starts the next fragment.
    fn next_fragment(&mut self) -> Option<()> {
        loop {
            // Sizes of boxes may be damaged, so search for the name of the box, which follows its size of four bytes.
            let name_at = self.at + memmem::find(self.file.get(self.at..)?, b"moof")?;
            self.at = name_at + 4;
            let Some(offset) = name_at.checked_sub(4) else {
                continue;
            };

            // Boxes end at the next fragment at the latest, so that damaged sizes never cause a second reading.
            let rest = &self.file[self.at..];
            let end = self.at + memmem::find(rest, b"moof").unwrap_or(rest.len());
            let Some(moof) = Boxes::new(&self.file[offset..end]).next() else {
                continue;
            };
            let first = Boxes::new(moof.body).next();
            if first.is_none_or(|found| found.kind != *b"mfhd") {
                continue;
            }

            let offset = offset as u64;
            self.trafs = Boxes::new(moof.body);
            self.traf = Traf {
                moof_offset: offset,
                is_first: true,
                end: offset,
                ..Traf::default()
            };
            return Some(());
        }
    }

    /// Reads the head of a `traf` box. Returns `false` if it is of another track.
    fn start_traf(&mut self, body: &'a [u8]) -> bool {
        let tfhd = find(body, &[b"tfhd"]).unwrap_or_default();
        let track_id = number(tfhd, 4, 4);
        let flags = number(tfhd, 0, 4).unwrap_or(0);
        // Optional fields follow each other: offset, description, duration, size.
        let sizes = [(1, 8), (2, 4), (8, 4)];
        let fields = sizes.iter().filter(|(flag, _)| flags & flag != 0);
        let size_at = 8 + fields.map(|(_, bytes)| bytes).sum::<usize>();
        let packet_bytes = number(tfhd, size_at, 4).filter(|_| flags & 16 != 0);

        let traf = &mut self.traf;
        // Without an offset, positions refer to the fragment, or to the end of the data of the track before.
        let is_by_moof = flags & 0x2_0000 != 0 || std::mem::take(&mut traf.is_first);
        traf.base = match number(tfhd, 8, 8).filter(|_| flags & 1 != 0) {
            Some(offset) => offset,
            None if is_by_moof => traf.moof_offset,
            None => traf.end,
        };
        traf.end = traf.base;
        traf.packet_bytes =
            packet_bytes.unwrap_or_else(|| default_bytes(self.mvex, track_id.unwrap_or(0)));

        let is_of_track = track_id == Some(self.track_id);
        self.truns = Boxes::new(if is_of_track { body } else { &[] });
        if !is_of_track {
            for trun in Boxes::new(body).filter(|found| found.kind == *b"trun") {
                let run = traf.run(trun.body);
                traf.end = traf.end.saturating_add(run.bytes(traf.packet_bytes));
            }
        }
        is_of_track
    }

    /// Returns the number of packets that are missing before a `traf` box according to its decode time.
    fn n_missing_before(&mut self, traf: &[u8]) -> u64 {
        let tfdt = find(traf, &[b"tfdt"]).unwrap_or_default();
        let time_bytes = if tfdt.first() == Some(&1) { 8 } else { 4 };
        let Some(time) = number(tfdt, 4, time_bytes).filter(|_| self.packet_time > 0) else {
            return 0;
        };

        let n_before = self.n_found + self.n_missing;
        let elapsed = n_before.saturating_mul(self.packet_time);
        // A stream that was cut from a longer one begins at any time.
        let begin = *self.begin.get_or_insert(time.saturating_sub(elapsed));
        let gap = time.saturating_sub(begin.saturating_add(elapsed));
        let n_missing = gap.saturating_add(self.packet_time / 2) / self.packet_time;

        // A time that is not credible is wrong, so the time goes on from here.
        let n_all = self
            .n_found
            .saturating_add(self.n_missing)
            .saturating_add(n_missing);
        if n_all > credible_max(self.n_found) {
            self.begin = Some(time.saturating_sub(elapsed));
            return 0;
        }
        self.n_missing += n_missing;
        n_missing
    }
}

impl Traf {
    /// Starts a run, whose data follow those before it unless it states an offset.
    fn run<'a>(&mut self, trun: &'a [u8]) -> Run<'a> {
        let flags = number(trun, 0, 4).unwrap_or(0);
        let mut header_bytes = 8;
        if flags & 1 != 0 {
            // The offset is signed.
            let delta = number(trun, 8, 4).unwrap_or(0) as u32 as i32;
            self.end = self.base.saturating_add_signed(i64::from(delta));
            header_bytes += 4;
        }
        if flags & 4 != 0 {
            header_bytes += 4;
        }

        let has_duration = flags & 0x100 != 0;
        let entries = Table {
            entries: trun.get(header_bytes..).unwrap_or_default(),
            entry_bytes: 4 * (flags >> 8 & 15).count_ones() as usize,
        };
        Run {
            entries,
            size_at: (flags & 0x200 != 0).then_some(if has_duration { 4 } else { 0 }),
            packet: 0,
            n_packets: number(trun, 4, 4).unwrap_or(0) as usize,
        }
    }
}

impl Run<'_> {
    /// Returns the number of packets that are left, without those after the end of a table that is cut.
    fn n_left(&self) -> u64 {
        let n_packets = match self.size_at {
            Some(_) => self.n_packets.min(self.entries.len()),
            None => self.n_packets,
        };
        n_packets.saturating_sub(self.packet) as u64
    }

    /// Returns the size of a packet in bytes; `None` if the table is cut before it.
    fn packet_bytes(&self, packet: usize, default: u64) -> Option<u64> {
        match self.size_at {
            Some(at) => self.entries.get(packet, at),
            None => Some(default),
        }
    }

    /// Returns the size of all packets in bytes, each of `default` bytes if the run does not state them.
    fn bytes(&self, default: u64) -> u64 {
        match self.size_at {
            Some(_) => (0..self.n_packets)
                .map_while(|packet| self.packet_bytes(packet, default))
                .sum(),
            None => default.saturating_mul(self.n_packets as u64),
        }
    }
}

impl Iterator for Fragmented<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            let default = self.traf.packet_bytes;
            let bytes = (self.run.packet < self.run.n_packets)
                .then(|| self.run.packet_bytes(self.run.packet, default));
            let Some(bytes) = bytes.flatten() else {
                // The run is over, or its table is cut.
                self.run = Run::default();
                match self.next_run()? {
                    0 => continue,
                    n_missing => return Some(Place::unknown(n_missing)),
                }
            };

            let offset = self.traf.end;
            let is_equal = self.run.size_at.is_none();
            if is_equal && are_all_absent(bytes, offset, self.file.len() as u64) {
                let n = (self.run.n_packets - self.run.packet) as u64;
                self.traf.end = offset.saturating_add(bytes.saturating_mul(n));
                self.run = Run::default();
                self.n_found += n;
                return Some(Place::Absent { offset, n });
            }

            self.traf.end = offset.saturating_add(bytes);
            self.run.packet += 1;
            self.n_found += 1;
            return Some(Place::Packet { offset, bytes });
        }
    }
}

/// Returns the size of a track's packets if its fragments do not state it.
fn default_bytes(mvex: &[u8], track_id: u64) -> u64 {
    let boxes = Boxes::new(mvex).take(DEFAULTS_MAX);
    let mut trexes = boxes.filter(|found| found.kind == *b"trex");
    let trex = trexes.find(|trex| number(trex.body, 4, 4) == Some(track_id));
    trex.and_then(|trex| number(trex.body, 16, 4)).unwrap_or(0)
}
