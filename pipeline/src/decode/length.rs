//! How long a file can be at most, found without decoding it: what memory its samples are given.
//!
//! Nothing announced is left out, so this can be far too much for a file that lies. Whoever finds it to be too much
//! measures the file by decoding it into nothing.

use memchr::{memchr, memmem};

use super::sniff::{Format, sniff};
use super::{mp3, wav};

/// Seconds of audio that decoding `file` can give at most; 0 where it will be a reject for its first bytes.
#[must_use]
pub fn longest_s(file: &[u8]) -> f64 {
    match sniff(file) {
        Format::Mpeg => mp3::longest_s(file),
        Format::Wav => wav::longest_s(file),
        Format::Flac => flac_longest_s(file),
        Format::Ogg => ogg_longest_s(file),
        Format::Unsupported(_) => 0.0,
    }
}

/// The block of a FLAC file's metadata that says what its stream is: rate and length, after four sizes.
const FLAC_INFO_RATE_AT: usize = 10;
/// CRC-8 of FLAC frame headers: x^8 + x^2 + x + 1.
const FLAC_CRC8: u8 = 0x07;
/// Longest FLAC frame header without its checksum.
const FLAC_HEADER_BYTES_MAX: usize = 15;

/// What is announced, or the blocks of everything that looks like a frame header with the right checksum, if they are
/// more.
fn flac_longest_s(file: &[u8]) -> f64 {
    let Some(start) = memmem::find(file, b"fLaC") else { return 0.0 };
    let info = &file[start..];
    let Some(&[a, b, c, d, ..]) = info.get(8 + FLAC_INFO_RATE_AT..8 + FLAC_INFO_RATE_AT + 8) else { return 0.0 };
    let rate_hz = u32::from(a) << 12 | u32::from(b) << 4 | u32::from(c) >> 4;
    let low = info[8 + FLAC_INFO_RATE_AT + 4..].iter().take(4).fold(0, |n, &byte| n << 8 | u64::from(byte));
    let announced = u64::from(d & 15) << 32 | low;

    let (mut at, mut in_blocks, mut last) = (start, 0, 0);
    while let Some(hop) = memchr(0xFF, &file[at..]) {
        at += hop;
        if let Some((samples, end)) = flac_block(&file[at..]) {
            in_blocks += samples;
            last = end.max(last);
        }
        at += 1;
    }
    announced.max(in_blocks).max(last) as f64 / f64::from(rate_hz.max(1))
}

/// Samples of the frame whose header `bytes` begins with, and where they end by its own number.
fn flac_block(bytes: &[u8]) -> Option<(u64, u64)> {
    let &[0xFF, sync, sizes, _, ..] = bytes else { return None };
    if sync & 0xFE != 0xF8 || sizes >> 4 == 0 || sizes & 15 == 15 {
        return None;
    }

    // The frame's or sample's number, as UTF-8 codes it.
    let first = *bytes.get(4)?;
    let n_more = match first.leading_ones() as usize {
        0 => 0,
        ones @ 2..=7 => ones - 1,
        _ => return None,
    };
    let bits = u64::from(first & (0x7F_u8 >> n_more.min(7)));
    let number = bytes.get(5..5 + n_more)?.iter().fold(bits, |n, byte| n << 6 | u64::from(byte & 63));
    let behind = 5 + n_more;

    let big_endian = |n: usize| Some(bytes.get(behind..behind + n)?.iter().fold(0, |n, &b| n << 8 | u64::from(b)));
    let (samples, n_size) = match sizes >> 4 {
        1 => (192, 0),
        code @ 2..=5 => (576 << (code - 2), 0),
        6 => (big_endian(1)? + 1, 1),
        7 => (big_endian(2)? + 1, 2),
        code => (256 << (code - 8), 0),
    };
    let n_rate = match sizes & 15 {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    let end = behind + n_size + n_rate;
    debug_assert!(end <= FLAC_HEADER_BYTES_MAX);
    if crc8(bytes.get(..end)?) != *bytes.get(end)? {
        return None;
    }

    // Streams of one block size count frames, others samples.
    let start = if sync & 1 == 0 { number.saturating_mul(samples) } else { number };
    Some((samples, start.saturating_add(samples)))
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ FLAC_CRC8 })
    })
}

