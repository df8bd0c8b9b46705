//! Checks each channel of the layer III vectors against the limit for a full-accuracy decoder (ISO/IEC 11172-4).
//!
//! The test uses the vectors that their README calls safe for a strict test: mpg123 is within 1 LSB on them.

use std::fs;
use std::path::Path;

use wavemill_decode::Channels;
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_tests::{Failed, Trial, real};

/// Maximum RMS error for full accuracy by ISO/IEC 11172-4, with full scale ±1: 2^-15 / √12.
const RMS_MAX: f64 = 1.0 / 32_768.0 / 3.464_101_615_137_754_6;
/// Maximum difference in length, in samples. According to the README, two decoders may end two frames apart.
const END_SAMPLES_MAX: usize = 2 * 1_152;
/// Value in the last column of `manifest.csv` that marks the vectors for a strict test.
const STRICT_LSB: &str = "1";
const VECTORS: usize = 22;

/// Strict vectors that do not pass, as in docs/decoder.md. A vector that passes must be removed from the list.
const KNOWN_DEVIATIONS: [(&str, Outcome); 6] = [
    ("other_layers/ILL2_layer1.bit", Outcome::Refused),
    ("other_layers/l1-fl1.bit", Outcome::Refused),
    ("other_layers/l1-fl7.bit", Outcome::Refused),
    ("other_layers/l2-fl10.bit", Outcome::Refused),
    ("other_layers/l2-fl13.bit", Outcome::Refused),
    ("other_layers/l2-test32.bit", Outcome::Refused),
];

/// Outcome of the test of one vector.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The RMS error is below the limit.
    Passes,
    /// The RMS error is at or above the limit.
    Fails,
    /// The decoder does not support the vector's layer or kind of stream.
    Refused,
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![real(
        "conformance::layer_3_vectors_at_full_accuracy",
        vectors,
    )]
}

/// Decodes all strict vectors and prints a table of their outcomes.
fn vectors(data: &Path) -> Result<(), Failed> {
    let folder = data.join("mp3_conformance");
    let manifest = fs::read_to_string(folder.join("manifest.csv"))?;

    let strict = manifest
        .lines()
        .filter(|line| line.ends_with(&format!(",{STRICT_LSB}")));
    let names: Vec<&str> = strict.filter_map(|line| line.split(',').next()).collect();
    assert_eq!(names.len(), VECTORS, "vectors asked");

    let mut faults = Vec::new();
    for name in names {
        let (outcome, message) = match Channels::decode(&fs::read(folder.join(name))?, None) {
            Err(Reject {
                reason: Reason::UnsupportedCodec,
                detail,
                ..
            }) => (Outcome::Refused, detail),
            Err(reject) => {
                return Err(format!("{name}: {}: {}", reject.reason.name(), reject.detail).into());
            }
            Ok(got) => {
                let of_limit = rms(name, &got, &reference(&folder.join(name))?) / RMS_MAX;
                let outcome = if of_limit < 1.0 {
                    Outcome::Passes
                } else {
                    Outcome::Fails
                };
                (outcome, format!("{of_limit:.4} of the limit"))
            }
        };
        println!("{name}: {outcome:?}, {message}");

        let wanted = KNOWN_DEVIATIONS
            .iter()
            .find(|(not_met, _)| *not_met == name)
            .map_or(Outcome::Passes, |(_, wanted)| *wanted);
        if outcome != wanted {
            faults.push(format!("{name}: {outcome:?} ({message}), not {wanted:?}"));
        }
    }

    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

/// Reads the reference PCM of a test vector: interleaved 16-bit samples.
fn reference(vector: &Path) -> Result<Vec<i16>, Failed> {
    let raw = zstd::decode_all(fs::read(vector.with_extension("pcm.zst"))?.as_slice())?;
    Ok(raw
        .chunks_exact(2)
        .map(|sample| i16::from_le_bytes([sample[0], sample[1]]))
        .collect())
}

/// Returns the root mean square, full scale ±1, of the difference between wavemill's samples, rounded and clipped to
/// s16, and the reference, over all channels.
fn rms(name: &str, got: &Channels, reference: &[i16]) -> f64 {
    let n_samples = reference.len() / got.planes.len();
    let n_got = got.planes[0].len();
    assert!(
        n_got + END_SAMPLES_MAX >= n_samples,
        "{name}: {n_got} of {n_samples} samples"
    );

    // `nonstandard` vectors continue with frames of another rate, which the reference does not contain.
    let is_one_stream = !name.contains("nonstandard");
    assert!(
        !is_one_stream || n_got <= n_samples + END_SAMPLES_MAX,
        "{name}: {n_got}"
    );

    let ours = (0..n_got).flat_map(|at| got.planes.iter().map(move |plane| &plane[at]));
    let squares = ours.zip(reference).map(|(ours, reference)| {
        let s16 = (f64::from(*ours) * 32_768.0)
            .round()
            .clamp(-32_768.0, 32_767.0);
        (s16 - f64::from(*reference)).powi(2)
    });
    (squares.sum::<f64>() / reference.len() as f64).sqrt() / 32_768.0
}
