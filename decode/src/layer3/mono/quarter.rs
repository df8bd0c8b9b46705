//! The synthesis filter, computed only for every fourth sample.
//!
//! The standard's matrixing computes 64 values per slot. Output `j` needs two kinds of them: value `j` of the even ones
//! of 16 slots, and value `32 + j` of the odd ones. For 8 outputs per slot these are 16 sums over at most 8 sub-bands.
//! That is too few for a fast transform to pay off, and plain sums work for any phase, which is the index of the
//! stream's first sample that is computed.

use std::f64::consts::PI;

use crate::layer3::window::window;
use crate::layer3::{FRAME_SLOTS, SUB_BANDS};

/// Number of samples that are computed of each time slot.
const N: usize = 8;
/// Number of earlier rows of values that are kept: the window spans 16 rows, including the new one.
const HISTORY: usize = 15;
/// Number of rows that contribute one kind of value to a sample, which is every second row of a window.
const TAPS: usize = 8;

/// Synthesis filter that computes every fourth sample of each time slot, from the index `phase` on.
#[derive(Debug)]
pub(super) struct QuarterSynthesis {
    phases: Vec<Phase>,
    phase: usize,
    n_sub_bands: usize,
    /// Matrixing value `j` of each row, for the outputs `j` that are computed.
    first: Box<[[f32; N]; HISTORY + FRAME_SLOTS]>,
    /// Matrixing value `32 + j` of each row, for the outputs `j` that are computed.
    second: Box<[[f32; N]; HISTORY + FRAME_SLOTS]>,
}

/// The factors for one phase, the index of the first sample that is computed.
#[derive(Debug)]
struct Phase {
    /// Cosines of the matrixing for both kinds of values, by sub-band.
    cosines: [[[f32; N]; 2]; SUB_BANDS],
    /// Window factors for both kinds of values, by filter tap.
    window: [[[f32; N]; 2]; TAPS],
}

impl Phase {
    fn new(phase: usize) -> Self {
        let output = |at: usize| at * (SUB_BANDS / N) + phase;
        let cosine = |value: usize, sub_band: usize| {
            let angle = PI / 64.0 * (16 + value) as f64 * (2 * sub_band + 1) as f64;
            libm::cos(angle) as f32
        };

        let mut factors = Self {
            cosines: [[[0.0; N]; 2]; SUB_BANDS],
            window: [[[0.0; N]; 2]; TAPS],
        };
        for kind in 0..2 {
            for at in 0..N {
                let value = output(at) + 32 * kind;
                for sub_band in 0..SUB_BANDS {
                    factors.cosines[sub_band][kind][at] = cosine(value, sub_band);
                }
                for tap in 0..TAPS {
                    factors.window[tap][kind][at] = window(64 * tap + value) as f32;
                }
            }
        }
        factors
    }
}

impl QuarterSynthesis {
    pub(super) fn new(n_sub_bands: usize) -> Self {
        Self {
            phases: (0..SUB_BANDS / N).map(Phase::new).collect(),
            phase: 0,
            n_sub_bands,
            first: Box::new([[0.0; N]; HISTORY + FRAME_SLOTS]),
            second: Box::new([[0.0; N]; HISTORY + FRAME_SLOTS]),
        }
    }

    /// Clears the values of earlier time slots.
    pub(super) fn reset(&mut self) {
        self.first.fill([0.0; N]);
        self.second.fill([0.0; N]);
    }

    /// Computes `N` samples of each time slot, for at most [`FRAME_SLOTS`] slots. If the phase differs from that of the
    /// last call, the values of earlier slots cannot be used and are cleared.
    #[inline(always)]
    pub(super) fn run(&mut self, phase: usize, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        if phase != self.phase {
            self.phase = phase;
            self.reset();
        }

        let factors = &self.phases[phase];
        let rows = self.first[HISTORY..]
            .iter_mut()
            .zip(&mut self.second[HISTORY..]);
        for (slot, (first, second)) in slots.iter().zip(rows) {
            [*first, *second] = factors.values(&slot[..self.n_sub_bands]);
        }
        let out = &mut out.as_chunks_mut::<N>().0[..slots.len()];
        for (slot, out) in out.iter_mut().enumerate() {
            let first = window_rows(&self.first[slot..]);
            let second = window_rows(&self.second[slot..]);
            *out = factors.output(first, second);
        }

        // Keep the last rows for the next call.
        let n = slots.len();
        self.first.copy_within(n..n + HISTORY, 0);
        self.second.copy_within(n..n + HISTORY, 0);
    }
}

impl Phase {
    /// Computes the row of matrixing values of a time slot.
    #[inline(always)]
    fn values(&self, slot: &[f32]) -> [[f32; N]; 2] {
        let mut values = [[0.0; N]; 2];
        for (sample, cosines) in slot.iter().zip(&self.cosines) {
            for kind in 0..2 {
                for at in 0..N {
                    values[kind][at] += sample * cosines[kind][at];
                }
            }
        }
        values
    }

    /// Computes the output samples of a time slot from 16 rows of values; the last row belongs to the slot.
    #[inline(always)]
    fn output(
        &self,
        first: &[[f32; N]; HISTORY + 1],
        second: &[[f32; N]; HISTORY + 1],
    ) -> [f32; N] {
        let mut out = [0.0; N];
        for (tap, [even, odd]) in self.window.iter().enumerate() {
            let first = &first[HISTORY - 2 * tap];
            let second = &second[HISTORY - 1 - 2 * tap];
            for at in 0..N {
                out[at] += first[at] * even[at] + second[at] * odd[at];
            }
        }
        out
    }
}

/// Returns the first 16 rows, which one window spans.
#[inline(always)]
fn window_rows<T>(rows: &[T]) -> &[T; HISTORY + 1] {
    rows.first_chunk().expect("each slot has its history")
}