/// The fixed part of an Ogg page's header.
const OGG_HEADER_BYTES: usize = 27;
/// Half the longest block of Vorbis: what one packet can give.
const VORBIS_PACKET_SAMPLES_MAX: u64 = 4_096;

/// The packets that end on anything that looks like a page, each as long as the stream's longest, or the time that the
/// pages' numbers go through, if that is more.
fn ogg_longest_s(file: &[u8]) -> f64 {
    let mut packets = 0;
    let (mut told, mut before) = (0_u64, None);
    for at in memmem::find_iter(file, b"OggS") {
        let Some(header) = file.get(at..at + OGG_HEADER_BYTES) else { break };
        let n_lacing = usize::from(header[26]);
        let lacing = &file[at + OGG_HEADER_BYTES..file.len().min(at + OGG_HEADER_BYTES + n_lacing)];
        packets += lacing.iter().filter(|&&value| value < 255).count() as u64;

        let word = |at: usize| header[at..].iter().take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
        let (granule, serial) = (word(6), word(14) as u32);
        if granule != u64::MAX {
            let from = before.filter(|&(last, _)| last == serial).map_or(0, |(_, granule)| granule);
            told = told.saturating_add(granule.saturating_sub(from));
            before = Some((serial, granule));
        }
    }

    let (mut rate_hz, mut packet_samples) = (None, 0);
    for at in memmem::find_iter(file, b"\x01vorbis") {
        let Some(ident) = file.get(at + 7..at + 29) else { break };
        let hz = u32::from_le_bytes([ident[5], ident[6], ident[7], ident[8]]);
        rate_hz = Some(rate_hz.map_or(hz, |least: u32| least.min(hz)));
        packet_samples = VORBIS_PACKET_SAMPLES_MAX.min(1 << (ident[21] >> 4) >> 1).max(packet_samples);
    }
    // Another codec: whoever wants to know must measure it.
    let Some(rate_hz) = rate_hz else { return f64::INFINITY };
    packets.saturating_mul(packet_samples).max(told) as f64 / f64::from(rate_hz.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decode, DecodeArgs, Pcm, SymphoniaDecoder};
    use wavemill_kernels::Level;

    /// How much more than there is may be thought possible of a sound file: the packets of Vorbis are of two lengths.
    const EXCESS_MAX: f64 = 2.5;

    #[test]
    fn no_file_is_longer_than_it_can_be() {
        let args = DecodeArgs { sample_rate_hz: 22_050, duration_s: None, min_duration_s: 0.01, keep_rate: false };
        let mut decoder = SymphoniaDecoder::new(args, Level::Scalar).expect("22,050 Hz");
        for (name, file) in [
            ("ogg", &include_bytes!("../../tests/data/tone_32000_mono.ogg")[..]),
            ("flac", &include_bytes!("../../tests/data/tone_32000_stereo.flac")[..]),
        ] {
            let mut pcm = Pcm::default();
            decoder.decode("", file, &mut pcm).expect("a sound file");
            let (most, is) = (longest_s(file), f64::from(pcm.duration_s));
            assert!(most >= is - 1e-4 && most <= is * EXCESS_MAX, "{name}: {is} s, {most} s are thought possible");
            let measured = decoder.measure("", file, &mut Pcm::default()).expect("a sound file");
            assert!((measured - is).abs() < 1e-4, "{name}: {is} s, measured {measured} s");
            for cut in (0..file.len()).step_by(7) {
                assert!(longest_s(&file[..cut]) >= 0.0, "{name} cut at {cut}");
            }
        }
    }
}
