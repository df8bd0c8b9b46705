//! Presets: the defaults of other libraries.
//!
//! All defaults are listed in one table, [`Preset::defaults`], so that a new preset has to define each of them.

use serde::{Deserialize, Serialize};

use crate::db::{DbArgs, LogArgs};
use crate::fault::Faults;
use crate::mel::{Norm, Ramp};
use crate::named_enum;
use crate::op::Op;
use crate::stft::{Framing, PadMode, Window};

named_enum! {
    /// Library whose defaults a feature uses.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Preset {
        /// librosa 0.11: `stft`, `feature.melspectrogram`, `feature.mfcc`.
        #[default]
        Librosa = "librosa",
        /// torchaudio 2.11: `Spectrogram`, `MelSpectrogram`, `MFCC`.
        Torchaudio = "torchaudio",
        /// Kaldi's `compute-fbank-feats` and `compute-mfcc-feats`, with dither 0 and no energy.
        Kaldi = "kaldi",
        /// OpenAI Whisper's `log_mel_spectrogram` after `pad_or_trim`; 16 kHz only.
        Whisper = "whisper",
    }
}

/// Whisper's sample rate in Hz, and the number of samples in its 30 s of audio.
const WHISPER_RATE_HZ: u32 = 16_000;
const WHISPER_SAMPLES: usize = 480_000;

/// Defaults of a preset for every option. In all presets, `fmax` is half the sample rate; deltas, normalization and a
/// fixed number of frames are disabled.
pub(crate) struct Defaults {
    pub(crate) n_fft: TransformLength,
    pub(crate) win_length: WindowLength,
    pub(crate) hop_length: HopLength,
    /// Default hop length of the operation `stft`; other operations use `hop_length`.
    pub(crate) stft_hop_length: HopLength,
    pub(crate) window: Window,
    pub(crate) center: bool,
    /// Position of the frames in the signal if `center` is false.
    pub(crate) uncentred: Framing,
    pub(crate) pad_mode: PadMode,
    pub(crate) scale: u32,
    pub(crate) remove_dc: bool,
    pub(crate) preemphasis: f64,
    pub(crate) n_samples: Option<usize>,
    pub(crate) drop_last_frame: bool,
    pub(crate) power: f64,
    /// Exponent of the magnitude for the operation `stft`.
    pub(crate) stft_power: f64,
    pub(crate) n_mels: usize,
    pub(crate) fmin: f64,
    pub(crate) htk: bool,
    pub(crate) norm: Norm,
    pub(crate) ramp: Ramp,
    /// Default logarithm of mel bands; the operation `stft` has none by default.
    pub(crate) mel_log: LogArgs,
    /// Default logarithm of the mel bands before a cosine transform.
    pub(crate) mfcc_log: LogArgs,
    pub(crate) n_mfcc: usize,
    pub(crate) dct_type: u8,
    pub(crate) lifter: f64,
    pub(crate) lifter_from: u8,
}

/// Default length of the Fourier transform, `n_fft`.
pub(crate) enum TransformLength {
    /// A fixed number of samples.
    Samples(usize),
    /// The smallest power of two that is at least the length of the window.
    PowerOfTwo,
}

/// Default length of the window, `win_length`.
pub(crate) enum WindowLength {
    /// The same as `n_fft`.
    Transform,
    /// A duration, rounded down to whole samples; at most `n_fft`.
    Milliseconds(usize),
}

/// Default distance between frames, `hop_length`.
#[derive(Clone, Copy)]
pub(crate) enum HopLength {
    /// A fixed number of samples.
    Samples(usize),
    /// The length of the window, `win_length`, divided by this number.
    WindowOver(usize),
    /// A duration, rounded down to whole samples.
    Milliseconds(usize),
}

