//! Validation of features. The crate `wavemill-options` knows the allowed values of the options; this module adds the
//! checks that depend on other sections of the recipe.

use wavemill_options::{
    CHANNELS, Derived, Fault, Faults, FeatureArgs, Input, MAX_TO_HZ, MIN_HZ, N_MELS_MAX,
    N_MFCC_MAX, STRETCH_MIN,
};

use super::limits::{CLIP_S_MAX, LENGTH_S_MIN, ROW_BYTES_MAX};
use super::{AudioSpec, Dataset, FeatureSpec, Op, Recipe};
use crate::samples::samples_in;

/// Adds the faults of the feature `spec`, whose key in `recipe` is `key`, such as `features.1`.
pub(super) fn check(spec: &FeatureSpec, key: &str, recipe: &Recipe, faults: &mut Faults) {
    let mut found = spec.idle_keys();
    match spec.op.input() {
        Input::Spectra(_) => found = spectral_faults(spec, &recipe.audio),
        Input::Feature => found.extend(source_faults(spec, recipe)),
        Input::Samples => found.extend(sample_faults(spec, &recipe.audio)),
        Input::File => found.extend(file_faults(spec, &recipe.audio)),
        Input::Picture => found.extend(spec.image().err()),
        Input::Model => {
            let args = spec.onnx(&recipe.features, recipe.audio.sample_rate_hz);
            found.extend(args.err());
        }
    }

    // A data set contains either recordings or pictures.
    let is_of_images = recipe.catalog.dataset == Dataset::Images;
    if is_of_images && spec.op != Op::Image {
        let problem = format!(
            "dataset = \"images\" has no audio for `{}`; allowed: image",
            spec.op.name()
        );
        found.push(Fault::new("op", problem));
    } else if !is_of_images && spec.op == Op::Image {
        let problem =
            "`image` requires dataset = \"images\"; for a picture of a spectrogram, use picture";
        found.push(Fault::new("op", problem));
    }

    // A feature is stored, or it is the source of one that is.
    let mut others = recipe.features.iter();
    let is_needed = spec.is_stored()
        || others.any(|other| other.is_stored() && other.source.as_ref() == Some(&spec.name));
    if !is_needed {
        let problem = format!(
            "nothing would be left of the feature: no stored feature has source = \"{}\"; allowed: true, or no such feature",
            spec.name
        );
        found.push(Fault::new("stored", problem));
    }

    for fault in found {
        faults.push(Fault::new(format!("{key}.{}", fault.key), fault.problem));
    }
}

/// Returns the faults of a feature that is computed from spectra, including those of options that it does not use.
fn spectral_faults(spec: &FeatureSpec, audio: &AudioSpec) -> Vec<Fault> {
    let sample_rate_hz = audio.sample_rate_hz;
    let args = spec.unchecked(sample_rate_hz);
    let mut found = spec.audio_faults(sample_rate_hz);
    found.extend(row_bytes(&args, spec, audio));

    // If no given option has a fault, the combination may still be impossible: 20 coefficients, the preset's default,
    // from 10 bands.
    if found.is_empty() && (MIN_HZ..=MAX_TO_HZ).contains(&sample_rate_hz) {
        found.extend(args.validate().err());
    }
    found
}

