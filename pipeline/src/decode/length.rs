//! How long a file can be at most, found without decoding it: what memory its samples are given.
//!
//! Nothing announced is left out, so this can be far too much for a file that lies. Whoever finds it to be too much
//! measures the file by decoding it into nothing.

use memchr::memmem;
use wavemill_kernels::resample::{MAX_FROM_HZ, MIN_HZ};

use super::sniff::{Format, sniff};
use super::{flac, mp3, ogg, wav};

/// Seconds of audio that decoding `file` can give at most; 0 where it will be a reject for its first bytes.
#[must_use]
pub fn longest_s(file: &[u8]) -> f64 {
    match sniff(file) {
        Format::Mpeg => mp3::longest_s(file),
        Format::Wav => wav::longest_s(file),
        Format::Flac => flac::longest_s(file),
        Format::Ogg if ogg::holds_flac(file) => flac::longest_s(file),
        Format::Ogg => ogg_longest_s(file),
        Format::Unsupported(_) => 0.0,
    }
}

/// The fixed part of an Ogg page's header.
const OGG_HEADER_BYTES: usize = 27;
/// Half the longest block of Vorbis: what one packet can give.
const VORBIS_PACKET_SAMPLES_MAX: u64 = 4_096;

/// The packets that end on anything that looks like a page, each as long as the stream's longest, or the time that the
/// pages' numbers go through, if that is more.
fn ogg_longest_s(file: &[u8]) -> f64 {
    // Without an identification header nothing bounds the packets. Such a file is measured, which ends in a reject.
    let Some(idents) = VorbisIdents::of(file) else {
        return f64::INFINITY;
    };
    let pages = OggPages::of(file);

    let n_samples = pages.n_packets.saturating_mul(idents.packet_samples_max);
    let n_samples = n_samples.max(pages.granule_samples);
    // The lowest rate gives the longest time. Rates that are not decoded count as the nearest one that is, as they do
    // in `ogg/run.rs`.
    n_samples as f64 / f64::from(idents.rate_hz_min.clamp(MIN_HZ, MAX_FROM_HZ))
}

/// What everything that looks like a page says together.
struct OggPages {
    /// Packets that end on them.
    n_packets: u64,
    /// Samples that their granules go through.
    granule_samples: u64,
}

impl OggPages {
    fn of(file: &[u8]) -> Self {
        let mut pages = Self {
            n_packets: 0,
            granule_samples: 0,
        };
        let mut last = None; // the serial number and the granule of the last page that tells a time

        // No checksum is looked at, and a page within another one counts too. Both only make the bound higher.
        for at in memmem::find_iter(file, b"OggS") {
            let Some(header) = file.get(at..at + OGG_HEADER_BYTES) else {
                break;
            };
            let lacing_at = at + OGG_HEADER_BYTES;
            let lacing_end = lacing_at + usize::from(header[26]);
            let lacing = &file[lacing_at..lacing_end.min(file.len())];
            // A value under 255 ends a packet.
            pages.n_packets += lacing.iter().filter(|&&value| value < 255).count() as u64;

            let granule = little_endian(&header[6..14]);
            let serial = little_endian(&header[14..18]);
            // No packet ends on a page with this granule.
            if granule == u64::MAX {
                continue;
            }
            // Pages of streams side by side alternate. A page behind one of another stream counts from 0, which is too
            // much and never too little.
            let from = match last {
                Some((last_serial, granule)) if last_serial == serial => granule,
                _ => 0,
            };
            pages.granule_samples = pages
                .granule_samples
                .saturating_add(granule.saturating_sub(from));
            last = Some((serial, granule));
        }
        pages
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    let most_first = bytes.iter().rev();
    most_first.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The extremes of everything that looks like an identification header of Vorbis.
struct VorbisIdents {
    rate_hz_min: u32,
    /// What one packet gives at most.
    packet_samples_max: u64,
}

impl VorbisIdents {
    /// `None` where there is none.
    fn of(file: &[u8]) -> Option<Self> {
        let mut idents: Option<Self> = None;
        for at in memmem::find_iter(file, b"\x01vorbis") {
            let Some(ident) = file.get(at + 7..at + 29) else {
                break;
            };
            let rate_hz = u32::from_le_bytes([ident[5], ident[6], ident[7], ident[8]]);
            // Byte 28 of the packet holds the exponents of both block sizes, that of the long one in its upper half
            // (Vorbis I §4.2.2).
            let half_long_block: u64 = 1 << (ident[21] >> 4) >> 1;

            let extremes = idents.get_or_insert(Self {
                rate_hz_min: rate_hz,
                packet_samples_max: 0,
            });
            extremes.rate_hz_min = extremes.rate_hz_min.min(rate_hz);
            extremes.packet_samples_max = extremes
                .packet_samples_max
                .max(half_long_block.min(VORBIS_PACKET_SAMPLES_MAX));
        }
        idents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::wav::testing::{chunk, fmt, riff};
    use crate::decode::{Decode, DecodeArgs, Pcm, SymphoniaDecoder};
    use wavemill_kernels::Level;

    /// How much more than there is may be thought possible of a sound file: the packets of Vorbis are of two lengths.
    const EXCESS_MAX: f64 = 2.5;

    #[test]
    fn no_file_is_longer_than_it_can_be() {
        let args = DecodeArgs {
            sample_rate_hz: 22_050,
            duration_s: None,
            min_duration_s: 0.01,
            keep_rate: false,
        };
        let mut decoder = SymphoniaDecoder::new(args, Level::Scalar).expect("22,050 Hz");
        let wav = {
            let data = vec![7; 2 * 22_050];
            riff(&[fmt(1, 1, 16), chunk(b"data", &data)])
        };
        let files: [(&str, &[u8]); 3] = [
            (
                "ogg",
                include_bytes!("../../tests/data/tone_32000_mono.ogg"),
            ),
            (
                "flac",
                include_bytes!("../../tests/data/tone_32000_stereo.flac"),
            ),
            ("wav", &wav),
        ];
        for (name, file) in files {
            check(&mut decoder, name, file);

            // Some programs write a tag before any format.
            let mut tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00".to_vec();
            tagged.resize(tagged.len() + 128, 0);
            tagged.extend(file);
            check(&mut decoder, &format!("{name} behind a tag"), &tagged);
        }
    }

    fn check(decoder: &mut SymphoniaDecoder, name: &str, file: &[u8]) {
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
}
