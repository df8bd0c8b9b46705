//! Operations that compute features, each with one description that recipes, kernels and devices use.

use serde::{Deserialize, Serialize};

use crate::args::FeatureArgs;
use crate::db::LogArgs;
use crate::preset::{Defaults, HopLength};

/// Option names that apply to every feature computed from audio: framing and Fourier transform.
const SPECTRUM: &[&str] = &[
    "preset",
    "n_fft",
    "hop_length",
    "win_length",
    "window",
    "center",
    "pad_mode",
    "power",
];
/// Option names that apply to mel bands.
const MEL: &[&str] = &["n_mels", "fmin", "fmax", "htk", "norm"];
/// Option names that apply to the cosine transform.
const CEPSTRA: &[&str] = &["n_mfcc", "dct_type", "lifter"];
const DELTA: &[&str] = &["delta"];
const DB: &[&str] = &["db"];
/// Option names for the stored tensor of a feature computed from audio.
const TENSOR: &[&str] = &["normalize", "dim_order", "frames"];
const SOURCE: &[&str] = &["source"];
const COLOURS: &[&str] = &["colour_map"];
const SIZE: &[&str] = &["height", "width"];
const IMAGE: &[&str] = &["crop", "filter"];

/// All option names that only some operations use, in the order of error messages. Every operation uses `name`, `op`
/// and `dtype`.
pub(crate) const KEYS: &[&[&str]] = &[
    SPECTRUM, MEL, CEPSTRA, DELTA, DB, TENSOR, SOURCE, COLOURS, SIZE, IMAGE,
];

/// `op`: the operation that computes a feature from audio, from another feature or from a picture file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Magnitude of the short-time Fourier transform, raised to the given `power`.
    Stft,
    /// Mel bands of the spectrum, in dB if `db` is given.
    #[default]
    Mel,
    /// Mel-frequency cepstral coefficients: a cosine transform of the log mel bands.
    Mfcc,
    /// [`Derived::Statistics`](crate::Derived::Statistics) of another feature.
    Statistics,
    /// [`Derived::Picture`](crate::Derived::Picture) of another feature.
    Picture,
    /// A decoded picture file: [`ImageArgs`](crate::ImageArgs).
    Image,
}

/// Description of an operation.
struct Description {
    /// Name of the operation in recipes.
    name: &'static str,
    /// Option names that apply to the operation, as groups from [`KEYS`].
    keys: &'static [&'static [&'static str]],
    /// Whether only the CPU can compute the operation, not a GPU.
    is_cpu_only: bool,
    /// Properties that only operations on audio have; otherwise `None`.
    audio: Option<AudioOp>,
}

/// Properties of an operation that computes a feature from audio.
#[derive(Clone, Copy)]
pub(crate) struct AudioOp {
    /// Name of the tensor's band axis; the other axis is `frame`.
    pub axis: &'static str,
    /// Returns the size of the band axis without deltas.
    pub n_bands: fn(&FeatureArgs) -> usize,
    /// Selects the operation's default exponent of the magnitude from a preset.
    pub power: fn(&Defaults) -> f64,
    /// Selects the operation's default hop length from a preset.
    pub hop_length: fn(&Defaults) -> HopLength,
    /// Selects the operation's default logarithm from a preset.
    pub log: fn(&Defaults) -> LogArgs,
    /// Values of the operation that f16 would round noticeably even in decibels or after normalization, with the error.
    /// If set, the default stored type is always f32.
    pub f16_rounds: Option<&'static str>,
}

impl Op {
    /// All operations.
    pub const ALL: [Self; 6] = [
        Self::Stft,
        Self::Mel,
        Self::Mfcc,
        Self::Statistics,
        Self::Picture,
        Self::Image,
    ];

