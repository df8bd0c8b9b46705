//! Windows and transforms eight frames at a time, and returns the powers of each bin as eight lanes.

use std::ops::Range;

use wavemill_options::StftArgs;
use wavemill_signal::{LANES, Lane, Lanes};

use super::eight::{self, EightFrames};
use super::fft::{RealFft, Transform};
use super::{Signal, window};
use crate::error::{KernelError, SAMPLE_MAX};

/// Checks all samples. Errors: [`KernelError::Sample`] with the first sample that is NaN, infinite or beyond
/// [`SAMPLE_MAX`].
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

/// Reports whether all samples are valid. The loop has no early exit, so that it can be vectorized.
#[inline(always)]
fn are_sound(pcm: &[f32]) -> bool {
    pcm.iter().fold(true, |sound, x| sound & is_sound(*x))
}

/// Reports whether a sample is valid; NaN is invalid.
#[inline(always)]
fn is_sound(sample: f32) -> bool {
    sample.abs() <= SAMPLE_MAX
}

/// Tables and buffers for computing spectra with one set of STFT arguments.
pub(crate) struct StftPlan {
    args: StftArgs,
    lanes: Lanes,
    method: Method,
}

/// Method of transforming eight frames.
enum Method {
    /// Transforms all frames at once.
    EightFrameFft(EightFrameFft),
    /// Transforms one frame after another.
    SingleFrameFft(SingleFrameFft),
}

impl StftPlan {
    /// Plans the transform, in double precision if `wide` is set.
    pub(crate) fn new(args: &StftArgs, wide: bool, lanes: Lanes) -> Self {
        let method = if args.n_fft == eight::N_FFT && !wide {
            Method::EightFrameFft(EightFrameFft::new(args))
        } else {
            Method::SingleFrameFft(SingleFrameFft::new(args, wide, lanes))
        };
        Self {
            args: args.clone(),
            lanes,
            method,
        }
    }

    /// Returns the powers of frames `first .. first + count` (`count` ≤ [`LANES`]) as `[n_bins]` of eight frames. Lanes
    /// after `count` contain finite but meaningless values.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        match &mut self.method {
            Method::EightFrameFft(plan) => plan.block(&self.args, signal, first, self.lanes),
            Method::SingleFrameFft(plan) => {
                plan.block(&self.args, signal, first..first + count, self.lanes)
            }
        }
    }
}

/// Transforms eight frames of one length at once.
struct EightFrameFft {
    fft: EightFrames,
    /// Whether the frames overlap in one contiguous signal; otherwise each frame has its own samples.
    shared: bool,
    /// Samples from the start of one frame to the start of the next.
    hop: usize,
    /// Copy of samples that cannot be read from the signal directly.
    samples: Vec<f32>,
    powers: Box<[Lane; eight::N_BINS]>,
}

impl EightFrameFft {
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

/// Transforms frames of any length, in any precision.
struct SingleFrameFft {
    fft: Box<dyn Transform>,
    /// Copy of a frame's samples that cannot be read from the signal directly.
    frame: Vec<f32>,
    /// Powers of each frame of a block, `[LANES, n_bins]`, with bins padded to whole tiles.
    rows: Vec<f32>,
    /// The transposed powers, `[bins]` of eight frames.
    block: Vec<Lane>,
}

impl SingleFrameFft {
    fn new(args: &StftArgs, wide: bool, lanes: Lanes) -> Self {
        let fft: Box<dyn Transform> = if wide {
            Box::new(RealFft::<f64>::new(args, lanes))
        } else {
            Box::new(RealFft::<f32>::new(args, lanes))
        };

        // `transpose` works on square tiles, so the bins are padded to whole tiles.
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

    /// Computes the powers of one frame and writes them to the elements `place` of `rows`.
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

        // In the usual case the transform reads the samples directly from the signal.
        if is_raw(args) {
            let samples = signal.read(start, args.framing, &mut self.frame);
            return self.fft.powers(samples, row);
        }

        signal.copy(start, args.framing, &mut self.frame);
        condition(&mut self.frame[..args.win_length], args, lanes);
        self.fft.powers(&self.frame, row);
    }
}

/// Reports whether a frame is windowed without scaling, DC removal or pre-emphasis.
fn is_raw(args: &StftArgs) -> bool {
    args.scale == 1 && !args.remove_dc && args.preemphasis == 0.0
}

/// Applies scale, DC removal and pre-emphasis to one frame, in Kaldi's order; does nothing if none of them is enabled.
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
        // The loop runs backwards, because each sample needs the original value of the previous sample.
        for i in (1..frame.len()).rev() {
            frame[i] -= factor * frame[i - 1];
        }
        frame[0] -= factor * frame[0];
    }
}

/// Transposes `[LANES, bins]` to `[bins, LANES]`, in square tiles.
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
