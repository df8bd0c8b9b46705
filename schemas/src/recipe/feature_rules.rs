//! What is wrong with a feature, at the keys where it stands. Which values an option may have, the crate
//! `wavemill-options` knows; here is only what depends on other sections of the recipe.

use wavemill_options::{
    CHANNELS, Derived, Fault, Faults, FeatureArgs, MAX_TO_HZ, MIN_HZ, N_MELS_MAX, N_MFCC_MAX, Op,
    Overrides, STRETCH_MIN,
};

use super::limits::{CLIP_S_MAX, LENGTH_S_MIN, ROW_BYTES_MAX};
use super::{AudioSpec, Dataset, FeatureOp, FeatureSpec, Recipe};
use crate::samples::samples_in;

/// Everything impossible in `spec`, which stands at `key` of `recipe`: `features.1`.
pub(super) fn check(spec: &FeatureSpec, key: &str, recipe: &Recipe, faults: &mut Faults) {
    let mut found = Vec::new();
    for idle in spec.idle_keys() {
        let problem = format!("op = \"{}\" does not use it", spec.op.name());
        found.push(Fault::new(idle, problem));
    }
    match spec.op.of_audio() {
        Some(op) => found.extend(of_audio(spec, op, &recipe.audio)),
        None if spec.op == FeatureOp::Image => found.extend(spec.image().err()),
        None => found.extend(of_source(spec, recipe)),
    }

    // A data set holds recordings or pictures, and never both.
    let is_of_images = recipe.catalog.dataset == Dataset::Images;
    if is_of_images && spec.op != FeatureOp::Image {
        let problem = format!(
            "dataset = \"images\" has no audio for `{}`; allowed: image",
            spec.op.name()
        );
        found.push(Fault::new("op", problem));
    } else if !is_of_images && spec.op == FeatureOp::Image {
        let problem =
            "`image` is for dataset = \"images\"; for a picture of a spectrogram: picture";
        found.push(Fault::new("op", problem));
    }

    for fault in found {
        faults.push(Fault::new(format!("{key}.{}", fault.key), fault.problem));
    }
}

/// Everything impossible in a feature that is computed of audio.
fn of_audio(spec: &FeatureSpec, op: Op, audio: &AudioSpec) -> Vec<Fault> {
    let sample_rate_hz = audio.sample_rate_hz;
    let mut words = Faults::default();
    let overrides = spec.overrides(op, &mut words);
    let args = FeatureArgs::unchecked(op, spec.preset, sample_rate_hz, &overrides);

    let mut found = overrides.faults(op, spec.preset, sample_rate_hz);
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
    found
}

/// Everything impossible in a feature that is made of another one; what is wrong with that is told there.
fn of_source(spec: &FeatureSpec, recipe: &Recipe) -> Vec<Fault> {
    let mut faults = Faults::default();
    let derived = spec.derived(&mut faults);

    let mut found = faults.into_vec();
    let source = match spec.source_in(&recipe.features) {
        Ok(source) => source,
        Err(fault) => {
            found.push(fault);
            return found;
        }
    };
    let Ok(source) = source.resolve(&recipe.features, recipe.audio.sample_rate_hz) else {
        return found;
    };

    let args = source.derive_unchecked(derived, spec.dtype);
    found.extend(args.own_faults());
    if found.is_empty() {
        found.extend(picture_bytes(&args, &recipe.audio));
    }
    found
}

/// A picture of the longest clip must be something that a machine can hold and Arrow can store.
fn picture_bytes(args: &FeatureArgs, audio: &AudioSpec) -> Option<Fault> {
    let Some(Derived::Picture(picture)) = &args.derived else {
        return None;
    };
    let LongestRow {
        row_s, n_frames, ..
    } = longest_row(args, audio);
    let height = picture.height.unwrap_or(args.n_bands());
    let width = picture.width.map_or(n_frames, |width| width as f64);
    let bytes = (CHANNELS * height * size_of::<f32>()) as f64 * width;
    if bytes <= ROW_BYTES_MAX {
        return None;
    }

    // Heights and widths that are given are too small to be the reason.
    let problem = format!(
        "a picture of {row_s} s would have {height} x {width:.0} pixels, {:.1} GB, at most 2.1 fit; allowed: a width, or \
         a smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        bytes / 1e9
    );
    Some(Fault::new("width", problem))
}

/// The longest row that a recipe allows.
struct LongestRow {
    /// At the tempo as recorded.
    plain_s: f64,
    /// At the slowest tempo of its copies.
    row_s: f64,
    /// About as many, and not fewer.
    n_frames: f64,
}

fn longest_row(args: &FeatureArgs, audio: &AudioSpec) -> LongestRow {
    let plain_s = audio
        .segment_s
        .unwrap_or(audio.longest_s().max(audio.duration_s.unwrap_or(0.0)));

    // Rows of open length are longer where the track is slower.
    let is_open = audio.segment_s.is_none() && audio.duration_s.is_none();
    let row_s = if is_open {
        plain_s * audio.longest_stretch()
    } else {
        plain_s
    };

    let hop_length = args.stft.hop_length.max(1);
    let n_samples = samples_in(row_s, audio.sample_rate_hz);
    // Centred frames stand at the hops, at both ends too: one more than there are hops.
    let n_frames =
        (n_samples as f64 / hop_length as f64 + 1.0).max(args.frames.unwrap_or(0) as f64);

    LongestRow {
        plain_s,
        row_s,
        n_frames,
    }
}

/// A row of the longest clip must be something that a machine can hold and Arrow can store. `args` may be impossible.
fn row_bytes(args: &FeatureArgs, overrides: &Overrides, audio: &AudioSpec) -> Option<Fault> {
    let LongestRow {
        plain_s,
        row_s,
        n_frames,
    } = longest_row(args, audio);

    // Cepstra are made of mel bands, which are held at the same time and may be more.
    let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
    let n_orders = 1.0 + f64::from(args.delta);
    let n_bands = (args.n_base_bands() as f64 * n_orders).max(n_mels as f64);
    let bytes = n_bands * n_frames * size_of::<f32>() as f64;

    // Numbers out of range have their own fault.
    let is_sound = (LENGTH_S_MIN..=CLIP_S_MAX).contains(&plain_s)
        && audio.longest_stretch() <= 1.0 / STRETCH_MIN
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
