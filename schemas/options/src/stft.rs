//! Framing of a signal, and the short-time Fourier transform.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::words::Named;

/// Maximum FFT length in samples: 3 s at 22,050 Hz. Tables and buffers of a worker grow with the length: 5 MB per
/// feature at this length.
pub const N_FFT_MAX: usize = 1 << 16;

/// Maximum hop length in samples. A hop longer than a frame skips samples, which may be intended.
const HOP_LENGTH_MAX: usize = 1 << 20;

/// Maximum factor for samples. Together with [`N_FFT_MAX`], it keeps every product of finite samples finite in f32.
const SCALE_MAX: usize = 32_768;

/// Window function. Source: `scipy.signal.windows`; Kaldi's `feature-window.cc` for `povey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Raised cosine; the default of all presets except Kaldi's.
    Hann,
    /// Raised cosine on a pedestal of 0.08.
    Hamming,
    /// Three cosine terms.
    Blackman,
    /// Four cosine terms with minimum side lobes.
    BlackmanHarris,
    /// Four cosine terms by Nuttall.
    Nuttall,
    /// A triangle that is zero at its start.
    Bartlett,
    /// All ones.
    Boxcar,
    /// Kaldi's window: a **symmetric** Hann window to the power of 0.85.
    Povey,
}

impl Named for Window {
    const KEY: &'static str = "window";
    /// Names as in scipy; `ones` is an alias of `boxcar`, and `povey` is from Kaldi.
    const NAMES: &'static [(&'static str, Self)] = &[
        ("hann", Self::Hann),
        ("hamming", Self::Hamming),
        ("blackman", Self::Blackman),
        ("blackmanharris", Self::BlackmanHarris),
        ("nuttall", Self::Nuttall),
        ("bartlett", Self::Bartlett),
        ("boxcar", Self::Boxcar),
        ("ones", Self::Boxcar),
        ("povey", Self::Povey),
    ];
}

/// Padding at the ends of a centred signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Pads with zeros; librosa's default since 0.10.
    Constant,
    /// Pads with the signal mirrored at its first and last sample, repeatedly if the signal is short (as in numpy).
    Reflect,
    /// Pads with the first or last sample repeated.
    Edge,
}

impl Named for PadMode {
    const KEY: &'static str = "pad_mode";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("constant", Self::Constant),
        ("reflect", Self::Reflect),
        ("edge", Self::Edge),
    ];
}

/// Position of the frames in the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// librosa's `center=True`: frame t is centred on sample `t * hop_length`, and the ends are padded.
    Center(PadMode),
    /// librosa's `center=False`: only frames of `n_fft` samples that are completely within the signal.
    Inside,
    /// Kaldi's `snip_edges`: only frames of `win_length` samples that are completely within the signal.
    SnipEdges,
}

/// Arguments of the short-time Fourier transform.
///
/// Shape: `[n_samples]` → `[n_fft / 2 + 1, n_frames]`. Units: samples; amplitude 1.0 is full scale. Names as in
/// `librosa.stft`; defaults come from the preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StftArgs {
    /// Length of the transform in samples; any number from 2 to 2^16.
    pub n_fft: usize,
    /// Distance between consecutive frames in samples.
    pub hop_length: usize,
    /// Length of the window in samples, at most `n_fft`; the window is centred in a frame.
    pub win_length: usize,
    /// Window function.
    pub window: Window,
    /// Position of the frames in the signal.
    pub framing: Framing,
    /// Factor by which every sample is multiplied: 1, or Kaldi's 32768.
    pub scale: u32,
    /// True to subtract the mean of each frame before the window (Kaldi's `remove_dc_offset`).
    pub remove_dc: bool,
    /// Pre-emphasis within each frame: `x[i] -= preemphasis * x[i - 1]`; 0 disables it.
    pub preemphasis: f64,
    /// Number of samples to which the whole signal is first zero-padded or cut (Whisper's 30 s); unchanged if absent.
    pub n_samples: Option<usize>,
    /// True to drop the last frame (Whisper).
    pub drop_last_frame: bool,
}

impl StftArgs {
    /// Returns the number of frequency bins.
    pub const fn n_bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Returns the number of frames of `n_samples` samples, to which [`StftArgs::n_samples`] has already been applied;
    /// 0 for an empty signal.
    pub const fn n_frames(&self, n_samples: usize) -> usize {
        // A centred signal is padded by half a frame on each side.
        let (padded, frame) = match self.framing {
            Framing::Center(_) => (n_samples + 2 * (self.n_fft / 2), self.n_fft),
            Framing::Inside => (n_samples, self.n_fft),
            Framing::SnipEdges => (n_samples, self.win_length),
        };
        if n_samples == 0 || padded < frame {
            return 0;
        }
        1 + (padded - frame) / self.hop_length - self.drop_last_frame as usize
    }

