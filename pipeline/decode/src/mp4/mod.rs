//! Decodes AAC and ALAC in MP4 files, also in fragments. The tables of a track state where its packets are; the decoder
//! reads them in place.
//!
//! symphonia's reader is not used: it ignores edit lists, so encoder delay would remain, looks up each packet from the
//! start of its tables, and overflows on false durations.

pub(super) mod boxes;
mod config;
mod edits;
mod tables;
#[cfg(test)]
mod tests;

use wavemill_schemas::reject::{Reason, Reject};

use self::boxes::{Boxes, find};
use self::config::Config;
use self::edits::{Recording, TimeScales};
use self::tables::{Fragmented, Listed, Place};
use super::packets::{self, AudioTrack, Content, Packet, PacketFormat};
use super::{reject, tags};

/// Boxes that may precede the index and the packets of a file of QuickTime: room for a longer header, unused bytes, and
/// a preview picture.
const LEADING_BOXES: [[u8; 4]; 6] = [*b"wide", *b"free", *b"skip", *b"junk", *b"pnot", *b"PICT"];

/// An MP4 container.
#[derive(Debug)]
pub(super) struct Mp4;

impl PacketFormat for Mp4 {
    fn matches(bytes: &[u8]) -> bool {
        // Old files of QuickTime do not have the box `ftyp`; they begin with their index or their packets.
        if bytes.get(4..8) == Some(b"ftyp") {
            return true;
        }
        let first = Boxes::new(bytes).find(|found| !LEADING_BOXES.contains(&found.kind));
        first.is_some_and(|found| matches!(&found.kind, b"moov" | b"mdat"))
    }

    /// Finds the first audio track that can be decoded, or one with too many channels if there is no other.
    fn parse(
        file: &[u8],
    ) -> Result<(AudioTrack, impl Iterator<Item = Packet<'_>> + Clone), Reject> {
        // Positions in the tables do not include a tag that another program put before the file.
        let base = tags::skip(file, 0);
        let bytes = &file[base..];
        let Some(moov) = find(bytes, &[b"moov"]) else {
            let detail = "the file ends before its index, the box `moov`";
            return Err(reject(Reason::Damaged, detail));
        };
        if find(moov, &[b"cmov"]).is_some() {
            let detail = "the compressed index of old QuickTime files is not read";
            return Err(reject(Reason::UnsupportedCodec, detail));
        }

        let mut fault = None;
        let mut many_channels = None;
        for trak in Boxes::new(moov).filter(|found| found.kind == *b"trak") {
            let hdlr = find(trak.body, &[b"mdia", b"hdlr"]).unwrap_or_default();
            if hdlr.get(8..12) != Some(b"soun") {
                continue;
            }
            let stbl = find(trak.body, &[b"mdia", b"minf", b"stbl"]).unwrap_or_default();
            match Config::parse(find(stbl, &[b"stsd"]).unwrap_or_default()) {
                Ok(config) => {
                    let is_wide = config.n_channels > packets::channels_max(config.codec);
                    // Reading a track searches the whole index, and an index may have very many tracks.
                    if is_wide && many_channels.is_some() {
                        continue;
                    }
                    let found = track(bytes, base, moov, trak.body, stbl, config);
                    if !is_wide {
                        return Ok(found);
                    }
                    many_channels = Some(found);
                }
                Err(reject) => fault = fault.or(Some(reject)),
            }
        }
        many_channels.ok_or_else(|| {
            fault.unwrap_or_else(|| reject(Reason::NoAudio, "MP4 without a track of audio"))
        })
    }
}

/// Returns the format and the packets of a track.
fn track<'a>(
    bytes: &'a [u8],
    base: usize,
    moov: &'a [u8],
    trak: &'a [u8],
    stbl: &'a [u8],
    config: Config,
) -> (AudioTrack, Packets<'a>) {
    let scales = TimeScales::read(moov, trak, config.rate_hz);
    // The durations of packets in fragments are in the fragments.
    let has_fragments = find(moov, &[b"mvex"]).is_some();
    let n_listed = (!has_fragments).then(|| tables::duration(stbl));
    let recording = Recording::read(moov, trak, &scales, n_listed);
    let track = AudioTrack {
        codec: config.codec,
        config: config.bytes,
        n_channels: config.n_channels,
        rate_hz: config.rate_hz,
        start: recording.start,
        end: recording.end,
    };

    let times = [
        config.packet_samples,
        u64::from(config.rate_hz),
        scales.track,
    ];
    let fragmented = Fragmented::new(bytes, moov, trak, times);
    let packets = Packets {
        bytes,
        base,
        packet_samples: config.packet_samples,
        listed: Listed::new(bytes.len(), stbl),
        fragmented,
        n_bytes_left: bytes.len() as u64,
        next: None,
    };
    (track, packets)
}

/// Smallest size in bytes of a packet that can contain audio: an element of AAC takes four, and one of ALAC more.
const PACKET_BYTES_MIN: usize = 4;

/// Iterator over the packets of a track. Consecutive absent packets are one item.
#[derive(Clone, Debug)]
struct Packets<'a> {
    bytes: &'a [u8],
    base: usize,
    packet_samples: u64,
    /// Packets of the track's tables, which precede those of the fragments.
    listed: Listed<'a>,
    fragmented: Fragmented<'a>,
    /// Number of bytes that further packets may have together. Tables may list the same bytes again and again.
    n_bytes_left: u64,
    /// A packet after absent ones.
    next: Option<Packet<'a>>,
}

impl<'a> Packets<'a> {
    /// Returns the bytes of a packet, if they are in the file and may contain audio.
    fn data(&self, offset: u64, bytes: u64) -> Option<&'a [u8]> {
        let rest = self.bytes.get(usize::try_from(offset).ok()?..)?;
        let data = rest.get(..usize::try_from(bytes).ok()?)?;
        (data.len() >= PACKET_BYTES_MIN).then_some(data)
    }

    /// Skips all packets that are left and returns their number.
    fn skip_rest(&mut self) -> u64 {
        let n_listed = self.listed.skip_rest();
        n_listed.saturating_add(self.fragmented.skip_rest())
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }

        let mut absent: Option<Packet<'a>> = None;
        while let Some(place) = self.listed.next().or_else(|| self.fragmented.next()) {
            let (offset, n_absent) = match place {
                Place::Packet { offset, bytes } => match self.data(offset, bytes) {
                    Some(data) if bytes <= self.n_bytes_left => {
                        self.n_bytes_left -= bytes;
                        let packet = Packet {
                            offset: self.base + offset as usize,
                            n_samples: self.packet_samples,
                            content: Content::Bytes(data),
                        };
                        if absent.is_some() {
                            self.next = Some(packet);
                            return absent;
                        }
                        return Some(packet);
                    }
                    // The tables list more bytes than the file has, so this packet and the rest are not read.
                    Some(_) => (offset, self.skip_rest().saturating_add(1)),
                    None => (offset, 1),
                },
                Place::Absent { offset, n } => (offset, n),
            };

            // Report absent packets at the end of the file if they have no position.
            let end = self.bytes.len();
            let absent = absent.get_or_insert(Packet {
                offset: self.base + usize::try_from(offset).map_or(end, |offset| offset.min(end)),
                n_samples: 0,
                content: Content::Absent,
            });
            let n_samples = n_absent.saturating_mul(self.packet_samples);
            absent.n_samples = absent.n_samples.saturating_add(n_samples);
        }
        absent
    }
}
