//! Operations that compute features, each with one description that recipes, kernels and devices use.

use serde::{Deserialize, Serialize};

use crate::args::FeatureArgs;
use crate::constant_q::N_BINS_MAX;
use crate::db::{DbArgs, LogArgs};
use crate::named_enum;
use crate::preset::{Defaults, HopLength};
use crate::rhythm::WIN_LENGTH_MAX;
use crate::shape::{N_BANDS_MAX, N_CHROMA_MAX};

/// Option names that apply to every feature computed from spectra: preset and Fourier transform.
const TRANSFORM: &[&str] = &["preset", "n_fft", "win_length", "window"];
/// Option names that apply to every feature computed from frames.
const FRAMES: &[&str] = &["hop_length", "center"];
/// A part of [`FRAMES`].
const HOP: &[&str] = &["hop_length"];
const PADDING: &[&str] = &["pad_mode"];
const POWER: &[&str] = &["power"];
/// Option names that apply to features computed from frames of samples, without a transform.
const FRAME_LENGTH: &[&str] = &["frame_length"];
/// A part of [`TRANSFORM`].
const WINDOW: &[&str] = &["window"];
/// Option names that apply to mel bands, beside `fmin`.
const MEL: &[&str] = &["n_mels", "fmax", "htk", "norm"];
const FMIN: &[&str] = &["fmin"];
/// Option names that apply to the operations on the shape of a spectrum.
const BANDWIDTH: &[&str] = &["p"];
const CONTRAST: &[&str] = &["n_bands", "quantile", "linear"];
const FLATNESS: &[&str] = &["amin"];
const ROLLOFF: &[&str] = &["roll_percent"];
const ONSET: &[&str] = &["lag", "aggregate"];
/// A part of [`TRANSFORM`].
const WIN_LENGTH: &[&str] = &["win_length"];
const START_BPM: &[&str] = &["start_bpm"];
const TEMPO: &[&str] = &["std_bpm", "max_tempo"];
const BEATS: &[&str] = &["tightness", "trim"];
const CHROMA: &[&str] = &["n_chroma", "tuning"];
/// A part of [`CHROMA`].
const TUNING: &[&str] = &["tuning"];
/// Option names that apply to constant-Q transforms, and to features that are computed from them.
const CONSTANT_Q: &[&str] = &["bins_per_octave"];
const BINS: &[&str] = &["n_bins", "filter_scale"];
const GAMMA: &[&str] = &["gamma"];
const OCTAVES: &[&str] = &["n_octaves"];
const SMOOTHING: &[&str] = &["win_len_smooth"];
const CHROMA_KIND: &[&str] = &["chroma"];
/// Option names that apply to the cosine transform.
const CEPSTRA: &[&str] = &["n_mfcc", "dct_type", "lifter"];
const DELTA: &[&str] = &["delta"];
const DB: &[&str] = &["db"];
/// Option names for the stored tensor of a feature computed from spectra.
const TENSOR: &[&str] = &["normalize", "dim_order", "frames"];
const SOURCE: &[&str] = &["source"];
/// Option names that apply to models.
const MODEL: &[&str] = &[
    "model",
    "output",
    "layer",
    "window_s",
    "standardize",
    "pooling",
];
const COLOURS: &[&str] = &["colour_map"];
const SIZE: &[&str] = &["height", "width"];
const IMAGE: &[&str] = &["crop", "filter"];

/// All option names that only some operations use, each once, in the order of error messages. Every operation uses `name`, `op`,
/// `dtype` and `stored`.
pub(crate) const KEYS: &[&[&str]] = &[
    TRANSFORM,
    FRAMES,
    PADDING,
    POWER,
    FRAME_LENGTH,
    MEL,
    FMIN,
    CEPSTRA,
    BANDWIDTH,
    CONTRAST,
    FLATNESS,
    ROLLOFF,
    ONSET,
    START_BPM,
    TEMPO,
    BEATS,
    CHROMA,
    CONSTANT_Q,
    BINS,
    GAMMA,
    OCTAVES,
    SMOOTHING,
    CHROMA_KIND,
    DELTA,
    DB,
    TENSOR,
    SOURCE,
    MODEL,
    COLOURS,
    SIZE,
    IMAGE,
];

