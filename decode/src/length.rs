//! Computes an upper bound on a file's duration without decoding it, to reserve memory for the samples.
//!
//! The bound accepts every announced length, so it can be far too high for a file with false counts. If the bound is
//! too high for a caller, the caller measures the duration by decoding the file without keeping samples.

use memchr::memmem;
use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::opus;
use super::sniff::{Format, sniff};
use super::{adts, flac, mp3, mp4, wav};

/// Returns an upper bound on the duration in seconds of the audio decoded from `file`; 0 if the first bytes show an
/// unsupported format.
pub fn longest_s(file: &[u8]) -> f64 {
    match sniff(file) {
        Format::Mpeg => mp3::longest_s(file),
        Format::Wav => wav::longest_s(file),
        Format::Adts => adts::longest_s(file),
        Format::Mp4 => mp4::longest_s(file),
        Format::Flac => flac::longest_s(file),
        Format::Ogg => ogg_longest_s(file),
        Format::Unsupported(_) => 0.0,
    }
}

/// Size of the fixed part of an Ogg page header, in bytes.
const OGG_HEADER_BYTES: usize = 27;
/// Flag in an Ogg page header: the page begins within a packet.
const OGG_CONTINUED: u8 = 1;
/// Flag in an Ogg page header: the page begins a stream.
const OGG_FIRST: u8 = 2;
/// Maximum number of samples from one Vorbis packet: half the longest block.
const VORBIS_PACKET_SAMPLES_MAX: u64 = 4_096;

/// Returns the bound for an Ogg file in seconds. Counts for each apparent page either the packets that end on the page,
/// each with the maximum length, or the time between its granule and the one before, whichever is longer.
fn ogg_longest_s(file: &[u8]) -> f64 {
    let has_opus = memmem::find(file, b"OpusHead").is_some();
    let (n_samples, rate_hz) = match (VorbisIdents::find(file), has_opus) {
        // Without an identification header the packet length is unbounded. The caller then measures the file by
        // decoding it, which ends in a reject.
        (None, false) => return f64::INFINITY,
        // The length of each packet of Opus is in its first bytes.
        (None, true) => (ogg_samples_max(file, None), opus::RATE_HZ),
        (Some(idents), false) => (
            ogg_samples_max(file, Some(idents.packet_samples_max)),
            idents.rate_hz_min,
        ),
        (Some(idents), true) => {
            let packet_samples_max = idents.packet_samples_max.max(opus::PACKET_SAMPLES_MAX);
            (
                ogg_samples_max(file, Some(packet_samples_max)),
                idents.rate_hz_min.min(opus::RATE_HZ),
            )
        }
    };

    // The lowest sample rate gives the longest time. Unsupported rates are clamped to the nearest supported one, as in
    // `ogg/run.rs`.
    n_samples as f64 / f64::from(rate_hz.clamp(MIN_HZ, MAX_FROM_HZ))
}

/// Reports whether the links of an Ogg file may have several sample rates, according to all apparent headers.
pub(super) fn has_several_ogg_rates(file: &[u8]) -> bool {
    let has_opus = memmem::find(file, b"OpusHead").is_some();
    VorbisIdents::find(file).is_some_and(|idents| {
        let is_of_opus = idents.rate_hz_max == opus::RATE_HZ;
        idents.rate_hz_min < idents.rate_hz_max || has_opus && !is_of_opus
    })
}

