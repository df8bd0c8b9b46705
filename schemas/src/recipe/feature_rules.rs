//! What is wrong with a feature, at the keys where it stands. Which values an option may have, the crate
//! `wavemill-options` knows; here is only what depends on other sections of the recipe.

use wavemill_options::{
    Fault, Faults, FeatureArgs, MAX_TO_HZ, MIN_HZ, N_MELS_MAX, N_MFCC_MAX, Overrides, STRETCH_MIN,
};

use super::limits::{CLIP_S_MAX, LENGTH_S_MIN, ROW_BYTES_MAX};
use super::{AudioSpec, FeatureSpec};
use crate::samples::samples_in;

/// Everything impossible in `spec`, which stands at `key`: `features.1`.
pub(super) fn check(spec: &FeatureSpec, key: &str, audio: &AudioSpec, faults: &mut Faults) {
    let sample_rate_hz = audio.sample_rate_hz;
    let mut words = Faults::default();
    let overrides = spec.overrides(&mut words);
    let args = FeatureArgs::unchecked(spec.op, spec.preset, sample_rate_hz, &overrides);

    let mut found = overrides.faults(spec.op, spec.preset, sample_rate_hz);
    // Of the faults that one --set brings, the first is told: names before what is stored.
    let stored = found.iter().position(|fault| fault.key == "dtype");
    let stored = stored.unwrap_or(found.len());
    found.splice(stored..stored, words.into_vec());
    found.extend(row_bytes(&args, &overrides, audio));

    // Where nothing that stands there is wrong, what follows from it may still be impossible: 20 coefficients, which
    // are a preset's, of 10 bands.
    if found.is_empty() && (MIN_HZ..=MAX_TO_HZ).contains(&sample_rate_hz) {
        found.extend(args.validate().err());
    }

    for fault in found {
        faults.push(Fault::new(format!("{key}.{}", fault.key), fault.problem));
    }
}

/// A row of the longest clip must be something that a machine can hold and Arrow can store. `args` may be impossible.
fn row_bytes(args: &FeatureArgs, overrides: &Overrides, audio: &AudioSpec) -> Option<Fault> {
    let plain_s = audio
        .segment_s
        .unwrap_or(audio.longest_s().max(audio.duration_s.unwrap_or(0.0)));
    // Rows of open length are longer where the track is slower.
    let stretch = audio.longest_stretch();
    let is_open = audio.segment_s.is_none() && audio.duration_s.is_none();
    let row_s = if is_open { plain_s * stretch } else { plain_s };
    let hop_length = args.stft.hop_length.max(1);
    let n_samples = samples_in(row_s, audio.sample_rate_hz);
    // Centred frames stand at the hops, at both ends too: one more than there are hops.
    let n_frames =
        (n_samples as f64 / hop_length as f64 + 1.0).max(args.frames.unwrap_or(0) as f64);

    // Cepstra are made of mel bands, which are held at the same time and may be more.
    let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
    let n_orders = 1.0 + f64::from(args.delta);
    let n_bands = (args.n_base_bands() as f64 * n_orders).max(n_mels as f64);
    let bytes = n_bands * n_frames * size_of::<f32>() as f64;

    // Numbers out of range have their own fault.
    let is_sound = (LENGTH_S_MIN..=CLIP_S_MAX).contains(&plain_s)
        && stretch <= 1.0 / STRETCH_MIN
        && overrides.n_mels.is_none_or(|n_mels| n_mels <= N_MELS_MAX)
        && overrides.n_mfcc.is_none_or(|n_mfcc| n_mfcc <= N_MFCC_MAX);
    if !is_sound || bytes <= ROW_BYTES_MAX {
        return None;
    }

    // The key that made the row so long: `frames` where it pads the clip beyond its own length.
    let (key, remedy) = if args.frames.is_some_and(|frames| frames as f64 >= n_frames) {
        ("frames", "fewer frames")
    } else {
        (
            "hop_length",
            "a longer hop_length, or a smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        )
    };
    let problem = format!(
        "a row of {row_s} s would have {n_bands} x {n_frames:.0} values, {:.1} GB, at most 2.1 fit; allowed: {remedy}",
        bytes / 1e9
    );
    Some(Fault::new(key, problem))
}