named_enum! {
    /// `op`: the operation that computes a feature from a clip, from another feature or from a picture file.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Op {
        /// Magnitude of the short-time Fourier transform, raised to the given `power`.
        Stft = "stft",
        /// Mel bands of the spectrum, in dB if `db` is given.
        #[default]
        Mel = "mel",
        /// Mel-frequency cepstral coefficients: a cosine transform of the log mel bands.
        Mfcc = "mfcc",
        /// Root mean square of each frame's samples.
        Rms = "rms",
        /// Part of each frame's samples that have another sign than the sample before.
        ZeroCrossingRate = "zero_crossing_rate",
        /// Mean frequency in Hz, weighted by magnitudes.
        SpectralCentroid = "spectral_centroid",
        /// Mean distance from the centroid in Hz, weighted by magnitudes.
        SpectralBandwidth = "spectral_bandwidth",
        /// Difference between the largest and the smallest magnitudes of each octave, in dB.
        SpectralContrast = "spectral_contrast",
        /// Geometric mean of the powers divided by their arithmetic mean: 1 for noise, near 0 for tones.
        SpectralFlatness = "spectral_flatness",
        /// Frequency in Hz below which a given part of the sum of the magnitudes lies.
        SpectralRolloff = "spectral_rolloff",
        /// Mean increase of the mel bands in decibels since an earlier frame.
        OnsetStrength = "onset_strength",
        /// Autocorrelation of the onset strength around each frame.
        Tempogram = "tempogram",
        /// 1 for frames with a beat, else 0.
        BeatTrack = "beat_track",
        /// Energy of each pitch class of the spectrum, relative to the strongest one.
        ChromaStft = "chroma_stft",
        /// Magnitude of the constant-Q transform.
        Cqt = "cqt",
        /// Magnitude of the variable-Q transform: bandwidths grow less than frequencies.
        Vqt = "vqt",
        /// Energy of each pitch class of the constant-Q transform, relative to the strongest one.
        ChromaCqt = "chroma_cqt",
        /// Energy of each pitch class, quantized and smoothed over frames (CENS).
        ChromaCens = "chroma_cens",
        /// Tonal centroids: pitch classes as positions on the circles of fifths, minor thirds and major thirds.
        Tonnetz = "tonnetz",
        /// [`Derived::Statistics`](crate::Derived::Statistics) of another feature.
        Statistics = "statistics",
        /// [`Derived::Tempo`](crate::Derived::Tempo) of a tempogram.
        Tempo = "tempo",
        /// [`Derived::Picture`](crate::Derived::Picture) of another feature.
        Picture = "picture",
        /// A decoded picture file: [`ImageArgs`](crate::ImageArgs).
        Image = "image",
        /// The clip's samples: [`SoundArgs::Pcm`](crate::SoundArgs::Pcm).
        Pcm = "pcm",
        /// Loudness, loudness range and true peak: [`SoundArgs::Loudness`](crate::SoundArgs::Loudness).
        Loudness = "loudness",
        /// The bytes of the clip's file: [`SoundArgs::Original`](crate::SoundArgs::Original).
        Original = "original",
        /// The output of a model in ONNX format: [`OnnxArgs`](crate::OnnxArgs).
        Onnx = "onnx",
    }
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
    /// The clip's samples or the tensor of another feature, as the input of a model.
    Model,
}

/// Description of an operation.
struct Description {
    /// Option names that apply to the operation, as groups from [`KEYS`].
    keys: &'static [&'static [&'static str]],
    /// True if a recipe with the operation cannot use a GPU.
    is_cpu_only: bool,
    /// The data from which the feature is computed.
    input: Input,
}

/// The values of a frame from which an operation computes a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameValues {
    /// The powers of the frame's spectrum.
    Spectrum,
    /// The powers of the bins of a constant-Q transform.
    ConstantQ,
    /// One value: the mean of the squared samples.
    MeanSquare,
    /// One value: the part of the samples that have another sign than the sample before.
    ZeroCrossings,
}

