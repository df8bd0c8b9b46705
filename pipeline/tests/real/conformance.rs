//! The ISO layer III vectors: close enough to be called a full-accuracy decoder (ISO/IEC 11172-4).

use std::fs;
use std::path::Path;

use wavemill_tests::{Failed, Trial, real};

use super::decode::{decode, decoder};

/// The limit of ISO/IEC 11172-4 for full accuracy, full scale ±1: 2^-15 / √12.
const RMS_MAX: f64 = 1.0 / 32_768.0 / 3.464_101_615_137_754_6;

/// Vectors that their README calls safe for a strict test: name, rate, channels.
const STRICT: [(&str, u32, usize); 14] = [
    ("M2L3_bitrate_16_all", 16_000, 1),
    ("M2L3_bitrate_22_all", 22_050, 1),
    ("M2L3_bitrate_24_all", 24_000, 1),
    ("M2L3_compl24", 24_000, 1),
    ("M2L3_noise", 22_050, 2),
    ("l3-compl", 48_000, 1),
    ("l3-he_32khz", 32_000, 1),
    ("l3-he_44khz", 44_100, 1),
    ("l3-he_48khz", 48_000, 1),
    ("l3-hecommon", 44_100, 2),
    ("l3-si", 44_100, 1),
    ("l3-si_block", 44_100, 1),
    ("l3-si_huff", 44_100, 1),
    ("l3-nonstandard-he_44_48khz", 44_100, 1),
];

/// Vectors that fail, and shall be moved up when they no longer do.
const NOT_MET: [&str; 1] = ["l3-si_block"];

pub fn trials() -> Vec<Trial> {
    vec![real("conformance::layer_3_vectors_at_full_accuracy", vectors)]
}

fn vectors(data: &Path) -> Result<(), Failed> {
    let folder = data.join("mp3_conformance/layer3");
    let mut faults = Vec::new();
    for (name, rate_hz, n_channels) in STRICT {
        let packed = fs::read(folder.join(format!("{name}.pcm.zst")))?;
        let raw = zstd::decode_all(packed.as_slice())?;
        let reference: Vec<f64> =
            raw.chunks_exact(2).map(|sample| f64::from(i16::from_le_bytes([sample[0], sample[1]]))).collect();
        let got = decode(&mut decoder(rate_hz, None, 0.0), &folder.join(format!("{name}.bit"))).unwrap().samples;
        let n_samples = reference.len() / n_channels;
        // Length may differ by two frames at the end, says the README.
        assert!(got.len() + 2 * 1_152 >= n_samples, "{name}: {} of {n_samples} samples", got.len());
        let errors = got.iter().zip(reference.chunks_exact(n_channels)).map(|(got, want)| {
            let got = f64::from(*got) * 32_768.0;
            let want = want.iter().sum::<f64>() / n_channels as f64;
            // The mean of two rounded channels has half steps: there our own rounding is left out.
            let got = if n_channels == 1 { got.round() } else { got };
            got.clamp(-32_768.0, 32_767.0) - want
        });
        let rms = (errors.map(|error| error * error).sum::<f64>() / n_samples as f64).sqrt() / 32_768.0;
        if (rms < RMS_MAX) == NOT_MET.contains(&name) {
            faults.push(format!("{name}: {:.3} of the limit", rms / RMS_MAX));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}
