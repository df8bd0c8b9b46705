//! How a signal is cut into frames.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Window;
use crate::error::KernelError;

/// What lies beyond the ends of a centred signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Zeros; librosa's default since 0.10.
    Constant,
    /// The signal mirrored about its first and last sample, again and again where it is short (numpy's rule).
    Reflect,
    /// The first or last sample repeated.
    Edge,
}

impl FromStr for PadMode {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        match name {
            "constant" => Ok(Self::Constant),
            "reflect" => Ok(Self::Reflect),
            "edge" => Ok(Self::Edge),
            _ => Err(KernelError::argument(
                "pad_mode",
                name,
                "constant, reflect or edge",
            )),
        }
    }
}

/// Where frames lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// librosa's `center=True`: frame t is centred on sample `t * hop_length`, the ends are padded.
    Center(PadMode),
    /// librosa's `center=False`: only frames of `n_fft` samples that lie within the signal.
    Inside,
    /// Kaldi's `snip_edges`: only frames of `win_length` samples that lie within the signal.
    SnipEdges,
}

/// Arguments of the short-time Fourier transform.
///
/// Shape: `[n_samples]` → `[n_fft / 2 + 1, n_frames]`. Units: samples; amplitude 1.0 is full scale. Names as
/// `librosa.stft`; defaults come from the preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StftArgs {
    /// Length of the transform, samples; any from 2 to 2^16.
    pub n_fft: usize,
    /// Distance of frames, samples.
    pub hop_length: usize,
    /// Length of the window, samples, at most `n_fft`; it lies in the middle of a frame.
    pub win_length: usize,
    /// The window.
    pub window: Window,
    /// Where frames lie.
    pub framing: Framing,
    /// Factor on every sample: 1, or Kaldi's 32768.
    pub scale: u32,
    /// Subtract each frame's mean (Kaldi's `remove_dc_offset`).
    pub remove_dc: bool,
    /// Pre-emphasis within each frame: `x[i] -= preemphasis * x[i - 1]`; 0: none.
    pub preemphasis: f64,
    /// Pad with zeros or cut to this many samples before anything else (Whisper's 30 s); absent: as long as it is.
    pub n_samples: Option<usize>,
    /// Leave out the last frame (Whisper).
    pub drop_last_frame: bool,
}

/// Limits that keep every product of finite samples finite in f32.
const N_FFT_MAX: usize = 1 << 16;
const HOP_LENGTH_MAX: usize = 1 << 20;
const SCALE_MAX: u32 = 32_768;

impl StftArgs {
    /// Number of frequency bins.
    #[must_use]
    pub const fn n_bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Frames of `n_samples` samples (after [`StftArgs::n_samples`] took effect); none of an empty signal.
    #[must_use]
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

    /// The least samples that give `n_frames` frames (at least one).
    pub(crate) const fn samples_for(&self, n_frames: usize) -> usize {
        // The distance from the first frame to the last one. A frame that is dropped afterwards must fit, too.
        let span = (n_frames + self.drop_last_frame as usize - 1) * self.hop_length;
        let least = match self.framing {
            Framing::Center(_) => span + self.n_fft - 2 * (self.n_fft / 2),
            Framing::Inside => span + self.n_fft,
            Framing::SnipEdges => span + self.win_length,
        };
        if least == 0 { 1 } else { least }
    }

    /// First sample under the window of frame `frame`; negative in the padding.
    pub(crate) const fn window_start(&self, frame: usize) -> isize {
        let middle = ((self.n_fft - self.win_length) / 2) as isize;
        let at = (frame * self.hop_length) as isize;
        match self.framing {
            Framing::Center(_) => at + middle - (self.n_fft / 2) as isize,
            Framing::Inside => at + middle,
            Framing::SnipEdges => at,
        }
    }

    /// Errors: [`KernelError::Argument`] that names the key and what is allowed.
    pub fn validate(&self) -> Result<(), KernelError> {
        if !(2..=N_FFT_MAX).contains(&self.n_fft) {
            return Err(KernelError::argument(
                "n_fft",
                self.n_fft,
                format!("from 2 to {N_FFT_MAX} samples"),
            ));
        }

        if !(1..=HOP_LENGTH_MAX).contains(&self.hop_length) {
            let allowed = format!("from 1 to {HOP_LENGTH_MAX} samples");
            return Err(KernelError::argument(
                "hop_length",
                self.hop_length,
                allowed,
            ));
        }

        if !(1..=self.n_fft).contains(&self.win_length) {
            let allowed = format!("from 1 to n_fft = {} samples", self.n_fft);
            return Err(KernelError::argument(
                "win_length",
                self.win_length,
                allowed,
            ));
        }

        if !(1..=SCALE_MAX).contains(&self.scale) {
            return Err(KernelError::argument(
                "scale",
                self.scale,
                format!("from 1 to {SCALE_MAX}"),
            ));
        }

        if !(0.0..=1.0).contains(&self.preemphasis) {
            return Err(KernelError::argument(
                "preemphasis",
                self.preemphasis,
                "from 0 to 1",
            ));
        }

        if self.n_samples == Some(0) {
            return Err(KernelError::argument("n_samples", 0, "at least 1 sample"));
        }
        Ok(())
    }
}

