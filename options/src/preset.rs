//! Whose defaults a feature starts from.
//!
//! All of them stand in one table, [`Preset::defaults`], so that a new preset cannot leave one out.

use serde::{Deserialize, Serialize};

use crate::args::Op;
use crate::db::{DbArgs, LogArgs};
use crate::fault::Faults;
use crate::mel::{Norm, Ramp};
use crate::stft::{Framing, PadMode, Window};

/// Whose defaults a feature starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// librosa 0.11: `stft`, `feature.melspectrogram`, `feature.mfcc`.
    #[default]
    Librosa,
    /// torchaudio 2.11: `Spectrogram`, `MelSpectrogram`, `MFCC`.
    Torchaudio,
    /// Kaldi's `compute-fbank-feats` and `compute-mfcc-feats`, dither 0, no energy.
    Kaldi,
    /// OpenAI Whisper's `log_mel_spectrogram` after `pad_or_trim`; 16 kHz only.
    Whisper,
}

/// Whisper's rate, and its 30 s at that rate.
const WHISPER_RATE_HZ: u32 = 16_000;
const WHISPER_SAMPLES: usize = 480_000;

/// What a preset says of every option. `fmax` is half the rate in all of them, and no preset has deltas, scaling or a
/// fixed number of frames.
pub(crate) struct Defaults {
    pub(crate) n_fft: TransformLength,
    pub(crate) win_length: WindowLength,
    pub(crate) hop_length: HopLength,
    /// The same for a bare spectrum.
    pub(crate) stft_hop_length: HopLength,
    pub(crate) window: Window,
    pub(crate) center: bool,
    /// Where frames lie that are not centred.
    pub(crate) uncentred: Framing,
    pub(crate) pad_mode: PadMode,
    pub(crate) scale: u32,
    pub(crate) remove_dc: bool,
    pub(crate) preemphasis: f64,
    pub(crate) n_samples: Option<usize>,
    pub(crate) drop_last_frame: bool,
    pub(crate) power: f64,
    /// The same for a bare spectrum.
    pub(crate) stft_power: f64,
    pub(crate) n_mels: usize,
    pub(crate) fmin: f64,
    pub(crate) htk: bool,
    pub(crate) norm: Norm,
    pub(crate) ramp: Ramp,
    /// Of mel bands; a bare spectrum has none by default.
    pub(crate) mel_log: LogArgs,
    /// Before the cosine transform.
    pub(crate) mfcc_log: LogArgs,
    pub(crate) n_mfcc: usize,
    pub(crate) dct_type: u8,
    pub(crate) lifter: f64,
    pub(crate) lifter_from: u8,
}

/// `n_fft` where it is not given.
pub(crate) enum TransformLength {
    /// So many samples.
    Samples(usize),
    /// The next power of two of the window's length.
    PowerOfTwo,
}

/// `win_length` where it is not given.
pub(crate) enum WindowLength {
    /// `n_fft`.
    Transform,
    /// So long, in whole samples rounded down; at most `n_fft`.
    Milliseconds(usize),
}

/// `hop_length` where it is not given.
pub(crate) enum HopLength {
    /// So many samples.
    Samples(usize),
    /// `win_length` divided by this.
    WindowOver(usize),
    /// So long, in whole samples rounded down.
    Milliseconds(usize),
}

impl Preset {
    /// Every preset, in the order of the columns of docs/features.md.
    pub const ALL: [Self; 4] = [Self::Librosa, Self::Torchaudio, Self::Kaldi, Self::Whisper];

    /// The table of all defaults; docs/features.md shows it to users, and a test compares the two.
    pub(crate) const fn defaults(self) -> Defaults {
        match self {
            Self::Librosa => Defaults {
                n_fft: TransformLength::Samples(2048),
                win_length: WindowLength::Transform,
                // librosa.stft goes by the window, its mel and mfcc do not.
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
                // Whisper has no cepstra, and they are refused; so these decide nothing.
                mfcc_log: LogArgs::Whisper,
                n_mfcc: 20,
                dct_type: 2,
                lifter: 0.0,
                lifter_from: 1,
            },
        }
    }

    /// As in a recipe: `librosa`, `torchaudio`, `kaldi`, `whisper`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Librosa => "librosa",
            Self::Torchaudio => "torchaudio",
            Self::Kaldi => "kaldi",
            Self::Whisper => "whisper",
        }
    }

    /// What the preset does not have.
    pub(crate) fn check(self, op: Op, sample_rate_hz: u32, faults: &mut Faults) {
        match self {
            Self::Librosa | Self::Torchaudio | Self::Kaldi => {}
            Self::Whisper => {
                let problem = "`whisper` has no op = \"mfcc\"";
                faults.unless(op != Op::Mfcc, "preset", problem);
                // Whisper's own filters are a table made for this rate.
                let problem = format!("`whisper` wants audio.sample_rate_hz = {WHISPER_RATE_HZ}");
                faults.unless(sample_rate_hz == WHISPER_RATE_HZ, "preset", problem);
            }
        }
    }
}

/// Kaldi's floor is f32's epsilon.
const KALDI_LOG: LogArgs = LogArgs::Ln {
    floor: f32::EPSILON as f64,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_may_give_every_name_and_no_other() {
        let error = serde_json::from_str::<Preset>("\"\"").unwrap_err();

        let names = Preset::ALL.map(|preset| format!("`{}`", preset.name()));
        let want = format!("expected one of {} at", names.join(", "));
        assert!(error.to_string().contains(&want), "{error}");
    }
}