impl Preset {
    /// Returns all defaults of the preset. A test compares them with the table for users in docs/features.md.
    pub(crate) const fn defaults(self) -> Defaults {
        match self {
            Self::Librosa => Defaults {
                n_fft: TransformLength::Samples(2048),
                win_length: WindowLength::Transform,
                // librosa.stft derives the hop from the window; its mel and mfcc functions do not.
                hop_length: HopLength::Samples(512),
                stft_hop_length: HopLength::WindowOver(4),
                window: Window::Hann,
                center: true,
                uncentred: Framing::Inside,
                pad_mode: PadMode::Constant,
                scale: 1,
                remove_dc: false,
                preemphasis: 0.0,
                n_samples: None,
                drop_last_frame: false,
                power: 2.0,
                stft_power: 1.0,
                n_mels: 128,
                fmin: 0.0,
                htk: false,
                norm: Norm::Slaney,
                ramp: Ramp::Hz,
                mel_log: LogArgs::Linear,
                mfcc_log: LogArgs::Db(DbArgs::LIBROSA),
                n_mfcc: 20,
                dct_type: 2,
                lifter: 0.0,
                lifter_from: 1,
            },

            Self::Torchaudio => Defaults {
                n_fft: TransformLength::Samples(400),
                win_length: WindowLength::Transform,
                hop_length: HopLength::WindowOver(2),
                stft_hop_length: HopLength::WindowOver(2),
                window: Window::Hann,
                center: true,
                uncentred: Framing::Inside,
                pad_mode: PadMode::Reflect,
                scale: 1,
                remove_dc: false,
                preemphasis: 0.0,
                n_samples: None,
                drop_last_frame: false,
                power: 2.0,
                stft_power: 2.0,
                n_mels: 128,
                fmin: 0.0,
                htk: true,
                norm: Norm::None,
                ramp: Ramp::Hz,
                mel_log: LogArgs::Linear,
                mfcc_log: LogArgs::Db(DbArgs::LIBROSA),
                n_mfcc: 40,
                dct_type: 2,
                lifter: 0.0,
                lifter_from: 1,
            },

            Self::Kaldi => Defaults {
                n_fft: TransformLength::PowerOfTwo,
                win_length: WindowLength::Milliseconds(25),
                hop_length: HopLength::Milliseconds(10),
                stft_hop_length: HopLength::Milliseconds(10),
                window: Window::Povey,
                center: false,
                uncentred: Framing::SnipEdges,
                pad_mode: PadMode::Reflect,
                scale: 32_768,
                remove_dc: true,
                preemphasis: 0.97,
                n_samples: None,
                drop_last_frame: false,
                power: 2.0,
                stft_power: 2.0,
                n_mels: 23,
                fmin: 20.0,
                htk: true,
                norm: Norm::None,
                ramp: Ramp::Mel,
                mel_log: KALDI_LOG,
                mfcc_log: KALDI_LOG,
                n_mfcc: 13,
                dct_type: 2,
                lifter: 22.0,
                lifter_from: 0,
            },

            Self::Whisper => Defaults {
                n_fft: TransformLength::Samples(400),
                win_length: WindowLength::Transform,
                hop_length: HopLength::Samples(160),
                stft_hop_length: HopLength::Samples(160),
                window: Window::Hann,
                center: true,
                uncentred: Framing::Inside,
                pad_mode: PadMode::Reflect,
                scale: 1,
                remove_dc: false,
                preemphasis: 0.0,
                n_samples: Some(WHISPER_SAMPLES),
                drop_last_frame: true,
                power: 2.0,
                stft_power: 2.0,
                n_mels: 80,
                fmin: 0.0,
                htk: false,
                norm: Norm::Slaney,
                ramp: Ramp::Hz,
                mel_log: LogArgs::Whisper,
                // These cosine transform options are unused: the preset `whisper` is rejected for MFCC.
                mfcc_log: LogArgs::Whisper,
                n_mfcc: 20,
                dct_type: 2,
                lifter: 0.0,
                lifter_from: 1,
            },
        }
    }

    /// Adds faults for operations and sample rates that the preset does not support.
    pub(crate) fn check(self, op: Op, sample_rate_hz: u32, faults: &mut Faults) {
        match self {
            Self::Librosa | Self::Torchaudio | Self::Kaldi => {}
            Self::Whisper => {
                let problem = "`whisper` does not support op = \"mfcc\"";
                faults.unless(!op.has_cepstra(), "preset", problem);
                // Whisper's mel filters are a fixed table for this sample rate.
                let problem =
                    format!("`whisper` requires audio.sample_rate_hz = {WHISPER_RATE_HZ}");
                faults.unless(sample_rate_hz == WHISPER_RATE_HZ, "preset", problem);
            }
        }
    }
}

/// Kaldi's logarithm, with the epsilon of f32 as its floor.
const KALDI_LOG: LogArgs = LogArgs::Ln {
    floor: f32::EPSILON as f64,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_preset_error_lists_all_presets() {
        let error = serde_json::from_str::<Preset>("\"\"").unwrap_err();

        let names = Preset::ALL.map(|preset| format!("`{}`", preset.name()));
        let want = format!("expected one of {} at", names.join(", "));
        assert!(error.to_string().contains(&want), "{error}");
    }
}