/// PCM that is followed by zeros up to a length, seen through a padding rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal<'a> {
    /// Samples that are there; at most `len`.
    pub pcm: &'a [f32],
    /// Length with the zeros that follow.
    pub len: usize,
}

impl<'a> Signal<'a> {
    /// `pcm` cut or padded to what `args` ask for, and padded to at least `frames_min` frames.
    pub(crate) fn new(pcm: &'a [f32], args: &StftArgs, frames_min: Option<usize>) -> Self {
        let kept = args
            .n_samples
            .map_or(pcm.len(), |n_samples| n_samples.min(pcm.len()));
        Self {
            pcm: &pcm[..kept],
            len: Self::len_of(pcm.len(), args, frames_min),
        }
    }

    /// Length of the signal that `n_samples` samples of PCM become; nothing stays nothing.
    pub(crate) fn len_of(n_samples: usize, args: &StftArgs, frames_min: Option<usize>) -> usize {
        let least = frames_min.map_or(0, |frames| args.samples_for(frames));
        if n_samples == 0 {
            0
        } else {
            args.n_samples.unwrap_or(n_samples).max(least)
        }
    }

    /// The sample at `index`, which may lie beyond either end of a signal that is not empty.
    pub(crate) fn at(&self, index: isize, framing: Framing) -> f32 {
        let last = self.len as isize - 1;
        let inside = match framing {
            _ if (0..=last).contains(&index) => index,
            Framing::Center(PadMode::Edge) => index.clamp(0, last),
            Framing::Center(PadMode::Reflect) if last == 0 => 0,
            Framing::Center(PadMode::Reflect) => {
                // One period leads from the first sample to the last and back again.
                let turn = index.rem_euclid(2 * last);
                turn.min(2 * last - turn)
            }
            _ => return 0.0,
        };
        self.pcm.get(inside as usize).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Overrides, Preset, args::FeatureArgs};

    fn args(n_fft: usize, framing: Framing) -> StftArgs {
        let overrides = Overrides {
            n_fft: Some(n_fft),
            hop_length: Some(3),
            ..Overrides::default()
        };
        let base = FeatureArgs::resolve(Op::Stft, Preset::Librosa, 22_050, &overrides).unwrap();
        StftArgs {
            framing,
            ..base.stft
        }
    }

    #[test]
    fn frame_counts_at_the_edges() {
        let center = Framing::Center(PadMode::Constant);
        let count = |n_fft, framing, n| args(n_fft, framing).n_frames(n);
        // (samples, centred, inside) for n_fft 8 and 7, as librosa's frames of padded signals count.
        for (n, centred, inside) in [(0, 0, 0), (1, 1, 0), (7, 3, 0), (8, 3, 1), (11, 4, 2)] {
            assert_eq!(
                (count(8, center, n), count(8, Framing::Inside, n)),
                (centred, inside),
                "{n} samples"
            );
        }
        for (n, centred, inside) in [(0, 0, 0), (1, 1, 0), (6, 2, 0), (7, 3, 1)] {
            assert_eq!(
                (count(7, center, n), count(7, Framing::Inside, n)),
                (centred, inside),
                "{n} samples"
            );
        }
    }

    #[test]
    fn samples_for_is_the_least_that_gives_the_frames() {
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
    fn reflection_repeats_as_numpy_does() {
        let signal = Signal {
            pcm: &[1.0, 2.0, 3.0],
            len: 3,
        };
        let padded: Vec<f32> = (-7..10)
            .map(|i| signal.at(i, Framing::Center(PadMode::Reflect)))
            .collect();
        // numpy.pad([1, 2, 3], 7, mode="reflect")
        let want = [
            2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0,
        ];
        assert_eq!(padded, want);
        let single = Signal {
            pcm: &[5.0],
            len: 1,
        };
        assert_eq!(single.at(-4, Framing::Center(PadMode::Reflect)), 5.0);
    }
}
