//! Decodes AAC and ALAC in MP4 files, also in fragments. The tables of a track state where its packets are; the decoder
//! reads them in place.
//!
//! symphonia's reader is not used: it ignores edit lists, so encoder delay would remain, looks up each packet from the
//! start of its tables, and overflows on false durations.

mod boxes;
mod config;
mod edits;
mod tables;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::iter::Chain;

use wavemill_schemas::reject::{Reason, Reject};

use self::boxes::{Boxes, find};
use self::config::Config;
use self::edits::{Recording, TimeScales};
use self::tables::{Fragmented, Listed};
use super::loss::credible_max;
use super::mp3::behind_tags;
use super::output::Output;
use super::packets::{self, AudioTrack, Content, Packet};
use super::{DecodeReport, InputFacts, Pcm, reject};

/// Decodes an MP4 file into `out`, which is cleared first. `audio_blake3` is computed over all packets.
///
/// # Errors
/// A [`Reject`] if the file has no track that can be decoded, or values exceed a limit.
pub(super) fn decode(
    file: &[u8],
    output: &mut Output,
    out: &mut Pcm,
) -> Result<DecodeReport, Reject> {
    let (track, packets) = parse(file)?;
    packets::decode(&track, packets, output, out)
}

/// Returns an upper bound on the duration in seconds of the audio decoded from `file`.
pub(super) fn longest_s(file: &[u8]) -> f64 {
    parse(file).map_or(0.0, |(track, packets)| packets::longest_s(&track, packets))
}

/// Returns the same hashes of an MP4 file as decoding does; none if the file has no packet.
pub(super) fn facts(file: &[u8]) -> InputFacts {
    match parse(file) {
        Ok((track, packets)) => packets::facts(&track, packets),
        Err(_) => InputFacts::default(),
    }
}

/// Finds the first audio track that can be decoded.
fn parse(file: &[u8]) -> Result<(AudioTrack, Packets<'_>), Reject> {
    // Positions in the tables do not include a tag that another program put before the file.
    let base = behind_tags(file);
    let bytes = &file[base..];
    let Some(moov) = find(bytes, &[b"moov"]) else {
        let detail = "the file ends before its index, the box `moov`";
        return Err(reject(Reason::Damaged, detail));
    };

    let mut fault = None;
    for trak in Boxes::new(moov).filter(|found| found.kind == *b"trak") {
        let hdlr = find(trak.body, &[b"mdia", b"hdlr"]).unwrap_or_default();
        if hdlr.get(8..12) != Some(b"soun") {
            continue;
        }
        let stbl = find(trak.body, &[b"mdia", b"minf", b"stbl"]).unwrap_or_default();
        match Config::parse(find(stbl, &[b"stsd"]).unwrap_or_default()) {
            Ok(config) => return Ok(track(bytes, base, moov, trak.body, stbl, config)),
            Err(reject) => fault = fault.or(Some(reject)),
        }
    }
    Err(fault.unwrap_or_else(|| reject(Reason::NoAudio, "MP4 without a track of audio")))
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
    let recording = Recording::read(moov, trak, &scales, tables::duration(stbl));
    let track = AudioTrack {
        codec: config.codec,
        config: config.bytes,
        n_channels: config.n_channels,
        rate_hz: config.rate_hz,
        start: recording.start,
        end: recording.end,
    };

    let packets = Packets {
        bytes,
        base,
        packet_samples: config.packet_samples,
        places: Listed::new(stbl).chain(Fragmented::new(bytes, moov, trak)),
        n_bytes_left: credible_max(bytes.len() as u64),
    };
    (track, packets)
}

/// Iterator over the packets of a track.
#[derive(Clone, Debug)]
struct Packets<'a> {
    bytes: &'a [u8],
    base: usize,
    packet_samples: u64,
    places: Chain<Listed<'a>, Fragmented<'a>>,
    /// Number of bytes that further packets may have together. Tables of a few bytes may list billions of packets, or
    /// the same bytes again and again.
    n_bytes_left: u64,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let place = self.places.next()?;
        self.n_bytes_left = self.n_bytes_left.checked_sub(place.bytes.max(1))?;

        let offset = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let data = rest.get(..place.bytes as usize);
        Some(Packet {
            offset: self.base + offset.min(self.bytes.len()),
            n_samples: self.packet_samples,
            content: match data {
                Some(data) if !data.is_empty() => Content::Bytes(data),
                _ => Content::Absent,
            },
        })
    }
}