    /// Returns the length of the signal for `n_samples` samples of PCM: padded or cut to [`StftArgs::n_samples`], if
    /// set, and extended with zeros to at least `frames_min` frames. An empty signal stays empty.
    pub fn n_signal(&self, n_samples: usize, frames_min: Option<usize>) -> usize {
        let least = frames_min.map_or(0, |frames| self.samples_for(frames));
        if n_samples == 0 {
            0
        } else {
            self.n_samples.unwrap_or(n_samples).max(least)
        }
    }

    /// Returns the minimum number of samples for `n_frames` frames; at least one.
    pub(crate) const fn samples_for(&self, n_frames: usize) -> usize {
        // Samples from the start of the first frame to that of the last, including a frame that is dropped afterwards.
        let n_hops = n_frames + self.drop_last_frame as usize - 1;
        let span = n_hops.saturating_mul(self.hop_length);
        let least = match self.framing {
            Framing::Center(_) => span.saturating_add(self.n_fft % 2),
            Framing::Inside => span.saturating_add(self.n_fft),
            Framing::SnipEdges => span.saturating_add(self.win_length),
        };
        if least == 0 { 1 } else { least }
    }

    /// Returns the index of the first sample under the window of frame `frame`; negative in the padding.
    pub const fn window_start(&self, frame: usize) -> isize {
        let middle = ((self.n_fft - self.win_length) / 2) as isize;
        let at = (frame * self.hop_length) as isize;
        match self.framing {
            Framing::Center(_) => at + middle - (self.n_fft / 2) as isize,
            Framing::Inside => at + middle,
            Framing::SnipEdges => at,
        }
    }

    /// Adds a fault for each invalid argument of the transform. `length` is the name of the option for the length of
    /// the frames.
    pub(crate) fn check(&self, length: &str, faults: &mut Faults) {
        faults.count_within(self.n_fft, 2..=N_FFT_MAX, length);
        faults.count_within(self.hop_length, 1..=HOP_LENGTH_MAX, "hop_length");
        faults.count_within(self.win_length, 1..=N_FFT_MAX, "win_length");

        // A shorter window is zero-padded to n_fft, but a longer one would have to be cut.
        let problem = format!("{} is longer than n_fft = {}", self.win_length, self.n_fft);
        faults.unless(self.win_length <= self.n_fft, "win_length", problem);

        // The following arguments are set only by presets, not by options.
        faults.count_within(self.scale as usize, 1..=SCALE_MAX, "scale");
        faults.within(Some(self.preemphasis), 0.0..=1.0, "preemphasis");
        let problem = "0 is invalid; allowed: a whole number, 1 or more";
        faults.unless(self.n_samples != Some(0), "n_samples", problem);
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::{FeatureSpec, Op};

    fn args(n_fft: usize, framing: Framing) -> StftArgs {
        let spec = options!(op: Op::Stft, n_fft, hop_length: 3);
        let base = spec.resolve(&[], 22_050).unwrap();

        StftArgs {
            framing,
            ..base.stft
        }
    }

    #[test]
    fn frame_counts_at_the_edges() {
        // Columns: n_fft, samples, frames if centred, frames without padding. Counts are librosa's for padded signals.
        for (n_fft, n, centred, inside) in [
            (8, 0, 0, 0),
            (8, 1, 1, 0),
            (8, 7, 3, 0),
            (8, 8, 3, 1),
            (8, 11, 4, 2),
            (7, 0, 0, 0),
            (7, 1, 1, 0),
            (7, 6, 2, 0),
            (7, 7, 3, 1),
        ] {
            let center = args(n_fft, Framing::Center(PadMode::Constant));

            assert_eq!(
                (center.n_frames(n), args(n_fft, Framing::Inside).n_frames(n)),
                (centred, inside),
                "{n} samples, n_fft {n_fft}"
            );
        }
    }

    #[test]
    fn samples_for_is_minimal() {
        for framing in [
            Framing::Center(PadMode::Constant),
            Framing::Inside,
            Framing::SnipEdges,
        ] {
            for (n_fft, n_frames) in [(8, 1), (8, 5), (7, 1), (7, 4)] {
                let args = args(n_fft, framing);
                let least = args.samples_for(n_frames);

                assert_eq!(args.n_frames(least), n_frames, "{args:?}");
                assert!(args.n_frames(least - 1) < n_frames, "{args:?}");
            }
        }
    }

    #[test]
    fn window_names_are_those_used_in_identities() {
        for &(name, window) in Window::NAMES {
            // `ones` is an alias of `boxcar` and is serialized as `boxcar`.
            let name = if name == "ones" { "boxcar" } else { name };
            assert_eq!(
                serde_json::to_string(&window).unwrap(),
                format!("\"{name}\"")
            );
        }

        for &(name, pad_mode) in PadMode::NAMES {
            assert_eq!(
                serde_json::to_string(&pad_mode).unwrap(),
                format!("\"{name}\"")
            );
        }

        assert_eq!(
            Window::named("han").unwrap_err().to_string(),
            "window: `han` is unknown (did you mean `hann`?)"
        );
        assert_eq!(
            Window::named("flat").unwrap_err().to_string(),
            "window: `flat` is unknown; allowed: hann, hamming, blackman, blackmanharris, nuttall, bartlett, boxcar, ones, \
             povey"
        );
    }
}
