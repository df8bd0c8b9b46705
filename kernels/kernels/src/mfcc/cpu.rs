//! The cosine transform as a small matrix product, for eight frames at once.

use wavemill_options::MfccArgs;
use wavemill_signal::{LANES, Lane, Lanes};

use super::matrix::matrix;

/// Matrix and buffer of one cosine transform.
pub(crate) struct MfccPlan {
    lanes: Lanes,
    n_mels: usize,
    /// Matrix of the transform and lifter, `[n_mfcc][n_mels]`.
    matrix: Vec<f32>,
    /// Buffer for eight frames of every band.
    block: Vec<Lane>,
}

impl MfccPlan {
    pub(crate) fn new(args: &MfccArgs, n_mels: usize, lanes: Lanes) -> Self {
        let matrix = matrix(args, n_mels).iter().map(|x| *x as f32).collect();
        Self {
            lanes,
            n_mels,
            matrix,
            block: vec![[0.0; LANES]; n_mels],
        }
    }

    /// Computes coefficients, `[n_mels, n_frames]` → `[n_mfcc, n_frames]`; `bands` and `out` must have these lengths.
    pub(crate) fn run(&mut self, bands: &[f32], n_frames: usize, out: &mut [f32]) {
        for first in (0..n_frames).step_by(LANES) {
            let count = LANES.min(n_frames - first);
            // A row of `bands` has all frames of one band. The product needs eight frames of all bands.
            for (lane, row) in self.block.iter_mut().zip(bands.chunks_exact(n_frames)) {
                lane[..count].copy_from_slice(&row[first..first + count]);
            }

            for (weights, row) in self
                .matrix
                .chunks_exact(self.n_mels)
                .zip(out.chunks_exact_mut(n_frames))
            {
                let sum = self.lanes.run(
                    #[inline(always)]
                    || product(weights, &self.block),
                );
                row[first..first + count].copy_from_slice(&sum[..count]);
            }
        }
    }
}

/// Returns `Σ weights · block` in each lane. Four sums are kept, because a single one would wait for its own last
/// addition.
#[inline(always)]
fn product(weights: &[f32], block: &[Lane]) -> Lane {
    let mut sums = [[0.0f32; LANES]; 4];
    for (weights, lanes) in weights.chunks(4).zip(block.chunks(4)) {
        for ((sum, lane), weight) in sums.iter_mut().zip(lanes).zip(weights) {
            for (sum, x) in sum.iter_mut().zip(lane) {
                *sum += x * weight;
            }
        }
    }
    std::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
}
