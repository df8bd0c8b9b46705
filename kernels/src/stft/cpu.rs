//! Eight frames at a time: window, transform, power, and eight lanes a bin for all that follows.

use std::ops::Range;

use wavemill_options::StftArgs;

use super::Signal;
use super::fft::{RealFft, Transform};
use crate::error::{KernelError, SAMPLE_MAX};
use crate::lane::{LANES, Lane};
use crate::level::Lanes;

/// Errors: [`KernelError::Sample`] with the first sample that is NaN, infinite or beyond [`SAMPLE_MAX`].
pub(crate) fn check_samples(pcm: &[f32], lanes: Lanes) -> Result<(), KernelError> {
    if lanes.run(
        #[inline(always)]
        || are_sound(pcm),
    ) {
        return Ok(());
    }

    for (index, &value) in pcm.iter().enumerate() {
        if !is_sound(value) {
            return Err(KernelError::Sample { index, value });
        }
    }
    Ok(())
}

/// Looks at all samples even where one is not sound: without a way out the loop runs in lanes.
#[inline(always)]
fn are_sound(pcm: &[f32]) -> bool {
    pcm.iter().fold(true, |sound, x| sound & is_sound(*x))
}

/// NaN is not.
#[inline(always)]
fn is_sound(sample: f32) -> bool {
    sample.abs() <= SAMPLE_MAX
}

/// Tables and buffers of one set of STFT arguments.
pub(crate) struct StftPlan {
    args: StftArgs,
    lanes: Lanes,
    fft: Box<dyn Transform>,
    /// Samples of a frame that cannot be used where they lie.
    frame: Vec<f32>,
    /// Powers of each frame of a block, `[LANES, padded bins]`.
    rows: Vec<f32>,
    /// The same, `[bins]` of eight frames.
    block: Vec<Lane>,
}

impl StftPlan {
    /// `wide`: in double precision.
    pub(crate) fn new(args: &StftArgs, wide: bool, lanes: Lanes) -> Self {
        let fft: Box<dyn Transform> = if wide {
            Box::new(RealFft::<f64>::new(args, lanes))
        } else {
            Box::new(RealFft::<f32>::new(args, lanes))
        };

        // `transpose` works on square tiles, so the bins are filled up to whole tiles.
        let tiled = args.n_bins().next_multiple_of(LANES);
        Self {
            args: args.clone(),
            lanes,
            frame: vec![0.0; fft.n_loaded()],
            fft,
            rows: vec![0.0; LANES * tiled],
            block: vec![[0.0; LANES]; tiled],
        }
    }

    /// Power of frames `first .. first + count` (`count` ≤ [`LANES`]), `[n_bins]` of eight frames; lanes beyond
    /// `count` hold finite values of no meaning.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        let bins = self.args.n_bins();
        let tiled = self.block.len();
        for slot in 0..count {
            self.power(signal, first + slot, slot * tiled..slot * tiled + bins);
        }

        self.lanes.run(
            #[inline(always)]
            || transpose(&self.rows, &mut self.block),
        );
        &self.block[..bins]
    }

    /// Power of one frame, into that part of `rows`.
    fn power(&mut self, signal: Signal, frame: usize, place: Range<usize>) {
        let start = self.args.window_start(frame);
        let end = start + self.frame.len() as isize;
        let row = &mut self.rows[place];
        let within = start >= 0 && end <= signal.pcm.len() as isize;
        let raw = self.args.scale == 1 && !self.args.remove_dc && self.args.preemphasis == 0.0;

        // This is the usual case: the transform reads the samples where they lie.
        if within && raw {
            return self
                .fft
                .powers(&signal.pcm[start as usize..end as usize], row);
        }

        if within {
            self.frame
                .copy_from_slice(&signal.pcm[start as usize..end as usize]);
        } else {
            // The frame reaches beyond the samples, so padding decides what is there.
            for (i, x) in self.frame.iter_mut().enumerate() {
                *x = signal.at(start + i as isize, self.args.framing);
            }
        }

        if !raw {
            let frame = &mut self.frame[..self.args.win_length];
            self.lanes.run(
                #[inline(always)]
                || condition(frame, &self.args),
            );
        }

        self.fft.powers(&self.frame, row);
    }
}

/// Scale, DC removal and pre-emphasis of one frame, in Kaldi's order.
#[inline(always)]
fn condition(frame: &mut [f32], args: &StftArgs) {
    let scale = args.scale as f32;
    frame.iter_mut().for_each(|x| *x *= scale);

    if args.remove_dc {
        let sum: f64 = frame.iter().map(|x| f64::from(*x)).sum();
        let mean = (sum / frame.len() as f64) as f32;
        frame.iter_mut().for_each(|x| *x -= mean);
    }

    if args.preemphasis != 0.0 {
        let factor = args.preemphasis as f32;
        // The loop runs backwards, because each sample needs the original value of the one before it.
        for i in (1..frame.len()).rev() {
            frame[i] -= factor * frame[i - 1];
        }
        frame[0] -= factor * frame[0];
    }
}

/// `[LANES, bins]` to `[bins, LANES]`, in square tiles.
#[inline(always)]
fn transpose(rows: &[f32], block: &mut [Lane]) {
    let tiled = block.len();
    let rows: [&[f32]; LANES] = std::array::from_fn(|lane| &rows[lane * tiled..][..tiled]);

    for (at, tile) in block.chunks_exact_mut(LANES).enumerate() {
        let square: [Lane; LANES] =
            std::array::from_fn(|lane| std::array::from_fn(|bin| rows[lane][at * LANES + bin]));
        for (bin, out) in tile.iter_mut().enumerate() {
            *out = std::array::from_fn(|lane| square[lane][bin]);
        }
    }
}
