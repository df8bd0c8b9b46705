//! The sub-bands at the upper edge of the band of half of the rate, each with a filter that both synthesises and
//! resamples it.
//!
//! The resampler of the whole band passes the sub-bands below its transition band unchanged: they are synthesised as
//! they are. The transition band, from 0.913 of the new Nyquist frequency on, is in sub-bands 14 and 15, and aliases of
//! sub-band 16, just above the new Nyquist frequency, reach down into it. The filter of such a sub-band is its synthesis
//! filter convolved with that of the resampler (`kernels/signal/src/resample/`), of which every second value is needed. So every
//! tone has the level that the resampler gives it.
//!
//! The filters are cut to the 16 slots of the synthesis window, so the output needs no later slots. The parts that are
//! cut off are 85, 81 and 100 dB below sub-bands 14, 15 and 16, as these are before they are resampled.

use std::array;
use std::f64::consts::PI;
use std::ops::Range;
use std::sync::LazyLock;

use wavemill_signal::resample::ResampleArgs;

use super::half::HALF;
use crate::layer3::window::{WINDOW_LEN, window};
use crate::layer3::{FRAME_SLOTS, SUB_BANDS};

/// The sub-bands with filters of their own. Those below end at 0.875 of the new Nyquist frequency, and their filters at
/// 0.906 of it.
pub(super) const EDGE: Range<usize> = 14..17;
const N_EDGE: usize = EDGE.end - EDGE.start;
/// Number of time slots that contribute to a sample.
const TAPS: usize = WINDOW_LEN / SUB_BANDS;
/// Number of earlier time slots that are kept.
const HISTORY: usize = TAPS - 1;

/// Number of time slots that are computed at once. Granules have 18.
const BLOCK: usize = 6;

/// Factors of the samples of a slot, by the number of slots since then, by sub-band and by output.
type Factors = [[[f32; HALF]; N_EDGE]; TAPS];

/// The filters of the sub-bands [`EDGE`], with the samples of earlier time slots.
#[derive(Debug)]
pub(super) struct EdgeFilters {
    /// Factors by phase.
    factors: &'static [Factors; 2],
    /// Sub-band samples of earlier slots and of a frame.
    slots: Box<[[f32; N_EDGE]; HISTORY + FRAME_SLOTS]>,
}

impl EdgeFilters {
    pub(super) fn new() -> Self {
        static FACTORS: LazyLock<[Factors; 2]> = LazyLock::new(factors);
        Self {
            factors: &FACTORS,
            slots: Box::new([[0.0; N_EDGE]; HISTORY + FRAME_SLOTS]),
        }
    }

    /// Clears the samples of earlier time slots.
    pub(super) fn reset(&mut self) {
        self.slots.fill([0.0; N_EDGE]);
    }

    /// Adds the sub-bands to the output samples of at most a frame, of which the first one is sample `phase`.
    #[inline(always)]
    pub(super) fn add(&mut self, phase: usize, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        for (to, slot) in self.slots[HISTORY..].iter_mut().zip(slots) {
            to.copy_from_slice(&slot[EDGE]);
        }

        let blocks = out.as_chunks_mut::<HALF>().0.as_chunks_mut::<BLOCK>().0;
        for (at, block) in blocks.iter_mut().enumerate() {
            let window: &[_; HISTORY + BLOCK] = self.slots[at * BLOCK..]
                .first_chunk()
                .expect("each slot has its history");
            *block = filtered(*block, window, &self.factors[phase]);
        }

        self.slots
            .copy_within(slots.len()..slots.len() + HISTORY, 0);
    }
}

/// Returns the sums of a block's outputs and of the filters of its slots, which follow their history in `window`.
///
/// A slot takes 285 instructions. Each factor is loaded once for a whole block, whose sums are kept in registers.
#[inline(always)]
fn filtered(
    mut sums: [[f32; HALF]; BLOCK],
    window: &[[f32; N_EDGE]; HISTORY + BLOCK],
    factors: &Factors,
) -> [[f32; HALF]; BLOCK] {
    for (tap, factors) in factors.iter().enumerate() {
        for (sub_band, factors) in factors.iter().enumerate() {
            for (slot, sums) in sums.iter_mut().enumerate() {
                let sample = window[HISTORY + slot - tap][sub_band];
                for (sum, factor) in sums.iter_mut().zip(factors) {
                    *sum += sample * factor;
                }
            }
        }
    }
    sums
}

fn factors() -> [Factors; 2] {
    let filters: [Vec<f64>; N_EDGE] = array::from_fn(|at| filter(EDGE.start + at));
    array::from_fn(|phase| {
        array::from_fn(|tap| {
            array::from_fn(|at| {
                array::from_fn(|output| filters[at][tap * SUB_BANDS + 2 * output + phase] as f32)
            })
        })
    })
}

/// Returns the filter of a sub-band at the rate of the stream: the response of the synthesis and the resampler to a
/// sample.
fn filter(sub_band: usize) -> Vec<f64> {
    // The filter depends only on the ratio of the rates.
    let halving = ResampleArgs {
        from_hz: 2,
        to_hz: 1,
    };
    let taps = halving.taps();
    // The standard's matrixing has 64 values, so they repeat every two slots; the signs of the window allow for it.
    let synthesis: Vec<f64> = (0..WINDOW_LEN)
        .map(|n| {
            let angle = PI / 64.0 * (16 + n % 64) as f64 * (2 * sub_band + 1) as f64;
            window(n) * libm::cos(angle)
        })
        .collect();

    let convolved = |n: usize| {
        let terms = synthesis.iter().enumerate();
        let terms = terms.filter_map(|(at, value)| Some(value * taps.get(n.abs_diff(at))?));
        terms.sum()
    };
    (0..WINDOW_LEN).map(convolved).collect()
}
