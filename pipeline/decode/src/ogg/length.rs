//! Computes an upper bound on the duration of an Ogg file from all bytes that look like headers.

use memchr::memmem;
use wavemill_signal::resample::{MAX_FROM_HZ, MIN_HZ};

use super::super::opus;

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
pub(super) fn longest_s(file: &[u8]) -> f64 {
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
pub(super) fn has_several_rates(file: &[u8]) -> bool {
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
