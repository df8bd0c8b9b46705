//! Computes the values of eight frames from sums over chunks of samples, which overlapping frames share.

use wavemill_options::{FrameValues, StftArgs, Window};
use wavemill_signal::{LANES, Lane, Lanes};

use super::ZERO_MAX;
use crate::stft::{Signal, window_values};

/// Number of sums that are added to in turn: four lanes of eight numbers.
const SUMS: usize = 4 * LANES;
/// Largest number of chunks of a frame. With more, a frame is one chunk, because short chunks fill no lanes.
const CHUNKS_MAX: usize = 8;

/// Buffers for one value per frame.
pub(crate) struct FramesPlan {
    args: StftArgs,
    values: FrameValues,
    lanes: Lanes,
    /// Number of chunks of a frame. Each chunk begins with a frame.
    n_chunks: usize,
    /// Weights of a frame's samples; empty if all are 1.
    window: Vec<f32>,
    /// Buffer for a frame's samples with their weights.
    weighted: Vec<f32>,
    /// Copy of a chunk's samples that cannot be read from the signal directly. For zero crossings, one more sample.
    chunk: Vec<f32>,
    /// Sums of the chunks of a block of frames.
    sums: [f64; LANES + CHUNKS_MAX - 1],
    block: [Lane; 1],
}

impl FramesPlan {
    pub(crate) fn new(args: &StftArgs, values: FrameValues, lanes: Lanes) -> Self {
        let window = match args.window {
            Window::Boxcar => Vec::new(),
            window => window_values(window, args.n_fft),
        };

        // Weighted samples are not the same in two frames, so only frames without a window share sums.
        let n_hops = args.n_fft / args.hop_length;
        let is_shared =
            window.is_empty() && args.n_fft.is_multiple_of(args.hop_length) && n_hops <= CHUNKS_MAX;
        let n_chunks = if is_shared { n_hops } else { 1 };
        let n_behind = usize::from(values == FrameValues::ZeroCrossings);

        Self {
            args: args.clone(),
            values,
            lanes,
            n_chunks,
            weighted: vec![0.0; window.len()],
            window: window.iter().map(|x| *x as f32).collect(),
            chunk: vec![0.0; args.n_fft / n_chunks + n_behind],
            sums: [0.0; LANES + CHUNKS_MAX - 1],
            block: [[0.0; LANES]; 1],
        }
    }

    /// Returns the values of frames `first .. first + count` (`count` ≤ [`LANES`]) as a spectrum of one bin. Lanes after
    /// `count` contain finite but meaningless values.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        let framing = self.args.framing;
        for (chunk, sum) in self.sums[..count + self.n_chunks - 1]
            .iter_mut()
            .enumerate()
        {
            let start = self.args.window_start(first + chunk);
            let samples = signal.read(start, framing, &mut self.chunk);
            *sum = self.lanes.run(
                #[inline(always)]
                || match self.values {
                    FrameValues::ZeroCrossings => zero_crossings(samples),
                    _ if self.window.is_empty() => squares(samples),
                    _ => {
                        let weighted = samples.iter().zip(&self.window);
                        for (out, (x, weight)) in self.weighted.iter_mut().zip(weighted) {
                            *out = x * weight;
                        }
                        squares(&self.weighted)
                    }
                },
            );
        }

        for (slot, value) in self.block[0][..count].iter_mut().enumerate() {
            let mut sum: f64 = self.sums[slot..][..self.n_chunks].iter().sum();
            if self.values == FrameValues::ZeroCrossings {
                // The last sample of a frame has none after it.
                let end = self.args.window_start(first + slot) + self.args.n_fft as isize;
                let [last, behind] = [end - 1, end].map(|index| signal.at(index, framing));
                sum -= f64::from(is_crossing(last, behind));
            }
            *value = (sum / self.args.n_fft as f64) as f32;
        }
        &self.block
    }
}

#[inline(always)]
fn squares(samples: &[f32]) -> f64 {
    let mut sums = [0.0f32; SUMS];
    let (whole, rest) = samples.as_chunks::<SUMS>();
    for chunk in whole {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

/// Returns the number of samples with another sign than the sample after. The last sample is not counted.
#[inline(always)]
fn zero_crossings(samples: &[f32]) -> f64 {
    let (before, rest_before) = samples[..samples.len() - 1].as_chunks::<LANES>();
    let (after, rest_after) = samples[1..].as_chunks::<LANES>();
    let mut crossings = [0u32; LANES];
    for (before, after) in before.iter().zip(after) {
        for (lane, crossings) in crossings.iter_mut().enumerate() {
            // A check for overflow, which cannot happen, would keep the loop from being vectorized.
            *crossings = crossings.wrapping_add(is_crossing(before[lane], after[lane]));
        }
    }

    let rest = rest_before.iter().zip(rest_after);
    let rest: u32 = rest.map(|(before, x)| is_crossing(*before, *x)).sum();
    f64::from(crossings.iter().sum::<u32>() + rest)
}

/// Returns 1 if the samples have different signs, otherwise 0.
#[inline(always)]
fn is_crossing(before: f32, x: f32) -> u32 {
    u32::from(before < -ZERO_MAX) ^ u32::from(x < -ZERO_MAX)
}
