//! Computes the values of eight frames, one frame after another.

use wavemill_options::{FrameValues, StftArgs};

use super::ZERO_MAX;
use crate::lane::{LANES, Lane};
use crate::level::Lanes;
use crate::stft::Signal;

/// Number of sums that are added to in turn: four lanes of eight numbers.
const SUMS: usize = 4 * LANES;

/// Buffer for one value per frame.
pub(crate) struct FramesPlan {
    args: StftArgs,
    values: FrameValues,
    lanes: Lanes,
    /// Copy of a frame's samples that cannot be read from the signal directly.
    frame: Vec<f32>,
    block: [Lane; 1],
}

impl FramesPlan {
    pub(crate) fn new(args: &StftArgs, values: FrameValues, lanes: Lanes) -> Self {
        Self {
            args: args.clone(),
            values,
            lanes,
            frame: vec![0.0; args.n_fft],
            block: [[0.0; LANES]; 1],
        }
    }

    /// Returns the values of frames `first .. first + count` (`count` ≤ [`LANES`]) as a spectrum of one bin. Lanes after
    /// `count` contain finite but meaningless values.
    pub(crate) fn block(&mut self, signal: Signal, first: usize, count: usize) -> &[Lane] {
        for (slot, value) in self.block[0][..count].iter_mut().enumerate() {
            let start = self.args.window_start(first + slot);
            let samples = signal.read(start, self.args.framing, &mut self.frame);
            *value = self.lanes.run(
                #[inline(always)]
                || match self.values {
                    FrameValues::ZeroCrossings => zero_crossings(samples),
                    FrameValues::MeanSquare | FrameValues::Spectrum => mean_square(samples),
                },
            );
        }
        &self.block
    }
}

#[inline(always)]
fn mean_square(samples: &[f32]) -> f32 {
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
    let total: f64 = sums.iter().map(|sum| f64::from(*sum)).sum();
    (total / samples.len() as f64) as f32
}

/// Returns the part of the samples with another sign than the sample before. The first sample has none before it.
#[inline(always)]
fn zero_crossings(samples: &[f32]) -> f32 {
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
    (crossings.iter().sum::<u32>() + rest) as f32 / samples.len() as f32
}

/// Returns 1 if the samples have different signs, otherwise 0.
#[inline(always)]
fn is_crossing(before: f32, x: f32) -> u32 {
    u32::from(before < -ZERO_MAX) ^ u32::from(x < -ZERO_MAX)
}
