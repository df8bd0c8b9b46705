//! Eight frames at a time: window, transform, power, and eight lanes a bin for all that follows.

use std::ops::Range;

use wavemill_options::StftArgs;

use super::eight::{self, EightFrames};
use super::fft::{RealFft, Transform};
use super::{Signal, window};
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
    method: Method,
}

/// How eight frames are transformed.
enum Method {
    /// All at once.
    Together(Together),
    /// One after another.
    Each(Each),
}

impl StftPlan {
    /// `wide`: in double precision.
    pub(crate) fn new(args: &StftArgs, wide: bool, lanes: Lanes) -> Self {
        let method = if args.n_fft == eight::N_FFT && !wide {
            Method::Together(Together::new(args))
        } else {
            Method::Each(Each::new(args, wide, lanes))
        };
        Self {
            args: args.clone(),
            lanes,
            method,
        }
    }

    /// Power of frames `first .. first + count` (`count` ≤ [`LANES`]), `[n_bins]` of eight frames; lanes beyond
    /// `count` hold finite values of no meaning.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        match &mut self.method {
            Method::Together(plan) => plan.block(&self.args, signal, first, self.lanes),
            Method::Each(plan) => plan.block(&self.args, signal, first..first + count, self.lanes),
        }
    }
}

/// Eight frames of one length at once.
struct Together {
    fft: EightFrames,
    /// The frames share their samples, which lie as the signal does; otherwise each has its own.
    shared: bool,
    /// Samples from one frame's start to the next one's.
    hop: usize,
    /// Samples that cannot be used where they lie.
    samples: Vec<f32>,
    powers: Box<[Lane; eight::N_BINS]>,
}

impl Together {
    fn new(args: &StftArgs) -> Self {
        let shared = is_raw(args) && args.hop_length <= args.n_fft;
        let hop = if shared { args.hop_length } else { args.n_fft };
        Self {
            fft: EightFrames::new(&window::values(args.window, args.win_length)),
            shared,
            hop,
            samples: vec![0.0; (LANES - 1) * hop + args.n_fft],
            powers: Box::new([[0.0; LANES]; eight::N_BINS]),
        }
    }

    fn block(&mut self, args: &StftArgs, signal: Signal, first: usize, lanes: Lanes) -> &[Lane] {
        let samples = if self.shared {
            let start = args.window_start(first);
            signal.read(start, args.framing, &mut self.samples)
        } else {
            for (slot, frame) in self.samples.chunks_exact_mut(args.n_fft).enumerate() {
                let start = args.window_start(first + slot);
                let frame = &mut frame[..args.win_length];
                signal.copy(start, args.framing, frame);
                condition(frame, args, lanes);
            }
            &self.samples
        };

        lanes.run(
            #[inline(always)]
            || self.fft.powers(samples, self.hop, &mut self.powers),
        );
        &self.powers[..]
    }
}

/// Frames of any length, in any precision.
struct Each {
    fft: Box<dyn Transform>,
    /// Samples of a frame that cannot be used where they lie.
    frame: Vec<f32>,
    /// Powers of each frame of a block, `[LANES, padded bins]`.
    rows: Vec<f32>,
    /// The same, `[bins]` of eight frames.
    block: Vec<Lane>,
}

impl Each {
    fn new(args: &StftArgs, wide: bool, lanes: Lanes) -> Self {
        let fft: Box<dyn Transform> = if wide {
            Box::new(RealFft::<f64>::new(args, lanes))
        } else {
            Box::new(RealFft::<f32>::new(args, lanes))
        };

        // `transpose` works on square tiles, so the bins are filled up to whole tiles.
        let tiled = args.n_bins().next_multiple_of(LANES);
        Self {
            frame: vec![0.0; fft.n_loaded()],
            fft,
            rows: vec![0.0; LANES * tiled],
            block: vec![[0.0; LANES]; tiled],
        }
    }

    fn block(
        &mut self,
        args: &StftArgs,
        signal: Signal,
        frames: Range<usize>,
        lanes: Lanes,
    ) -> &[Lane] {
        let bins = args.n_bins();
        let tiled = self.block.len();
        for (slot, frame) in frames.enumerate() {
            self.power(
                args,
                signal,
                frame,
                slot * tiled..slot * tiled + bins,
                lanes,
            );
        }

        lanes.run(
            #[inline(always)]
            || transpose(&self.rows, &mut self.block),
        );
        &self.block[..bins]
    }

    /// Power of one frame, into that part of `rows`.
    fn power(
        &mut self,
        args: &StftArgs,
        signal: Signal,
        frame: usize,
        place: Range<usize>,
        lanes: Lanes,
    ) {
        let start = args.window_start(frame);
        let row = &mut self.rows[place];

        // This is the usual case: the transform reads the samples where they lie.
        if is_raw(args) {
            let samples = signal.read(start, args.framing, &mut self.frame);
            return self.fft.powers(samples, row);
        }

        signal.copy(start, args.framing, &mut self.frame);
        condition(&mut self.frame[..args.win_length], args, lanes);
        self.fft.powers(&self.frame, row);
    }
}

/// Nothing happens to a frame before its window.
fn is_raw(args: &StftArgs) -> bool {
    args.scale == 1 && !args.remove_dc && args.preemphasis == 0.0
}

/// Scale, DC removal and pre-emphasis of one frame, in Kaldi's order; nothing where none of them is wanted.
fn condition(frame: &mut [f32], args: &StftArgs, lanes: Lanes) {
    if !is_raw(args) {
        lanes.run(
            #[inline(always)]
            || condition_in_lanes(frame, args),
        );
    }
}

#[inline(always)]
fn condition_in_lanes(frame: &mut [f32], args: &StftArgs) {
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