/// Returns the faults of a feature that is derived from another feature, without the faults of its source.
fn source_faults(spec: &FeatureSpec, recipe: &Recipe) -> Vec<Fault> {
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

/// Returns the faults of a feature that consists of samples.
fn sample_faults(spec: &FeatureSpec, audio: &AudioSpec) -> Vec<Fault> {
    let args = match spec.tensor_args(&[], audio.sample_rate_hz) {
        Ok(args) => args,
        Err(fault) => return vec![fault],
    };
    let LongestSpan { plain_s, row_s } = longest_span(audio);
    let n_samples = samples_in(row_s, audio.sample_rate_hz);
    let bytes = n_samples as f64 * args.dtype().bytes() as f64;
    if !is_sound(plain_s, audio) || bytes <= ROW_BYTES_MAX {
        return Vec::new();
    }

    let problem = format!(
        "a row of {row_s} s would have {n_samples} samples, {:.1} GB, more than the limit of 2.1 GB; allowed: s16, or a \
         smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        bytes / 1e9
    );
    vec![Fault::new("dtype", problem)]
}

/// Returns the faults of a feature that consists of the clips' files.
fn file_faults(spec: &FeatureSpec, audio: &AudioSpec) -> Vec<Fault> {
    let args = spec.tensor_args(&[], audio.sample_rate_hz);
    let mut found: Vec<Fault> = args.err().into_iter().collect();

    // All features have the same rows, and a file in each row of its clip would be stored many times.
    for (key, makes_rows) in [
        ("audio.segment_s", audio.segment_s.is_some()),
        ("audio.stretch", !audio.stretch.is_empty()),
    ] {
        if makes_rows {
            let problem = format!(
                "`original` stores the file of a clip in the clip's only row, but {key} makes several rows of a clip: \
                 remove one of the two"
            );
            found.push(Fault::new("op", problem));
        }
    }
    found
}

/// Checks that a picture of the longest clip fits into memory and into an Arrow value.
fn picture_bytes(args: &FeatureArgs, audio: &AudioSpec) -> Option<Fault> {
    let Some(Derived::Picture(picture)) = &args.derived else {
        return None;
    };
    let LongestSpan { row_s, .. } = longest_span(audio);
    let n_frames = longest_frames(args, row_s, audio);
    let height = picture.height.unwrap_or(args.n_bands());
    let width = picture.width.map_or(n_frames, |width| width as f64);
    let bytes = (CHANNELS * height * size_of::<f32>()) as f64 * width;
    if bytes <= ROW_BYTES_MAX {
        return None;
    }

    // The user's height or width is too small to be the cause, so the message suggests other keys.
    let problem = format!(
        "a picture of {row_s} s would have {height} x {width:.0} pixels, {:.1} GB, more than the limit of 2.1 GB; \
         allowed: a width, or a smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        bytes / 1e9
    );
    Some(Fault::new("width", problem))
}

/// Duration of the longest row that a recipe allows.
struct LongestSpan {
    /// Duration at the recorded tempo, in seconds.
    plain_s: f64,
    /// Duration at the slowest tempo of its stretched copies, in seconds.
    row_s: f64,
}

fn longest_span(audio: &AudioSpec) -> LongestSpan {
    let plain_s = audio
        .segment_s
        .unwrap_or(audio.longest_s().max(audio.duration_s.unwrap_or(0.0)));

    // Rows without a fixed length become longer when a track is slowed down.
    let is_open = audio.segment_s.is_none() && audio.duration_s.is_none();
    let row_s = if is_open {
        plain_s * audio.longest_stretch()
    } else {
        plain_s
    };
    LongestSpan { plain_s, row_s }
}

/// Returns the approximate number of frames of a row of `row_s` seconds, which is never too small.
fn longest_frames(args: &FeatureArgs, row_s: f64, audio: &AudioSpec) -> f64 {
    let hop_length = args.stft.hop_length.max(1);
    let n_samples = samples_in(row_s, audio.sample_rate_hz);
    // Centred frames lie on every multiple of the hop, including both ends: one more frame than hops.
    (n_samples as f64 / hop_length as f64 + 1.0).max(args.frames.unwrap_or(0) as f64)
}

/// Reports whether the durations that determine the size of a row are in range. Numbers out of range are reported as
/// faults of their own.
fn is_sound(plain_s: f64, audio: &AudioSpec) -> bool {
    (LENGTH_S_MIN..=CLIP_S_MAX).contains(&plain_s) && audio.longest_stretch() <= 1.0 / STRETCH_MIN
}

/// Checks that a row of the longest clip fits into memory and into an Arrow value. `args` may be invalid.
fn row_bytes(args: &FeatureArgs, spec: &FeatureSpec, audio: &AudioSpec) -> Option<Fault> {
    let LongestSpan { plain_s, row_s } = longest_span(audio);
    let n_frames = longest_frames(args, row_s, audio);

    // MFCC are computed from mel bands, which are in memory at the same time and may be larger.
    let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
    let n_orders = 1.0 + f64::from(args.delta);
    let n_bands = (args.n_base_bands() as f64 * n_orders).max(n_mels as f64);
    let bytes = n_bands * n_frames * size_of::<f32>() as f64;

    // Numbers out of range are reported as faults of their own, so they are not checked here.
    let is_sound = is_sound(plain_s, audio)
        && spec.n_mels.is_none_or(|n_mels| n_mels <= N_MELS_MAX)
        && spec.n_mfcc.is_none_or(|n_mfcc| n_mfcc <= N_MFCC_MAX);
    if !is_sound || bytes <= ROW_BYTES_MAX {
        return None;
    }

    // Report the key that made the row so long: `frames` if it pads the clip beyond its own length.
    let (key, remedy) = if args.frames.is_some_and(|frames| frames as f64 >= n_frames) {
        ("frames", "fewer frames")
    } else {
        (
            "hop_length",
            "a longer hop_length, or a smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        )
    };
    let problem = format!(
        "a row of {row_s} s would have {n_bands} x {n_frames:.0} values, {:.1} GB, more than the limit of 2.1 GB; \
         allowed: {remedy}",
        bytes / 1e9
    );
    Some(Fault::new(key, problem))
}