/// Returns an upper bound on the samples of all Ogg pages, if a packet yields at most `packet_samples_max` samples;
/// `None` if all packets are Opus.
///
/// A page yields either all its packets, or silence and packets up to its granule, whichever is more
/// (`ogg/granules.rs`). The maximum is computed per page. The maximum of the two totals would be too low: after a gap,
/// a page may yield all its packets although its granule does not advance, and the next page may yield silence for time
/// that no packet covers. In an undamaged file no granule advances by more than the packets of its page, so only the
/// packets count.
fn ogg_samples_max(file: &[u8], packet_samples_max: Option<u64>) -> u64 {
    let mut n_samples = 0_u64;
    let mut last = None; // serial number and granule of the last page with a granule

    // Page checksums are not verified, and a page within another page counts as well. Both can only raise the bound.
    for at in memmem::find_iter(file, b"OggS") {
        let Some(header) = file.get(at..at + OGG_HEADER_BYTES) else {
            break;
        };
        let lacing_at = at + OGG_HEADER_BYTES;
        let lacing_end = lacing_at + usize::from(header[26]);
        let lacing = &file[lacing_at..lacing_end.min(file.len())];
        let packets = match packet_samples_max {
            // A lacing value below 255 ends a packet.
            Some(most) => most * lacing.iter().filter(|&&value| value < 255).count() as u64,
            None => opus_samples_max(&file[lacing_end.min(file.len())..], lacing, header[5]),
        };

        let is_first = header[5] & OGG_FIRST != 0;
        let granule = little_endian(&header[6..14]);
        let serial = little_endian(&header[14..18]);
        // Negative granules are not times; −1 means that no packet ends on the page.
        let gone_through = match i64::try_from(granule) {
            Err(_) => 0,
            Ok(_) => {
                // The time of an Ogg stream starts at 0, regardless of an earlier stream with the same serial number.
                // Pages of multiplexed streams alternate; a page after one of another stream is counted from 0 too,
                // which overestimates and never underestimates the duration.
                let from = match last {
                    Some((last_serial, granule)) if last_serial == serial && !is_first => granule,
                    _ => 0,
                };
                last = Some((serial, granule));
                granule.saturating_sub(from)
            }
        };

        n_samples = n_samples.saturating_add(gone_through.max(packets));
    }
    n_samples
}

/// Returns an upper bound on the samples of the packets of Opus that end on a page with this body and these flags.
fn opus_samples_max(body: &[u8], lacing: &[u8], flags: u8) -> u64 {
    let mut n_samples = 0;
    let mut at = 0;
    // The beginning of a packet that continues on this page is on an earlier one.
    let mut begin = (flags & OGG_CONTINUED == 0).then_some(0);
    for &value in lacing {
        at += usize::from(value);
        if value < 255 {
            let packet = begin.and_then(|begin| body.get(begin..));
            let samples = packet.map(|packet| opus::packet_samples(packet).unwrap_or(0));
            n_samples += samples.unwrap_or(opus::PACKET_SAMPLES_MAX);
            begin = Some(at);
        }
    }
    n_samples
}

