//! Sub-band samples → sound: the polyphase synthesis filter (ISO/IEC 11172-3 §2.4.3.2.2).
//!
//! The standard's matrixing computes 64 values from 32 samples, 33 of which are different: they are the outputs `c` of
//! a cosine transform, repeated with signs. Output `j` and output `32 - j` of a slot are sums over the same values with
//! different window factors: over `c[16 + j]` of every second one of 16 slots, and `c[16 - j]` of the slots between
//! them.
//!
//! So each `c[n]` is the input of a filter in time. All steps process eight slots at once: samples are transposed from
//! slots to sub-bands before the transform, and outputs are transposed back after the filters.

use std::sync::LazyLock;

use wavemill_kernels::{LANES, Lane};

use super::dct32::{Secants, dct32};
use super::wide::{Wide, interleave};
use super::window::window;
use super::{FRAME_SLOTS, SUB_BANDS};

/// Slots before the new ones. The window spans 15 of them; 16 is a multiple of eight.
const HISTORY: usize = 16;
/// Slots that are computed: those of a frame, rounded up to a multiple of eight.
const SLOTS: usize = FRAME_SLOTS.next_multiple_of(LANES);
/// Slots of a window that are of the same kind, which is every second one.
const TAPS: usize = 8;
/// The output that is its own mirror.
const MIDDLE: usize = SUB_BANDS / 2;
/// Sub-bands or slots that are transposed at once.
const QUAD: usize = 4;

/// Values of one kind in time, history first.
type Column = [f32; HISTORY + SLOTS];

/// The filter of one channel with its history.
#[derive(Debug)]
pub(super) struct Synthesis {
    secants: &'static Secants,
    factors: &'static Factors,
    /// `c[0]` to `c[32]`; the last one is always zero.
    columns: Box<[Column; SUB_BANDS + 1]>,
    /// Samples by output, then by slot. The row after the last output receives the unused mirror of the first output.
    sound: Box<[[f32; SLOTS]; SUB_BANDS + QUAD]>,
}

/// Window factors for the outputs `j` and `32 - j`.
#[derive(Clone, Copy, Debug)]
struct Tap {
    /// Factors of `c[16 + j]`.
    even: [f32; 2],
    /// Factors of `c[16 - j]`, one slot earlier.
    odd: [f32; 2],
}

/// Taps by `j`, then by pair of slots, the newest first.
#[derive(Debug)]
struct Factors([[Tap; TAPS]; MIDDLE + 1]);

impl Factors {
    /// Returns the factors, which are created together with the first decoder.
    fn get() -> &'static Self {
        static FACTORS: LazyLock<Factors> = LazyLock::new(Factors::new);
        &FACTORS
    }

    fn new() -> Self {
        Self(std::array::from_fn(|j| {
            std::array::from_fn(|tap| Self::tap(j, 64 * tap))
        }))
    }

    fn tap(j: usize, at: usize) -> Tap {
        // The mirror of output 0 would be output 32, which does not exist.
        let mirror = |at: usize| if j == 0 { 0.0 } else { -window(at - j) };
        Tap {
            even: [window(at + j), mirror(at + 32)].map(|factor| factor as f32),
            odd: [-window(at + 32 + j), mirror(at + 64)].map(|factor| factor as f32),
        }
    }
}

impl Synthesis {
    pub(super) fn new() -> Self {
        Self {
            secants: Secants::get(),
            factors: Factors::get(),
            columns: Box::new([[0.0; HISTORY + SLOTS]; SUB_BANDS + 1]),
            sound: Box::new([[0.0; SLOTS]; SUB_BANDS + QUAD]),
        }
    }

    /// Clears the history.
    pub(super) fn reset(&mut self) {
        for column in &mut *self.columns {
            column.fill(0.0);
        }
    }

    /// Computes 32 samples of each slot, for at most [`FRAME_SLOTS`] slots.
    #[inline(always)]
    pub(super) fn run(&mut self, slots: &[[f32; SUB_BANDS]], out: &mut [f32]) {
        for (at, slots) in slots.chunks(LANES).enumerate() {
            self.enter(HISTORY + at * LANES, slots);
        }
        for j in 0..=MIDDLE {
            self.filter(j, slots.len());
        }
        let out = &mut out.as_chunks_mut::<SUB_BANDS>().0[..slots.len()];
        self.leave(out);

        // The last slots are the history of the next call.
        for column in &mut *self.columns {
            let last: [f32; HISTORY] = *column[slots.len()..]
                .first_chunk()
                .expect("no more slots than of a frame");
            column[..HISTORY].copy_from_slice(&last);
        }
    }

