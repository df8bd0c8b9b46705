//! Operations that compute features, each with one description that recipes, kernels and devices use.

use serde::{Deserialize, Serialize};

use crate::args::FeatureArgs;
use crate::db::LogArgs;
use crate::preset::{Defaults, HopLength};

/// Option names that apply to every feature computed from spectra: framing and Fourier transform.
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
/// Option names for the stored tensor of a feature computed from spectra.
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

/// `op`: the operation that computes a feature from a clip, from another feature or from a picture file.
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
    /// The clip's samples: [`SoundArgs::Pcm`](crate::SoundArgs::Pcm).
    Pcm,
    /// The bytes of the clip's file: [`SoundArgs::Original`](crate::SoundArgs::Original).
    Original,
}

/// The data from which an operation computes a feature.
#[derive(Clone, Copy)]
pub enum Input {
    /// Spectra of the clip's samples.
    Spectra(SpectralOp),
    /// The values of another feature.
    Feature,
    /// The clip's samples.
    Samples,
    /// The clip's file, without decoding it.
    File,
    /// The decoded picture of a picture file.
    Picture,
}

/// Description of an operation.
struct Description {
    /// Name of the operation in recipes.
    name: &'static str,
    /// Option names that apply to the operation, as groups from [`KEYS`].
    keys: &'static [&'static [&'static str]],
    /// Whether a recipe with the operation cannot use a GPU.
    is_cpu_only: bool,
    /// The data from which the feature is computed.
    input: Input,
}

/// Properties that only operations on spectra have.
#[derive(Clone, Copy)]
pub struct SpectralOp {
    /// Name of the tensor's band axis; the other axis is `frame`.
    pub(crate) axis: &'static str,
    /// Returns the size of the band axis without deltas.
    pub(crate) n_bands: fn(&FeatureArgs) -> usize,
    /// Selects the operation's default exponent of the magnitude from a preset.
    pub(crate) power: fn(&Defaults) -> f64,
    /// Selects the operation's default hop length from a preset.
    pub(crate) hop_length: fn(&Defaults) -> HopLength,
    /// Selects the operation's default logarithm from a preset.
    pub(crate) log: fn(&Defaults) -> LogArgs,
    /// Values of the operation that f16 would round noticeably even in decibels or after normalization, with the error.
    /// If set, the default stored type is always f32.
    pub(crate) f16_rounds: Option<&'static str>,
}

impl Op {
    /// All operations.
    pub const ALL: [Self; 8] = [
        Self::Stft,
        Self::Mel,
        Self::Mfcc,
        Self::Statistics,
        Self::Picture,
        Self::Image,
        Self::Pcm,
        Self::Original,
    ];

    const fn description(self) -> Description {
        match self {
            Self::Stft => Description {
                name: "stft",
                keys: &[SPECTRUM, DELTA, DB, TENSOR],
                is_cpu_only: false,
                input: Input::Spectra(SpectralOp {
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
                input: Input::Spectra(SpectralOp {
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
                input: Input::Spectra(SpectralOp {
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
                input: Input::Feature,
            },

            Self::Picture => Description {
                name: "picture",
                keys: &[SOURCE, COLOURS, SIZE],
                is_cpu_only: true,
                input: Input::Feature,
            },

            Self::Image => Description {
                name: "image",
                keys: &[SIZE, IMAGE],
                is_cpu_only: true,
                input: Input::Picture,
            },

            // The host stores samples and files for every backend, so these operations do not exclude a GPU.
            Self::Pcm => Description {
                name: "pcm",
                keys: &[],
                is_cpu_only: false,
                input: Input::Samples,
            },

            Self::Original => Description {
                name: "original",
                keys: &[],
                is_cpu_only: false,
                input: Input::File,
            },
        }
    }

    /// Returns the name used in recipes, such as `mfcc`.
    pub const fn name(self) -> &'static str {
        self.description().name
    }

    /// Reports whether a recipe with the operation cannot use a GPU.
    pub const fn is_cpu_only(self) -> bool {
        self.description().is_cpu_only
    }

    /// Returns the kind of data from which the feature is computed.
    pub const fn input(self) -> Input {
        self.description().input
    }

    /// Reports whether the feature is computed from spectra of the clip's samples.
    pub const fn is_spectral(self) -> bool {
        matches!(self.input(), Input::Spectra(_))
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
        match self.input() {
            Input::Spectra(op) => op.f16_rounds,
            Input::Feature | Input::Samples | Input::File | Input::Picture => None,
        }
    }

    /// Returns the properties that only operations on spectra have. The arguments of a derived feature contain the
    /// operation of its source feature, which is always one on spectra.
    ///
    /// # Panics
    /// If the operation does not compute a feature from spectra.
    pub(crate) fn spectral(self) -> SpectralOp {
        match self.input() {
            Input::Spectra(op) => op,
            Input::Feature | Input::Samples | Input::File | Input::Picture => {
                panic!("{} is not an operation on spectra", self.name())
            }
        }
    }

    /// Lists the names of the operations on spectra, with `conjunction` before the last: `stft, mel or mfcc`.
    pub(crate) fn spectral_names(conjunction: &str) -> String {
        let ops = Self::ALL.iter().filter(|op| op.is_spectral());
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
