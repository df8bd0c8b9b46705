//! Computes an upper bound on a file's duration without decoding it, to reserve memory for the samples.
//!
//! The bound accepts every announced length, so it can be far too high for a file with false counts. If the bound is
//! too high for a caller, the caller measures the duration by decoding the file without keeping samples.

use super::formats::detect;

/// Returns an upper bound on the duration in seconds of the audio decoded from `file`; 0 if the first bytes show an
/// unsupported format.
pub fn longest_s(file: &[u8]) -> f64 {
    detect(file).longest_s(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let mut files = vec![("wav".to_owned(), wav)];
        let tones = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
        for tone in fs::read_dir(tones).unwrap() {
            let path = tone.unwrap().path();
            files.push((path.display().to_string(), fs::read(path).unwrap()));
        }
        assert!(files.len() > 6, "{} files", files.len());

        for (name, file) in &files {
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
