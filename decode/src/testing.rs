//! Decodes test files.

use wavemill_schemas::reject::Reject;
use wavemill_signal::Level;

use crate::{Decode, DecodeArgs, FileDecoder, InputHasher, Pcm};

/// Decodes a whole file to `out`. Checks that its hash and its key are those that are found without decoding.
pub(crate) fn decode(file: &[u8], rate_hz: u32, out: &mut Pcm) -> Result<(), Reject> {
    let args = DecodeArgs {
        sample_rate_hz: rate_hz,
        duration_s: None,
        min_duration_s: 0.0,
        keep_rate: false,
    };
    let mut decoder = FileDecoder::new(args, Level::Scalar).unwrap();
    decoder.decode("", file, out)?;

    let facts = InputHasher::default().read(file);
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