/// Properties that only operations on spectra have, and on frames of samples, which count as spectra of one bin.
#[derive(Clone, Copy)]
pub struct SpectralOp {
    /// The values of each frame.
    pub frame: FrameValues,
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

/// Properties of the operations that compute one frequency of each frame from its magnitudes.
const OF_SHAPE: SpectralOp = SpectralOp {
    frame: FrameValues::Spectrum,
    axis: "value",
    n_bands: |_| 1,
    power: |_| 1.0,
    hop_length: |preset| preset.hop_length,
    log: |_| LogArgs::Linear,
    f16_rounds: Some("frequencies by up to 8 Hz"),
};

/// Properties of the operations on the onset strength.
const OF_ONSETS: SpectralOp = SpectralOp {
    power: |_| 2.0,
    log: |_| LogArgs::Db(DbArgs::LIBROSA),
    f16_rounds: Some("onset strengths by up to 1 part in 2048"),
    ..OF_SHAPE
};

/// Properties of constant-Q transforms.
const OF_CONSTANT_Q: SpectralOp = SpectralOp {
    frame: FrameValues::ConstantQ,
    axis: "bin",
    n_bands: |args| {
        args.constant_q()
            .map_or(0, |constant_q| constant_q.n_bins.min(N_BINS_MAX))
    },
    f16_rounds: None,
    ..OF_SHAPE
};

/// Properties of chroma from a constant-Q transform.
const OF_CHROMA_CQ: SpectralOp = SpectralOp {
    axis: "chroma",
    n_bands: |args| {
        args.chroma_cq()
            .map_or(0, |chroma| chroma.n_chroma.min(N_CHROMA_MAX))
    },
    f16_rounds: Some("chroma by up to 1 part in 2048"),
    ..OF_CONSTANT_Q
};

impl Op {
    const fn description(self) -> Description {
        match self {
            Self::Stft => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, POWER, DELTA, DB, TENSOR],
                is_cpu_only: false,
                input: Input::Spectra(SpectralOp {
                    frame: FrameValues::Spectrum,
                    axis: "bin",
                    n_bands: |args| args.stft.n_bins(),
                    power: |preset| preset.stft_power,
                    hop_length: |preset| preset.stft_hop_length,
                    log: |_| LogArgs::Linear,
                    f16_rounds: None,
                }),
            },

            Self::Mel => Description {
                keys: &[
                    TRANSFORM, FRAMES, PADDING, POWER, MEL, FMIN, DELTA, DB, TENSOR,
                ],
                is_cpu_only: false,
                input: Input::Spectra(SpectralOp {
                    frame: FrameValues::Spectrum,
                    axis: "mel",
                    n_bands: |args| args.mel.as_ref().map_or(0, |mel| mel.n_mels),
                    power: |preset| preset.power,
                    hop_length: |preset| preset.hop_length,
                    log: |preset| preset.mel_log,
                    f16_rounds: None,
                }),
            },

            Self::Mfcc => Description {
                keys: &[
                    TRANSFORM, FRAMES, PADDING, POWER, MEL, FMIN, CEPSTRA, DELTA, DB, TENSOR,
                ],
                is_cpu_only: false,
                input: Input::Spectra(SpectralOp {
                    frame: FrameValues::Spectrum,
                    axis: "coefficient",
                    n_bands: |args| args.mfcc.as_ref().map_or(0, |mfcc| mfcc.n_mfcc),
                    power: |preset| preset.power,
                    hop_length: |preset| preset.hop_length,
                    log: |preset| preset.mfcc_log,
                    f16_rounds: Some("MFCC by up to 0.25"),
                }),
            },