    const fn description(self) -> Description {
        match self {
            Self::Stft => Description {
                name: "stft",
                keys: &[SPECTRUM, DELTA, DB, TENSOR],
                is_cpu_only: false,
                audio: Some(AudioOp {
                    axis: "bin",
                    n_bands: |args| args.stft.n_bins(),
                    power: |preset| preset.stft_power,
                    hop_length: |preset| preset.stft_hop_length,
                    log: |_| LogArgs::Linear,
                    f16_rounds: None,
                }),
            },

            Self::Mel => Description {
                name: "mel",
                keys: &[SPECTRUM, MEL, DELTA, DB, TENSOR],
                is_cpu_only: false,
                audio: Some(AudioOp {
                    axis: "mel",
                    n_bands: |args| args.mel.as_ref().map_or(0, |mel| mel.n_mels),
                    power: |preset| preset.power,
                    hop_length: |preset| preset.hop_length,
                    log: |preset| preset.mel_log,
                    f16_rounds: None,
                }),
            },

            Self::Mfcc => Description {
                name: "mfcc",
                keys: &[SPECTRUM, MEL, CEPSTRA, DELTA, DB, TENSOR],
                is_cpu_only: false,
                audio: Some(AudioOp {
                    axis: "coefficient",
                    n_bands: |args| args.mfcc.as_ref().map_or(0, |mfcc| mfcc.n_mfcc),
                    power: |preset| preset.power,
                    hop_length: |preset| preset.hop_length,
                    log: |preset| preset.mfcc_log,
                    f16_rounds: Some("MFCC by up to 0.25"),
                }),
            },

            Self::Statistics => Description {
                name: "statistics",
                keys: &[SOURCE],
                is_cpu_only: true,
                audio: None,
            },

            Self::Picture => Description {
                name: "picture",
                keys: &[SOURCE, COLOURS, SIZE],
                is_cpu_only: true,
                audio: None,
            },

            Self::Image => Description {
                name: "image",
                keys: &[SIZE, IMAGE],
                is_cpu_only: true,
                audio: None,
            },
        }
    }

    /// Returns the name used in recipes, such as `mfcc`.
    pub const fn name(self) -> &'static str {
        self.description().name
    }

    /// Reports whether only the CPU can compute the operation, not a GPU.
    pub const fn is_cpu_only(self) -> bool {
        self.description().is_cpu_only
    }

    /// Reports whether the feature is computed from audio, instead of another feature or a picture file.
    pub const fn is_of_audio(self) -> bool {
        self.description().audio.is_some()
    }

    /// Reports whether a key of a recipe has an effect on the operation.
    pub(crate) fn uses(self, key: &str) -> bool {
        let keys = self.description().keys;
        keys.iter().any(|keys| keys.contains(&key))
    }

    /// Reports whether the feature is computed from mel bands.
    pub(crate) fn has_mel_bands(self) -> bool {
        self.description().keys.contains(&MEL)
    }

    /// Reports whether the feature consists of cepstral coefficients.
    pub(crate) fn has_cepstra(self) -> bool {
        self.description().keys.contains(&CEPSTRA)
    }

    /// Returns a text about values of the operation that f16 would round noticeably: `MFCC by up to 0.25`.
    pub fn f16_rounds(self) -> Option<&'static str> {
        self.description().audio?.f16_rounds
    }

    /// Returns the properties that only operations on audio have. The arguments of a derived feature contain the
    /// operation of its source feature, which is always one on audio.
    ///
    /// # Panics
    /// If the operation does not compute a feature from audio.
    pub(crate) fn audio(self) -> AudioOp {
        let audio = self.description().audio;
        audio.expect("the operation is one on audio")
    }

    /// Lists the names of the operations on audio, with `conjunction` before the last: `stft, mel or mfcc`.
    pub(crate) fn audio_names(conjunction: &str) -> String {
        let ops = Self::ALL.iter().filter(|op| op.is_of_audio());
        let names: Vec<&str> = ops.map(|op| op.name()).collect();
        listed(&names, conjunction)
    }
}

fn listed(names: &[&str], conjunction: &str) -> String {
    match names {
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_operation_is_its_serialised_form() {
        for op in Op::ALL {
            let name = serde_json::to_string(&op).unwrap();
            assert_eq!(name, format!("\"{}\"", op.name()));
        }
    }

    #[test]
    fn names_are_listed_with_a_conjunction() {
        assert_eq!(listed(&["stft", "mel", "mfcc"], "or"), "stft, mel or mfcc");
    }
}
