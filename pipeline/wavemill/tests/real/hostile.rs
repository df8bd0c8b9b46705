//! Files that once broke a guarantee of the decoder; each has a fixed, reviewed outcome.

use std::path::Path;

use wavemill_schemas::reject::Reason::TooLarge;
use wavemill_tests::{Failed, Trial, real};

use super::decode::Outcome::{self, Reject as No, Row};
use super::decode::{decode, decoder, mismatch};

/// WAVE files with a header of 65,535 channels, after 5,000 bytes of another chunk or after a valid header.
#[rustfmt::skip]
const WAV: [(&str, Outcome); 2] = [
    ("hostile/panic_wav/g/late_65535.wav", No(TooLarge)),
    ("hostile/panic_wav/g/two_fmt_65535.wav", No(TooLarge)),
];

/// FLAC clips of 1.5 seconds at 44.1 kHz whose header announces the correct length, 8.6 million seconds, no length, and
/// 1,000 samples.
#[rustfmt::skip]
const FLAC: [(&str, Outcome); 4] = [
    ("hostile/flac_total/20_ref.flac", Row(66_150, 0.0)),
    ("hostile/flac_total/23_total_max.flac", Row(66_150, 0.0)),
    ("hostile/flac_total/24_total_0.flac", Row(66_150, 0.0)),
    ("hostile/flac_total/25_total_1000.flac", Row(66_150, 0.0)),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real(
            "hostile::wav_headers_are_rejects_with_their_reason",
            |data| outcomes(data, &WAV),
        ),
        real(
            "hostile::what_a_flac_announces_counts_as_far_as_it_can_be",
            |data| outcomes(data, &FLAC),
        ),
    ]
}

fn outcomes(data: &Path, files: &[(&str, Outcome)]) -> Result<(), Failed> {
    let mut decoder = decoder(44_100, None, 0.1);
    let faults: Vec<_> = files
        .iter()
        .filter_map(|(name, outcome)| {
            mismatch(name, outcome, &decode(&mut decoder, &data.join(name)))
        })
        .collect();

    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}