fn little_endian(bytes: &[u8]) -> u64 {
    let most_first = bytes.iter().rev();
    most_first.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Lowest and highest sample rate and longest packet of all apparent Vorbis identification headers of a file.
struct VorbisIdents {
    rate_hz_min: u32,
    rate_hz_max: u32,
    /// Maximum number of samples from one Vorbis packet.
    packet_samples_max: u64,
}

impl VorbisIdents {
    /// Searches a file for Vorbis identification headers; `None` if the file contains none.
    fn find(file: &[u8]) -> Option<Self> {
        let mut idents: Option<Self> = None;
        for at in memmem::find_iter(file, b"\x01vorbis") {
            let Some(ident) = file.get(at + 7..at + 29) else {
                break;
            };
            let rate_hz = u32::from_le_bytes([ident[5], ident[6], ident[7], ident[8]]);
            // Byte 28 of the packet contains the exponents of both block sizes, with the exponent of the long block in
            // the byte's upper half (Vorbis I §4.2.2).
            let half_long_block: u64 = 1 << (ident[21] >> 4) >> 1;

            let extremes = idents.get_or_insert(Self {
                rate_hz_min: rate_hz,
                rate_hz_max: rate_hz,
                packet_samples_max: 0,
            });
            extremes.rate_hz_min = extremes.rate_hz_min.min(rate_hz);
            extremes.rate_hz_max = extremes.rate_hz_max.max(rate_hz);
            extremes.packet_samples_max = extremes
                .packet_samples_max
                .max(half_long_block.min(VORBIS_PACKET_SAMPLES_MAX));
        }
        idents
    }
}

#[cfg(test)]
mod tests {
    use wavemill_signal::Level;

    use super::*;
    use crate::testing::ogg::{self as pages, FIRST, Setup};
    use crate::testing::wav::{chunk, fmt, riff};
    use crate::{Decode, DecodeArgs, FileDecoder, Pcm};

    /// Maximum ratio of the bound to an undamaged file's duration. It exceeds 1: Vorbis packets have two lengths.
    const EXCESS_MAX: f64 = 2.5;

    fn decoder() -> FileDecoder {
        let args = DecodeArgs {
            sample_rate_hz: 22_050,
            duration_s: None,
            min_duration_s: 0.01,
            keep_rate: false,
        };
        FileDecoder::new(args, Level::Scalar).expect("22,050 Hz")
    }

    #[test]
    fn longest_s_is_an_upper_bound() {
        let mut decoder = decoder();
        let wav = {
            let data = vec![7; 2 * 22_050];
            riff(&[fmt(1, 1, 16), chunk(b"data", &data)])
        };
        let files: [(&str, &[u8]); 6] = [
            ("ogg", include_bytes!("../tests/data/tone_32000_mono.ogg")),
            (
                "flac",
                include_bytes!("../tests/data/tone_32000_stereo.flac"),
            ),
            ("mp4", include_bytes!("../tests/data/tone_32000_mono.m4a")),
            ("adts", include_bytes!("../tests/data/tone_32000_mono.aac")),
            ("opus", include_bytes!("../tests/data/tone_48000_mono.opus")),
            ("wav", &wav),
        ];
        for (name, file) in files {
            check(&mut decoder, name, file);

            // Some programs prepend an ID3 tag to files of any format.
            let mut tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00".to_vec();
            tagged.resize(tagged.len() + 128, 0);
            tagged.extend(file);
            check(&mut decoder, &format!("{name} behind a tag"), &tagged);
        }
    }

    fn check(decoder: &mut FileDecoder, name: &str, file: &[u8]) {
        let mut pcm = Pcm::default();
        decoder.decode("", file, &mut pcm).expect("a sound file");
        let (most, is) = (longest_s(file), f64::from(pcm.duration_s));
        assert!(
            most >= is - 1e-4 && most <= is * EXCESS_MAX,
            "{name}: {is} s, {most} s are thought possible"
        );

        let measured = decoder
            .measure("", file, &mut Pcm::default())
            .expect("a sound file");
        assert!(
            (measured - is).abs() < 1e-4,
            "{name}: {is} s, measured {measured} s"
        );

        for cut in (0..file.len()).step_by(7) {
            assert!(longest_s(&file[..cut]) >= 0.0, "{name} cut at {cut}");
        }
    }

    /// Number of samples that a packet with a long block adds after another such packet.
    const LONG_SAMPLES: i64 = 1_024;
    /// A silent Vorbis packet with a long block.
    const LONG: &[u8] = &[2];
    /// The maximum number of packets that can end on an Ogg page.
    const FULL_PAGE: &[&[u8]] = &[LONG; 255];

    /// Returns the two pages of Vorbis headers, both with this granule.
    fn ogg_headers(granule: i64) -> Vec<pages::Page> {
        let comment = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";
        let setup = Setup::default().bytes();
        vec![
            pages::packet_page(FIRST, granule, 0, &[&pages::ident(1, 22_050)]),
            pages::packet_page(0, granule, 1, &[comment, &setup]),
        ]
    }

    #[test]
    fn alternating_holes_and_gaps_stay_within_the_ogg_bound() {
        let mut ogg = ogg_headers(0);
        ogg.push(pages::packet_page(0, 254 * LONG_SAMPLES, 2, FULL_PAGE));

        let (mut granule, mut sequence) = (254 * LONG_SAMPLES, 3);
        for _ in 0..40 {
            // After the missing page the granule does not advance, and all packets of this page are decoded.
            sequence += 1;
            ogg.push(pages::packet_page(0, granule, sequence, FULL_PAGE));

            // No packets cover half of the time by which the next granule advances.
            granule += 2 * 255 * LONG_SAMPLES;
            sequence += 1;
            ogg.push(pages::packet_page(0, granule, sequence, FULL_PAGE));
            sequence += 1;
        }

        let file = pages::bytes(&ogg);
        check(&mut decoder(), "holes and gaps by turns", &file);
    }

    #[test]
    fn missing_link_start_stays_within_the_ogg_bound() {
        let n_samples = 2 * 254 * LONG_SAMPLES;
        let mut first = ogg_headers(0);
        first.push(pages::packet_page(0, n_samples / 2, 2, FULL_PAGE));
        first.push(pages::packet_page(0, n_samples, 3, FULL_PAGE));

        // The header pages of the next link have the granule at which the first link ended. Two damaged pages follow,
        // whose duration is determined by the granule of the next page.
        let file = [
            pages::bytes(&first),
            pages::bytes(&ogg_headers(n_samples)),
            b"damaged".to_vec(),
            pages::page(&pages::packet_page(0, n_samples, 4, &[LONG])),
        ]
        .concat();

        check(&mut decoder(), "a gap at the start of a link", &file);
    }
}
