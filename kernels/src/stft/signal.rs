//! A signal beyond its ends.

use wavemill_options::{Framing, PadMode, StftArgs};

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
            len: args.n_signal(pcm.len(), frames_min),
        }
    }

    /// Length of the signal that `n_samples` samples of PCM become: [`StftArgs::n_signal`].
    pub(crate) fn len_of(n_samples: usize, args: &StftArgs, frames_min: Option<usize>) -> usize {
        args.n_signal(n_samples, frames_min)
    }

    /// As many samples as `spare` has, from `start` on: where they lie, or in `spare` where padding decides about some.
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

    /// The samples from `start` on.
    pub(crate) fn copy(&self, start: isize, framing: Framing, out: &mut [f32]) {
        let end = start + out.len() as isize;
        if start >= 0 && end <= self.pcm.len() as isize {
            return out.copy_from_slice(&self.pcm[start as usize..end as usize]);
        }
        for (i, x) in out.iter_mut().enumerate() {
            *x = self.at(start + i as isize, framing);
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
