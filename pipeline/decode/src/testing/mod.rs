//! Builds test files from parts, audio and data that decoding skips, and decodes them. Each format has a file.

pub(crate) mod adts;
pub(crate) mod bits;
pub(crate) mod flac;
pub(crate) mod mp3;
pub(crate) mod mp4;
pub(crate) mod ogg;
pub(crate) mod tags;
pub(crate) mod wav;

use wavemill_schemas::reject::Reject;
use wavemill_signal::Level;

use crate::{Decode, DecodeArgs, FileDecoder, InputFacts, Pcm};

/// Decodes a whole file to `out`. Checks that its hash and its key are those that are found without decoding.
pub(crate) fn decode(file: &[u8], rate_hz: u32, out: &mut Pcm) -> Result<(), Reject> {
    let args = DecodeArgs {
        sample_rate_hz: rate_hz,
        duration_s: None,
        min_duration_s: 0.0,
        keep_rate: false,
    };
    let mut decoder = FileDecoder::new(args, Level::Scalar).expect("a rate of the tests");
    decoder.decode("", file, out)?;

    let facts = InputFacts::read(file);
    let hash = facts.audio.map(|hash| hash.to_hex().to_string());
    assert_eq!(
        hash.as_ref(),
        Some(&out.audio_blake3),
        "the hash without decoding"
    );
    assert_eq!(facts.decode, out.decode_key, "the key without decoding");
    Ok(())
}

/// Returns the number of lost samples.
pub(crate) fn n_lost(out: &Pcm, rate_hz: u32) -> usize {
    (f64::from(out.lost_s) * f64::from(rate_hz)).round() as usize
}

/// A part of a test file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub bytes: Vec<u8>,
    /// True if the part contains audio. Tags, text, an encoder's announcements and junk are not audio.
    pub is_audio: bool,
}

/// A function that creates a test file whose tags have slightly more than the given number of bytes.
pub(crate) type MakeFile = fn(usize) -> Vec<Part>;

/// Names of the test files and functions that create them.
pub(crate) const FORMATS: [(&str, MakeFile); 9] = [
    ("MP3", mp3::parts),
    ("WAV", wav::wav_parts),
    ("AIFF", wav::aiff_parts),
    ("FLAC", flac::parts),
    ("MP4", mp4::parts),
    ("ADTS", adts::parts),
    ("Ogg Opus", ogg::opus_parts),
    ("Ogg Vorbis", ogg::vorbis_parts),
    ("two links of Ogg Vorbis", ogg::two_links_parts),
];

fn audio(bytes: Vec<u8>) -> Part {
    Part {
        bytes,
        is_audio: true,
    }
}

fn other(bytes: Vec<u8>) -> Part {
    Part {
        bytes,
        is_audio: false,
    }
}

pub(crate) fn joined(parts: &[Part]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| part.bytes.iter().copied())
        .collect()
}

/// Returns bytes that do not begin an MP3 or FLAC frame or an Ogg page.
pub(crate) fn text(n_bytes: usize) -> Vec<u8> {
    (0..n_bytes).map(|at| (at * 7 % 251) as u8).collect()
}