            Self::Rms => Description {
                keys: &[FRAME_LENGTH, WINDOW, FRAMES, PADDING, DELTA, DB, TENSOR],
                is_cpu_only: true,
                // The magnitude of a spectrum is the root of its power, and so is this value that of the mean square.
                input: Input::Spectra(SpectralOp {
                    frame: FrameValues::MeanSquare,
                    power: |_| 1.0,
                    f16_rounds: Some("levels by up to 1 part in 2048"),
                    ..OF_SHAPE
                }),
            },

            Self::ZeroCrossingRate => Description {
                keys: &[FRAME_LENGTH, FRAMES, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(SpectralOp {
                    frame: FrameValues::ZeroCrossings,
                    power: |_| 2.0,
                    f16_rounds: Some("rates by up to 1 part in 2048"),
                    ..OF_SHAPE
                }),
            },

            Self::SpectralCentroid => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_SHAPE),
            },

            Self::SpectralBandwidth => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, BANDWIDTH, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_SHAPE),
            },

            Self::SpectralContrast => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, FMIN, CONTRAST, DELTA, TENSOR],
                is_cpu_only: true,
                // The order of powers is that of magnitudes, so only the selected ones are converted. librosa converts
                // magnitudes to decibels as if they were powers.
                input: Input::Spectra(SpectralOp {
                    axis: "band",
                    // A number out of range is a fault of its own, and must not make the tensor too large as well.
                    n_bands: |args| {
                        let contrast = args.contrast();
                        contrast.map_or(0, |contrast| contrast.n_bands.min(N_BANDS_MAX) + 1)
                    },
                    power: |_| 2.0,
                    log: |_| LogArgs::Db(DbArgs::LIBROSA),
                    f16_rounds: Some("contrasts by up to 0.03 dB"),
                    ..OF_SHAPE
                }),
            },

            Self::SpectralFlatness => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, POWER, FLATNESS, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(SpectralOp {
                    power: |_| 2.0,
                    f16_rounds: Some("small values to 0"),
                    ..OF_SHAPE
                }),
            },

            Self::SpectralRolloff => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, ROLLOFF, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_SHAPE),
            },

            Self::OnsetStrength => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, MEL, FMIN, ONSET, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_ONSETS),
            },

            Self::Tempogram => Description {
                keys: &[HOP, WIN_LENGTH, MEL, FMIN, ONSET, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(SpectralOp {
                    axis: "lag",
                    n_bands: |args| args.n_lags().map_or(0, |lags| lags.min(WIN_LENGTH_MAX)),
                    f16_rounds: Some("correlations by up to 1 part in 2048"),
                    ..OF_ONSETS
                }),
            },

            Self::BeatTrack => Description {
                keys: &[HOP, MEL, FMIN, ONSET, START_BPM, BEATS, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_ONSETS),
            },

            Self::ChromaStft => Description {
                keys: &[TRANSFORM, FRAMES, PADDING, CHROMA, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(SpectralOp {
                    axis: "chroma",
                    n_bands: |args| {
                        args.chroma()
                            .map_or(0, |chroma| chroma.n_chroma.min(N_CHROMA_MAX))
                    },
                    power: |_| 2.0,
                    f16_rounds: Some("chroma by up to 1 part in 2048"),
                    ..OF_SHAPE
                }),
            },

            Self::Cqt => Description {
                keys: &[HOP, FMIN, CONSTANT_Q, BINS, TUNING, DELTA, DB, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_CONSTANT_Q),
            },

            Self::Vqt => Description {
                keys: &[
                    HOP, FMIN, CONSTANT_Q, BINS, TUNING, GAMMA, DELTA, DB, TENSOR,
                ],
                is_cpu_only: true,
                input: Input::Spectra(OF_CONSTANT_Q),
            },

            Self::ChromaCqt => Description {
                keys: &[HOP, FMIN, CONSTANT_Q, OCTAVES, CHROMA, DELTA, TENSOR],
                is_cpu_only: true,
                input: Input::Spectra(OF_CHROMA_CQ),
            },

            Self::ChromaCens => Description {
                keys: &[
                    HOP, FMIN, CONSTANT_Q, OCTAVES, CHROMA, SMOOTHING, DELTA, TENSOR,
                ],
                is_cpu_only: true,
                input: Input::Spectra(OF_CHROMA_CQ),
            },

            Self::Tonnetz => Description {
                keys: &[
                    HOP,
                    FMIN,
                    CONSTANT_Q,
                    OCTAVES,
                    CHROMA,
                    CHROMA_KIND,
                    SMOOTHING,
                    DELTA,
                    TENSOR,
                ],
                is_cpu_only: true,
                input: Input::Spectra(SpectralOp {
                    axis: "centroid",
                    n_bands: |_| 6,
                    f16_rounds: Some("centroids by up to 1 part in 2048"),
                    ..OF_CHROMA_CQ
                }),
            },

            Self::Statistics => Description {
                keys: &[SOURCE],
                is_cpu_only: true,
                input: Input::Feature,
            },

            Self::Tempo => Description {
                keys: &[SOURCE, START_BPM, TEMPO],
                is_cpu_only: true,
                input: Input::Feature,
            },

            Self::Picture => Description {
                keys: &[SOURCE, COLOURS, SIZE],
                is_cpu_only: true,
                input: Input::Feature,
            },

            Self::Image => Description {
                keys: &[SIZE, IMAGE],
                is_cpu_only: true,
                input: Input::Picture,
            },

            // The host stores samples and files and measures loudness for every backend, so these operations do not exclude
            // a GPU.
            Self::Pcm => Description {
                keys: &[],
                is_cpu_only: false,
                input: Input::Samples,
            },

            Self::Loudness => Description {
                keys: &[],
                is_cpu_only: false,
                input: Input::Samples,
            },

            Self::Original => Description {
                keys: &[],
                is_cpu_only: false,
                input: Input::File,
            },

            Self::Onnx => Description {
                keys: &[SOURCE, MODEL],
                is_cpu_only: true,
                input: Input::Model,
            },
        }
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

    /// Reports whether a feature with the operation has the key in recipes: an option, or a key of all features.
    pub fn has_key(self, key: &str) -> bool {
        self.uses(key) || !KEYS.iter().any(|keys| keys.contains(&key))
    }

    /// Reports whether the feature is computed from mel bands.
    pub(crate) fn has_mel_bands(self) -> bool {
        self.description().keys.contains(&MEL)
    }

    /// Returns the operation if it has [`ShapeArgs`](crate::ShapeArgs).
    pub(crate) fn with_shape_args(self) -> Option<Self> {
        let keys = self.description().keys;
        let groups = [
            BANDWIDTH, CONTRAST, FLATNESS, ROLLOFF, ONSET, CHROMA, CONSTANT_Q,
        ];
        groups
            .iter()
            .any(|group| keys.contains(group))
            .then_some(self)
    }

    /// Reports whether the values are frequencies, levels or ratios of frames, and not amplitudes of bands.
    pub(crate) const fn is_shape(self) -> bool {
        matches!(
            self,
            Self::Rms
                | Self::ZeroCrossingRate
                | Self::SpectralCentroid
                | Self::SpectralBandwidth
                | Self::SpectralContrast
                | Self::SpectralFlatness
                | Self::SpectralRolloff
                | Self::ChromaStft
                | Self::Cqt
                | Self::Vqt
                | Self::ChromaCqt
                | Self::ChromaCens
                | Self::Tonnetz
        )
    }

    /// Reports whether the feature consists of cepstral coefficients.
    pub(crate) fn has_cepstra(self) -> bool {
        self.description().keys.contains(&CEPSTRA)
    }

    /// Returns a text about values of the operation that f16 would round noticeably: `MFCC by up to 0.25`.
    pub fn f16_rounds(self) -> Option<&'static str> {
        match self.input() {
            Input::Spectra(op) => op.f16_rounds,
            Input::Feature | Input::Samples | Input::File | Input::Picture | Input::Model => None,
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
            Input::Feature | Input::Samples | Input::File | Input::Picture | Input::Model => {
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