    /// Transforms up to eight slots and appends their values to the columns.
    #[inline(always)]
    fn enter(&mut self, at: usize, slots: &[[f32; SUB_BANDS]]) {
        let mut samples = [[0.0; LANES]; SUB_BANDS];
        for (at, slots) in slots.chunks(QUAD).enumerate() {
            // Slots that do not exist may have any values, which never reach the output.
            let rows = std::array::from_fn(|row| slots.get(row).unwrap_or(&slots[0]));
            let mut quads = [[0.0; QUAD]; SUB_BANDS];
            interleave(rows, &mut quads);
            for (samples, quad) in samples.iter_mut().zip(&quads) {
                samples[at * QUAD..][..QUAD].copy_from_slice(quad);
            }
        }
        transform(&samples, self.secants, &mut self.columns, at);
    }

    /// Computes the outputs `j` and `32 - j` of all slots. A frame of one granule fits into the first part.
    #[inline(always)]
    fn filter(&mut self, j: usize, n_slots: usize) {
        self.filter_slots::<3>(j, 0);
        if n_slots > 3 * LANES {
            self.filter_slots::<2>(j, 3 * LANES);
        }
    }

    /// Computes the outputs of `N` times eight slots, where `N` is limited by the registers for their sums.
    #[inline(always)]
    fn filter_slots<const N: usize>(&mut self, j: usize, first: usize) {
        let upper = &self.columns[MIDDLE + j];
        let lower = &self.columns[MIDDLE - j];
        let mut own = [Wide::ZERO; N];
        let mut mirrored = [Wide::ZERO; N];
        for (tap, factors) in self.factors.0[j].iter().enumerate() {
            let now = HISTORY + first - 2 * tap;
            for n in 0..N {
                let even = Wide(window_of(upper, now + n * LANES));
                let odd = Wide(window_of(lower, now + n * LANES - 1));
                own[n] = own[n] + (even * factors.even[0] + odd * factors.odd[0]);
                mirrored[n] = mirrored[n] + (even * factors.even[1] + odd * factors.odd[1]);
            }
        }
        for n in 0..N {
            let at = first + n * LANES;
            self.sound[j][at..at + LANES].copy_from_slice(&own[n].0);
            self.sound[SUB_BANDS - j][at..at + LANES].copy_from_slice(&mirrored[n].0);
        }
    }

    /// Writes the outputs by slot.
    #[inline(always)]
    fn leave(&self, out: &mut [[f32; SUB_BANDS]]) {
        let mut quads = [[0.0; QUAD]; SLOTS];
        for at in (0..SUB_BANDS).step_by(QUAD) {
            interleave(std::array::from_fn(|row| &self.sound[at + row]), &mut quads);
            for (out, quad) in out.iter_mut().zip(&quads) {
                out[at..at + QUAD].copy_from_slice(quad);
            }
        }
    }
}

/// Computes the cosine transform of eight slots. Samples are read one at a time, not as a copy of all: only this is
/// vectorised.
#[inline(always)]
fn transform(
    samples: &[Lane; SUB_BANDS],
    secants: &Secants,
    columns: &mut [Column; SUB_BANDS + 1],
    at: usize,
) {
    let mut values = [[0.0; LANES]; SUB_BANDS];
    for slot in 0..LANES {
        let s = std::array::from_fn(|sub_band| samples[sub_band][slot]);
        let c = dct32(&s, secants);
        for (values, c) in values.iter_mut().zip(c) {
            values[slot] = c;
        }
    }
    for (column, values) in columns.iter_mut().zip(&values) {
        column[at..at + LANES].copy_from_slice(values);
    }
}

/// Returns eight slots of a column.
#[inline(always)]
fn window_of(column: &Column, at: usize) -> Lane {
    *column[at..]
        .first_chunk()
        .expect("each slot has its history")
}
