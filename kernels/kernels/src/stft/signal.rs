//! Access to a signal beyond its ends.

use wavemill_options::{Framing, PadMode, StftArgs};

/// PCM followed by zeros up to a length, with a padding rule for positions outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal<'a> {
    /// Samples of the PCM; at most `len`.
    pub pcm: &'a [f32],
    /// Length of the signal in samples, including the zeros that follow the PCM.
    pub len: usize,
}

impl<'a> Signal<'a> {
    /// Creates a signal from `pcm`, cut or padded to the length in `args`, and padded to at least `frames_min` frames.
    pub(crate) fn new(pcm: &'a [f32], args: &StftArgs, frames_min: Option<usize>) -> Self {
        let kept = args
            .n_samples
            .map_or(pcm.len(), |n_samples| n_samples.min(pcm.len()));
        Self {
            pcm: &pcm[..kept],
            len: args.n_signal(pcm.len(), frames_min),
        }
    }

    /// Returns the length of the signal for `n_samples` samples of PCM: [`StftArgs::n_signal`].
    pub(crate) fn len_of(n_samples: usize, args: &StftArgs, frames_min: Option<usize>) -> usize {
        args.n_signal(n_samples, frames_min)
    }

    /// Returns `spare.len()` samples starting at `start`: a slice of the PCM if possible, otherwise a padded copy in
    /// `spare`.
    pub(crate) fn read<'b>(&self, start: isize, framing: Framing, spare: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        let end = start + spare.len() as isize;
        if start >= 0 && end <= self.pcm.len() as isize {
            return &self.pcm[start as usize..end as usize];
        }
        self.copy(start, framing, spare);
        spare
    }

    /// Copies samples of the signal, starting at `start`, to `out`.
    pub(crate) fn copy(&self, start: isize, framing: Framing, out: &mut [f32]) {
        let end = start + out.len() as isize;
        if start >= 0 && end <= self.pcm.len() as isize {
            return out.copy_from_slice(&self.pcm[start as usize..end as usize]);
        }
        for (i, x) in out.iter_mut().enumerate() {
            *x = self.at(start + i as isize, framing);
        }
    }

    /// Returns the sample at `index`, which may be outside of the signal; the signal must not be empty.
    pub(crate) fn at(&self, index: isize, framing: Framing) -> f32 {
        let last = self.len as isize - 1;
        let inside = match framing {
            _ if (0..=last).contains(&index) => index,
            Framing::Center(PadMode::Edge) => index.clamp(0, last),
            Framing::Center(PadMode::Reflect) if last == 0 => 0,
            Framing::Center(PadMode::Reflect) => {
                // One period is the way from the first sample to the last and back.
                let turn = index.rem_euclid(2 * last);
                turn.min(2 * last - turn)
            }
            _ => return 0.0,
        };
        self.pcm.get(inside as usize).copied().unwrap_or(0.0)
    }
}

/// The part of a frame that is inside of a signal.
pub(crate) struct FramePlace {
    pub in_frame: usize,
    pub in_signal: usize,
    pub len: usize,
}

impl FramePlace {
    /// Computes the part of a frame of `frame_len` samples from `start` that is inside of a signal of `n_samples` samples.
    pub(crate) fn new(start: isize, frame_len: usize, n_samples: usize) -> Self {
        let end = start.saturating_add_unsigned(frame_len).max(0) as usize;
        let in_signal = (start.max(0) as usize).min(n_samples);
        Self {
            in_frame: start.min(0).unsigned_abs().min(frame_len),
            in_signal,
            len: end.min(n_samples).saturating_sub(in_signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_repeats_as_numpy_does() {
        let signal = Signal {
            pcm: &[1.0, 2.0, 3.0],
            len: 3,
        };
        let padded: Vec<f32> = (-7..10)
            .map(|i| signal.at(i, Framing::Center(PadMode::Reflect)))
            .collect();

        // Result of numpy.pad([1, 2, 3], 7, mode="reflect").
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
